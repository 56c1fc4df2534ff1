"""The daemon with a store in PostgreSQL that is killed and suspended: exact counts, and each page once."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.e2e.paging import KEY, Failing, pager, publish, publishing
from tests.servers import PostgreSQL
from tests.servers.pagerduty import PagerDutyServer
from tests.servers.waiting import wait_until

FAILURES = 2_000


@pytest.fixture
def server() -> Iterator[PagerDutyServer]:
    """A simulated PagerDuty that knows one key."""
    with PagerDutyServer(keys={KEY}) as running:
        yield running


@pytest.fixture
def database(empty_cluster: Path) -> Iterator[PostgreSQL]:
    """A server that may be killed."""
    running = PostgreSQL(empty_cluster)
    try:
        running.start()
        yield running
    finally:
        running.close()


def test_a_database_in_trouble(
    rabbitmq_url: str, server: PagerDutyServer, database: PostgreSQL, start: Start, tmp_path: Path
) -> None:
    """Killed during a flush, restarted, suspended: pages are sent from memory, and the counts are exact."""
    daemon = start(
        pager(tmp_path, rabbitmq_url, server, {"store": {"url": database.new_database(), "directory": str(tmp_path)}})
    )
    daemon.until_ready()
    assert json.loads(daemon.get("/readyz")[1])["about"]["store"].startswith("PostgreSQL 1")
    now = time.time()
    many = [Failing(f"shop.task{number % 5}", now) for number in range(FAILURES)]
    with publishing(rabbitmq_url, many, rate=1_000, per_message=2) as progress:
        progress.until(FAILURES // 2)
        database.kill()
        daemon.until_trouble("store", "is unavailable")
        database.start()
    wait_until(lambda: daemon.metric("monitor_task_failures_total") == FAILURES, 60)

    database.pause()
    last = Failing("shop.last", now)
    publish(rabbitmq_url, [last])
    wait_until(lambda: last.key in server.opened(), 60)
    # The commit's own silence first, then what the driver found out: one sentence, connecting or waiting for an answer.
    trouble = daemon.until_trouble("The store")
    assert re.fullmatch(
        r"The store (has not answered for \d+ s|\S+ on .* unavailable: the server does not answer: .*)", trouble
    )
    database.resume()
    wait_until(lambda: daemon.metric("monitor_task_failures_total") == FAILURES + 1, 60)
    daemon.until_ready()
    wait_until(lambda: not daemon.metric("monitor_outbox_pending", channel="pagerduty"), 60)
    assert server.opened() == {one.key: 1 for one in [*many, last]}

    daemon.kill()
    daemon.launch()
    daemon.until_ready()
    assert daemon.metric("monitor_task_failures_total") == FAILURES + 1
