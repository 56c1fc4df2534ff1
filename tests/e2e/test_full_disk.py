"""A disk that is full, or filled by failures: pages are still sent, and a restart works."""

import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.e2e.daemon import Daemon
from tests.e2e.disk import failing_disk, fill, full, small_disk
from tests.e2e.paging import KEY, Failing, pager, publish
from tests.servers.pagerduty import PagerDutyServer
from tests.servers.waiting import wait_until

FAILURES = 4_000
TASKS = 17
"""Each keeps 200 groups of failures; with those of the test they make no storm."""
_TRACEBACK = 16_000


@pytest.fixture
def server() -> Iterator[PagerDutyServer]:
    """A simulated PagerDuty that knows one key."""
    with PagerDutyServer(keys={KEY}) as running:
        yield running


class Deep(Failing):
    """A failure with a long traceback of unique frames."""

    def events(self) -> list[dict[str, object]]:
        first, last = super().events()
        frame = f'  File "/srv/shop/{self.uuid}.py", line 41, in charge\n    raise error\n'
        body = f"  {'x' * 198}\n" * (_TRACEBACK // 200)
        last["exception"] = f"ValueError('{self.uuid}')"
        last["traceback"] = f"Traceback (most recent call last):\n{frame}{body}{frame}ValueError: {self.uuid}\n"
        return [first, last]


def paged(server: PagerDutyServer, failing: Failing) -> bool:
    """Whether PagerDuty has its incident."""
    return failing.key in server.opened()


def test_failures_that_would_fill_the_disk(
    rabbitmq_url: str, server: PagerDutyServer, start: Start, tmp_path: Path
) -> None:
    """4,000 tracebacks of 16 kB on 64 MB, then a disk filled by others: each page is sent, also after kill -9."""
    with small_disk(tmp_path / "disk") as disk:
        daemon = pager(tmp_path / "daemon", rabbitmq_url, server)
        daemon.store = disk / "monitor.db"
        daemon.settings["store"]["url"] = f"sqlite:///{daemon.store}"
        start(daemon)
        daemon.until_ready()
        now = time.time()
        many = [Deep(f"shop.noisy{number % TASKS}", now) for number in range(FAILURES)]
        publish(rabbitmq_url, many, rate=4_000, per_message=5)
        wait_until(lambda: daemon.metric("monitor_task_failures_total") == FAILURES, 60)
        wait_until(lambda: daemon.metric("monitor_store_given_up_total", what="samples") > 0, 60)
        first = Failing("shop.first", now)
        publish(rabbitmq_url, [first])
        wait_until(lambda: paged(server, first), 30)
        assert daemon.metric("monitor_commit_failures_total") == 0

        fill(disk)
        second = Failing("shop.second", now)
        publish(rabbitmq_url, [second])
        wait_until(lambda: paged(server, second), 30)
        daemon.kill()
        daemon.launch()
        daemon.until_ready()
        third = Failing("shop.third", now)
        publish(rabbitmq_url, [third])
        wait_until(lambda: paged(server, third), 30)
        wait_until(lambda: daemon.metric("monitor_task_failures_total") == FAILURES + 3, 30)
        daemon.stop()


@pytest.mark.campaign
def test_many_tasks_fail_on_a_small_disk(
    rabbitmq_url: str, server: PagerDutyServer, start: Start, tmp_path: Path
) -> None:
    """5,000 tasks with long names and messages fail within seconds on 64 MB: all are counted, and a new one pages."""
    with small_disk(tmp_path / "disk") as disk:
        daemon = pager(tmp_path / "daemon", rabbitmq_url, server)
        daemon.store = disk / "monitor.db"
        daemon.settings["store"]["url"] = f"sqlite:///{daemon.store}"
        start(daemon)
        daemon.until_ready()
        now = time.time()
        many = [Failing(f"n.{number}{'x' * 200}", now, message="m" * 3_000) for number in range(5_000)]
        publish(rabbitmq_url, many, rate=4_000, per_message=10)
        wait_until(lambda: daemon.metric("monitor_task_failures_total") == len(many), 120)
        assert daemon.metric("monitor_commit_failures_total") == 0
        last = Failing("shop.last", now)
        publish(rabbitmq_url, [last])
        wait_until(lambda: daemon.metric("monitor_task_failures_total") == len(many) + 1, 60)
        daemon.kill()
        daemon.launch()
        daemon.until_ready()
        assert daemon.metric("monitor_task_failures_total") == len(many) + 1
        daemon.stop()


def test_a_page_that_cannot_be_written(
    rabbitmq_url: str, server: PagerDutyServer, start: Start, tmp_path: Path
) -> None:
    """Nothing can be written: the page is sent from memory; with space again it has its row, and was sent once."""
    with small_disk(tmp_path / "disk") as disk:
        daemon = pager(tmp_path / "daemon", rabbitmq_url, server)
        daemon.store = disk / "monitor.db"
        daemon.settings["store"]["url"] = f"sqlite:///{daemon.store}"
        start(daemon)
        daemon.until_ready()
        now = time.time()
        with full(disk, daemon.store):
            sent = page_until_trouble(daemon, rabbitmq_url, now)
            wait_until(lambda: all(paged(server, one) for one in sent), 30)
            assert daemon.metric("monitor_commit_failures_total") > 0
            assert daemon.get("/readyz")[0] == 503
        daemon.until_ready()
        wait_until(lambda: daemon.metric("monitor_task_failures_total") == len(sent), 30)
        wait_until(lambda: not daemon.metric("monitor_outbox_pending", channel="pagerduty"), 30)
        assert server.opened() == {one.key: 1 for one in sent}
        assert len(server.taken()) == len(sent)
        daemon.stop()


def test_a_limit_of_the_size_of_files(rabbitmq_url: str, server: PagerDutyServer, start: Start, tmp_path: Path) -> None:
    """No file may grow (``ulimit -f``, like a quota), including the log: pages are sent, and later have rows."""
    daemon = start(pager(tmp_path / "daemon", rabbitmq_url, server))
    daemon.until_ready()
    now = time.time()
    unlimited = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    sent = page_until_trouble(daemon, rabbitmq_url, now)
    wait_until(lambda: all(paged(server, one) for one in sent), 30)
    assert daemon.get("/readyz")[0] == 503
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, unlimited)
    daemon.until_ready()
    wait_until(lambda: daemon.metric("monitor_task_failures_total") == len(sent), 30)
    wait_until(lambda: not daemon.metric("monitor_outbox_pending", channel="pagerduty"), 30)
    assert server.opened() == {one.key: 1 for one in sent}
    daemon.stop()


def test_a_disk_that_becomes_read_only(
    rabbitmq_url: str, server: PagerDutyServer, start: Start, tmp_path: Path
) -> None:
    """After an error the kernel refuses writes: pages are sent, and the next process counts uncommitted messages."""
    with failing_disk(tmp_path / "disk") as disk:
        daemon = pager(tmp_path / "daemon", rabbitmq_url, server)
        daemon.store = disk.path / "monitor.db"
        daemon.settings["store"]["url"] = f"sqlite:///{daemon.store}"
        start(daemon)
        daemon.until_ready()
        now = time.time()
        first = Failing("shop.first", now)
        publish(rabbitmq_url, [first])
        wait_until(lambda: paged(server, first), 30)
        disk.fail()
        sent = [first, *page_until_trouble(daemon, rabbitmq_url, now)]
        wait_until(lambda: all(paged(server, one) for one in sent), 30)
        assert "read" in daemon.until_trouble("store")
        daemon.kill()
        disk.repair()
        daemon.launch()
        daemon.until_ready()
        wait_until(lambda: daemon.metric("monitor_task_failures_total") == len(sent), 30)
        wait_until(lambda: not daemon.metric("monitor_outbox_pending", channel="pagerduty"), 30)
        assert set(server.opened()) == {one.key for one in sent}
        daemon.stop()


def page_until_trouble(daemon: Daemon, url: str, now: float) -> list[Failing]:
    """Publish failures of different tasks until the store has refused one, and one more."""
    sent: list[Failing] = []

    def refused() -> bool:
        sent.append(Failing(f"shop.task{len(sent)}", now))
        publish(url, sent[-1:])
        return daemon.metric("monitor_commit_failures_total") > 0

    wait_until(refused, 30, every=0.5)
    sent.append(Failing("shop.last", now))
    publish(url, sent[-1:])
    return sent
