"""Thousands of worker pods come and go and leave nothing behind."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bench.publish import Publisher, publisher
from tests import outcomes
from tests.conftest import Start
from tests.e2e.daemon import Daemon
from tests.e2e.pods import Pod, say
from tests.servers import wait_until

_MIB = 1 << 20
_PODS = 5_000
_FAILURES = "celery_monitor_task_failures_total"
_HOST = re.compile(r'hostname="([^"]+)"')


def come_and_go(to: Publisher, daemon: Daemon, first: int, number: int) -> None:
    """New pods start, work, are shown, and disappear; returns when nothing shows them."""
    pods = [Pod(f"pod-{index}") for index in range(first, first + number)]
    say(to, pods, "worker-online")
    for pod in pods:
        to.publish(pod.run("shop.pack"))
        to.publish(pod.run("shop.ship", end="failed"))

    def all_shown() -> bool:
        say(to, pods)  # again, because where it is slow the first are purged before the last are heard
        return hosts(daemon) == number

    wait_until(all_shown, 90, every=0.5, what=f"{number} hosts")
    wait_until(lambda: hosts(daemon) == 0, 120, every=0.5, what="the purge")


def hosts(daemon: Daemon) -> int:
    """Hosts in any series, found by search because parsing half a million lines takes a minute."""
    return len(set(_HOST.findall(daemon.get("/metrics")[1])))


def rows(daemon: Daemon, table: str) -> int:
    """The number of rows in the store."""
    with closing(sqlite3.connect(f"file:{daemon.store}?mode=ro", uri=True, timeout=20)) as connection:
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
    return int(count)


@pytest.mark.parametrize(
    ("hostname_label", "waves"),
    [
        pytest.param(True, 1, id="short"),
        pytest.param(True, 10, id="long", marks=pytest.mark.campaign),
        pytest.param(False, 16, id="long-without-label", marks=pytest.mark.campaign),
    ],
)
def test_pods_leave_nothing_behind(
    *, hostname_label: bool, waves: int, redis_url: str, start: Start, tmp_path: Path
) -> None:
    """After the purge there is no series and no row of 5,000 pods; more of them take no more memory.

    What their tasks have failed stays counted.
    """
    metrics: dict[str, object] = {"hostname_label": hostname_label, "worker_timeout": "10s", "worker_purge": "15s"}
    # All pods of two waves may be there at once; what is beyond a bound is another test's.
    metrics |= {"max_workers": 2 * _PODS, "max_series": 10 * _PODS}
    # Of failed tasks a minute's are remembered, here four waves': that would look as if pods were.
    settings: dict[str, dict[str, object]] = {"metrics": metrics, "tracking": {"linger": "1s"}}
    daemon = start(Daemon(tmp_path / "daemon", redis_url, settings))
    daemon.until_ready()
    to = publisher(redis_url)
    memory = [daemon.resident_bytes() / _MIB]

    for wave in range(waves):
        come_and_go(to, daemon, _PODS * wave, _PODS)
        memory.append(daemon.resident_bytes() / _MIB)

    to.close()
    outcomes.figures(f"{_PODS} pods at a time", memory=f"in MiB: {', '.join(f'{one:.0f}' for one in memory)}")
    wait_until(lambda: rows(daemon, "workers") == 0, 60, what="no worker in the store")
    # With the label one is left: the failures of the task that failed, which are shown without hosts.
    wait_until(lambda: rows(daemon, "series") == (1 if hostname_label else 2), 60, what="no pod's series in the store")
    assert f'{_FAILURES}{{name="shop.ship",queue_name="celery"}} {_PODS * waves}\n' in daemon.get("/metrics")[1]
    assert daemon.counts()["shop.pack"]["succeeded"] == _PODS * waves
    assert daemon.counts()["shop.ship"]["failed"] == _PODS * waves
    assert memory[1] < memory[0] + 150
    # What is bounded by a number (ended tasks, IDs that may come again) fills up during the first half.
    assert memory[-1] < memory[(waves + 1) // 2] * 1.1
