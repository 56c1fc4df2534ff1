"""The daemon is killed, its connections are cut and its disk is full while events arrive: the counts are exact."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from bench.publish import Load
from tests.conftest import Start
from tests.e2e.campaign import Size, assert_drained, assert_exact, in_background, publishing, seeded, sizes, vhost
from tests.e2e.daemon import Daemon
from tests.e2e.disk import full, small_disk
from tests.e2e.reconciling import WITNESS, ReconcilingPublisher
from tests.servers import RabbitMQ, TcpProxy, wait_until

_SHORT, _LONG = Size(tasks=8_300, faults=4, rate=4_000), Size(tasks=83_000, faults=20, rate=4_000)
_SETTLED = 5.0
"""Seconds after which RabbitMQ 3.10 has its own records of a new quorum queue on disk. Killed before, it has a queue
that never works again, and has to be deleted by hand."""


@pytest.mark.parametrize("queue", ["classic", pytest.param("quorum", marks=pytest.mark.campaign)])
@sizes(_SHORT, _LONG)
def test_killed_daemon(
    *, size: Size, queue: str, rabbitmq: RabbitMQ, rabbitmq_url: str, start: Start, tmp_path: Path
) -> None:
    """Kill -9 at random moments, also during the start: totals are exact, every failure has its name."""
    daemon = start(Daemon(tmp_path / "daemon", rabbitmq_url, {"broker": {"queue": {"type": queue}}}))
    daemon.until_ready()
    randomly, load = seeded(), Load(size.tasks)

    with publishing(rabbitmq_url, load, size.rate) as state:
        for _ in state.moments(randomly, size.faults):
            daemon.kill()
            daemon.launch()
    daemon.until_ready()

    assert_exact(daemon, load)
    assert_drained(rabbitmq, rabbitmq_url)


@sizes(Size(tasks=300, faults=3, rate=3_000), Size(tasks=300, faults=30, rate=3_000))
def test_killed_at_its_first_start(size: Size, rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """Kill -9 while it creates its store and its queue leaves nothing that a later start cannot use."""
    randomly, load = seeded(), Load(size.tasks)
    for number in range(size.faults):
        daemon = Daemon(tmp_path / str(number), rabbitmq_url)
        daemon.launch()
        until(time.monotonic() + randomly.uniform(0.4, 1.6))
        daemon.kill()
        start(daemon).until_ready()
        daemon.kill()

    daemon = start(Daemon(tmp_path / "last", rabbitmq_url))
    daemon.until_ready()
    with publishing(rabbitmq_url, load, size.rate):
        pass
    assert_exact(daemon, load)


@sizes(_SHORT, _LONG)
def test_cut_connections(size: Size, rabbitmq: RabbitMQ, rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """The network resets the daemon's connections, or the broker closes them, with the same result."""
    name = vhost(rabbitmq_url)
    url = rabbitmq.add_user(f"monitor-{name}", "secret", name, configure=".*", write=".*", read=".*")
    randomly, load = seeded(), Load(size.tasks)
    with TcpProxy(rabbitmq.port) as proxy:
        daemon = start(Daemon(tmp_path / "daemon", url.replace(f":{rabbitmq.port}/", f":{proxy.port}/")))
        daemon.until_ready()

        with publishing(rabbitmq_url, load, size.rate) as state:
            for _ in state.moments(randomly, size.faults):
                if randomly.random() < 0.5:
                    proxy.cut()
                else:
                    close_connections_of(rabbitmq, f"monitor-{name}")

        assert_exact(daemon, load)
        wait_until(lambda: daemon.metric("monitor_reconnects_total") > 0, what="the count of the cuts")
        assert_drained(rabbitmq, rabbitmq_url)
        daemon.stop()


@sizes(Size(tasks=8_300, faults=1, rate=3_000), Size(tasks=83_000, faults=6, rate=3_000))
def test_half_open_connections(size: Size, rabbitmq: RabbitMQ, rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """The network drops every packet without closing: the probe detects it, with the same result."""
    randomly, load = seeded(), Load(size.tasks)
    with TcpProxy(rabbitmq.port) as proxy:
        url = rabbitmq_url.replace(f":{rabbitmq.port}/", f":{proxy.port}/")
        daemon = start(Daemon(tmp_path / "daemon", url, {"broker": {"heartbeat": "2s", "probe_interval": "1s"}}))
        daemon.until_ready()

        with publishing(rabbitmq_url, load, size.rate) as state:
            for _ in state.moments(randomly, size.faults):
                daemon.until_ready()
                proxy.stall()
                daemon.until_trouble()
                if randomly.random() < 0.5:
                    proxy.cut()
                proxy.resume()

        assert_exact(daemon, load)
        assert_drained(rabbitmq, rabbitmq_url)
        daemon.stop()


@sizes(Size(tasks=6_000, faults=1, rate=3_000), Size(tasks=83_000, faults=3, rate=4_000))
def test_full_disk(size: Size, rabbitmq: RabbitMQ, rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """The disk is full for ten seconds: nothing is acknowledged, /readyz gives the reason, and nothing is lost."""
    seconds = 10 if size.faults > 1 else 4
    randomly, load = seeded(), Load(size.tasks)
    with small_disk(tmp_path / "disk") as disk:
        daemon = start(Daemon(tmp_path / "daemon", rabbitmq_url, store_directory=disk))
        daemon.until_ready()

        with publishing(rabbitmq_url, load, size.rate) as state:
            for _ in state.moments(randomly, size.faults):
                daemon.until_ready()
                with full(disk, daemon.store):
                    daemon.until_trouble("full")
                    state.until(state.sent + int(seconds * size.rate / load.per_message))
                    assert daemon.get("/livez")[0] == 200
                    assert daemon.metric("monitor_commit_failures_total") > 0

        assert_exact(daemon, load)
        daemon.until_ready()
        assert daemon.metric("monitor_reconnects_total") == 0
        assert_drained(rabbitmq, rabbitmq_url)
        daemon.stop()


def test_a_flipped_bit(rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """In the store's log, after kill -9: the frames that SQLite drops silently are reported at the start."""
    load = Load(300)
    daemon = start(Daemon(tmp_path / "daemon", rabbitmq_url))
    daemon.until_ready()
    files = [daemon.store, daemon.store.with_name(f"{daemon.store.name}-wal")]
    # As long as somebody reads, the log stays as it is.
    with closing(sqlite3.connect(daemon.store, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        with publishing(rabbitmq_url, load, 3_000):
            pass
        assert_exact(daemon, load)
        daemon.kill()
        database, log = (bytearray(file.read_bytes()) for file in files)
    daemon.store.with_name(f"{daemon.store.name}-shm").unlink(missing_ok=True)
    log[len(log) // 3] ^= 4
    for file, content in zip(files, (database, log), strict=True):
        file.write_bytes(content)

    daemon.launch()
    daemon.until_ready()
    wait_until(lambda: daemon.metric("monitor_store_rolled_back_total") == 1, 60)
    assert "is older than the last commit" in daemon.log.read_text()
    daemon.stop()


@sizes(Size(tasks=6_000, faults=1, rate=3_000), Size(tasks=83_000, faults=8, rate=5_000))
def test_killed_broker(size: Size, breakable_rabbitmq: RabbitMQ, start: Start, tmp_path: Path) -> None:
    """Kill -9 to the broker, sometimes also to the daemon: with a quorum queue nothing confirmed is lost."""
    randomly, load = seeded(), Load(size.tasks, per_message=9)
    rabbitmq = breakable_rabbitmq
    daemon = start(Daemon(tmp_path / "daemon", rabbitmq.url(), {"broker": {"queue": {"type": "quorum"}}}))
    daemon.until_ready()
    settled = time.monotonic() + _SETTLED
    publisher = ReconcilingPublisher(rabbitmq.url(), size.rate, daemon.tracked)

    until(settled)
    with in_background(load, publisher.run) as state:
        # Far from the end: what is over is confirmed, and nothing of it in doubt.
        for _ in state.moments(randomly, size.faults, part=0.5):
            rabbitmq.kill()
            if randomly.random() < 0.3:
                daemon.kill()
                daemon.launch()
            rabbitmq.start()

    assert publisher.doubted > 0
    assert_exact(daemon, load, {WITNESS: {"received": publisher.witnesses}})
    assert_drained(rabbitmq, rabbitmq.url())


def until(moment: float) -> None:
    """Wait until a time of the monotonic clock."""
    wait_until(lambda: time.monotonic() >= moment, every=0.002)


def close_connections_of(rabbitmq: RabbitMQ, user: str) -> None:
    """Close a user's connections from the broker's side."""
    name = ",".join(str(byte) for byte in user.encode())
    rabbitmq.eval(
        '[catch rabbit_networking:close_connection(C, "closed by the test") '
        "|| C <- rabbit_networking:connections(), "
        f"[{{user, <<{name}>>}}] == (catch rabbit_networking:connection_info(C, [user]))], ok"
    )
