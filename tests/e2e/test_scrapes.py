"""Scrapes are answered promptly, whatever the broker, the store and other clients do."""

import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.publish import Load, publish, publisher
from tests.conftest import Start
from tests.e2e.campaign import assert_exact, publishing
from tests.e2e.daemon import Daemon
from tests.servers import Redis, wait_until
from tests.servers.waiting import Stopwatch

_HOSTILE = (b"", b"GET /metrics HT", b"\x16\x03\x01\x02\x00", b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
"""What silent, slow, confused and unreading clients send."""
_AT_ONCE = 2.0
"""Seconds, on a machine that is busy with other tests; who waits for the store waits for five."""


class Scraper(threading.Thread):
    """Scrapes repeatedly, like Prometheus, in a separate thread."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon=True)
        self.slowest = 0.0
        self.failures: list[str] = []
        self.number = 0
        self._daemon = daemon
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.05):
            try:
                with Stopwatch() as took:
                    status, _ = self._daemon.get("/metrics")
            except OSError as exc:
                self.failures.append(repr(exc))
            else:
                self.number += 1
                self.slowest = max(self.slowest, took.seconds)
                if status != 200:
                    self.failures.append(str(status))

    def end(self) -> None:
        """Stop it, and check its results."""
        wait_until(lambda: self.number >= 5 or self.failures, 60, what="some scrapes")
        self._ended.set()
        self.join()
        assert self.failures == []
        assert self.slowest < _AT_ONCE


@contextmanager
def scraped(daemon: Daemon) -> Iterator[None]:
    """Scrapes run during the block; none of them fails or is slow."""
    scraper = Scraper(daemon)
    scraper.start()
    yield
    scraper.end()


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Another process holds the store's lock."""
    holder = sqlite3.connect(store, timeout=60, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        holder.close()


def test_a_start_in_the_worst_of_times(start: Start, tmp_path: Path) -> None:
    """Without store and broker, scrapes are answered without fleet metrics, until both are available."""
    broker = Redis(tmp_path / "redis")
    daemon = Daemon(tmp_path / "daemon", broker.url())
    daemon.directory.mkdir()
    with locked(daemon.store):
        start(daemon)
        with scraped(daemon):
            daemon.until_trouble("store")
            assert daemon.metric("monitor_broker_connected") == 0
            assert "celery_task_received_total" not in daemon.metrics()
            assert daemon.get("/livez")[0] == 200
    with scraped(daemon):
        wait_until(lambda: "celery_task_received_total" in daemon.metrics(), 60, what="the store")
        start(broker)
        daemon.until_ready()


def test_scrapes_in_operation(rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """The store is locked, many clients are silent, slow or hostile, events arrive: scrapes are served."""
    daemon = start(Daemon(tmp_path / "daemon", rabbitmq_url))
    daemon.until_ready()
    load = Load(3_000)
    clients = [socket.create_connection(("127.0.0.1", daemon.port)) for _ in range(150)]
    for number, client in enumerate(clients):
        client.sendall(_HOSTILE[number % len(_HOSTILE)])

    with publishing(rabbitmq_url, load, 3_000) as state, scraped(daemon):
        state.until(state.total // 4)
        with locked(daemon.store):
            daemon.until_trouble("store")
            shown = daemon.metric("task_started_total")
            wait_until(lambda: daemon.metric("monitor_commit_failures_total") > 0, 60)
            assert daemon.metric("task_started_total") == shown
        daemon.until_ready()

    assert_exact(daemon, load)
    for client in clients:
        client.close()


def test_the_broker_goes(start: Start, tmp_path: Path) -> None:
    """Without it, scrapes still have the counts, and report that the stream is down."""
    broker = start(Redis(tmp_path / "redis"))
    daemon = start(Daemon(tmp_path / "daemon", broker.url()))
    daemon.until_ready()
    load = Load(200, lag=20)
    to = publisher(broker.url())
    publish(to, load, 5_000)
    to.close()
    assert_exact(daemon, load)
    with scraped(daemon):
        broker.kill()
        daemon.until_trouble("broker", "refused")
        assert daemon.metric("monitor_broker_connected") == 0
        assert_exact(daemon, load)
