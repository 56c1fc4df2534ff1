"""Invented names on a real broker: memory is bounded, sums are exact, real tasks keep their names."""

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bench.publish import AmqpPublisher, body
from tests.conftest import Start
from tests.e2e.daemon import Daemon
from tests.servers import wait_until
from tests.servers.waiting import Stopwatch

_LIMIT = 512 * 1024 * 1024
_MANY = 150_000
"""Series of a store that was kept by a monitor without a bound."""


def _flood(names: int, queues: int, at: float) -> Iterator[dict[str, Any]]:
    """A task of each name is sent in each queue, and one in ten fails."""
    for queue in range(queues):
        for name in range(names):
            common = {"uuid": f"{at}-{name}-{queue}", "timestamp": at, "hostname": "celery@nobody"}
            yield {**common, "type": "task-sent", "name": f"x.task{name}", "queue": f"q{queue}"}
            if not name % 10:
                error = f"Error{name}('no')"
                yield {**common, "type": "task-failed", "exception": error, "traceback": f"no\n{error}"}


def _fleet(at: float) -> Iterator[dict[str, Any]]:
    """One task of each of the fleet's fifty names."""
    for number in range(50):
        common = {"uuid": f"{at}-real-{number}", "timestamp": at, "hostname": "celery@box"}
        yield {**common, "type": "task-sent", "name": f"shop.task{number}", "queue": "celery"}
        yield {**common, "type": "task-succeeded", "runtime": 0.1}


def _publish(daemon: Daemon, events: Iterator[dict[str, Any]]) -> None:
    to = AmqpPublisher(daemon.settings["broker"]["url"])
    batch: list[dict[str, Any]] = []
    for one in events:
        batch.append(one)
        if len(batch) == 100:
            to.publish(body(batch))
            batch = []
    if batch:
        to.publish(body(batch))
    to.settle()
    to.close()


class _Scrape:
    """A parser of /metrics; that of prometheus_client takes half a minute for 40 MB."""

    def __init__(self, daemon: Daemon) -> None:
        with Stopwatch() as took:
            _, self._text = daemon.get("/metrics")
        self.seconds = took.seconds

    def values(self, name: str, labels: str = "") -> list[float]:
        """The samples of ``celery_<name>`` whose labels begin with these."""
        start = re.escape(f"celery_{name}{{{labels}")
        return [float(value) for value in re.findall(rf"^{start}.* (\S+)$", self._text, re.MULTILINE)]


def _until_sent(daemon: Daemon, number: int) -> _Scrape:
    def counted() -> _Scrape | None:
        try:
            scrape = _Scrape(daemon)
        except OSError:  # it has only begun
            return None
        return scrape if sum(scrape.values("task_sent_total")) >= number else None

    found = wait_until(counted, 120, every=0.2, what=f"{number} tasks")
    assert found is not None
    return found


def _attack(daemon: Daemon, names: int, queues: int, most: int) -> None:
    """The fleet, a flood, the fleet again, then a restart.

    All numbers are correct throughout, within ``most`` series.
    """
    daemon.until_ready()
    for run in (1, 2):
        _publish(daemon, _fleet(time.time()))
        _until_sent(daemon, 50 * run)
    _publish(daemon, _flood(names, queues, time.time()))
    _publish(daemon, _fleet(time.time()))
    sent, failed = 150 + names * queues, -(-names // 10) * queues
    for restarted in (False, True):
        if restarted:
            daemon.stop()
            daemon.start()
        found = _until_sent(daemon, sent)
        assert sum(found.values("task_sent_total")) == sent
        assert sum(found.values("task_failed_total")) == sum(found.values("monitor_task_failures_total")) == failed
        assert found.values("task_succeeded_total", 'name="shop.') == [3.0] * 50
        assert len(found.values("task_sent_total")) <= most + 1
        assert found.values("monitor_limit", 'limit="series"') == [most]
        assert found.values("monitor_limit_used", 'limit="series"')[0] <= most
        assert found.values("monitor_limit_exceeded_total", 'limit="series"')[0] > 0


def test_invented_names_do_not_push_out_the_fleet(rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """For any number of names and queues, sums are exact, also across a restart."""
    daemon = start(Daemon(tmp_path / "daemon", rabbitmq_url, {"metrics": {"max_series": 150}}))
    _attack(daemon, names=150, queues=4, most=150)


@pytest.mark.campaign
def test_150_000_names_and_queues_under_512_mib(rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """With the default limits; a scrape stays fast, and a store that was filled without limits opens."""
    daemon = start(Daemon(tmp_path / "daemon", rabbitmq_url))
    _attack(daemon, names=1500, queues=100, most=10_000)
    assert daemon.resident_bytes() < _LIMIT
    assert _Scrape(daemon).seconds < 2.0
    daemon.stop()
    with closing(sqlite3.connect(daemon.store, isolation_level=None)) as store:
        columns = [row[1] for row in store.execute("PRAGMA table_info(series)")]
        copied = ", ".join("name || '-' || counter.n" if column == "name" else column for column in columns)
        count = "WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < 20)"
        store.execute(f"INSERT INTO series {count} SELECT {copied} FROM series, counter LIMIT {_MANY}")  # noqa: S608
    daemon.start()
    daemon.until_ready()
    assert _Scrape(daemon).values("monitor_limit_used", 'limit="series"')[0] <= 10_000
    assert daemon.peak_bytes() < _LIMIT
