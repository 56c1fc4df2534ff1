"""Conditions other than failure, caused by real workers: one incident each, with names and IDs, that resolves."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from celery import chord

from celery_monitor.core.worker import BETWEEN
from tests.conftest import Start
from tests.e2e.daemon import Daemon
from tests.e2e.paging import KEY, pager
from tests.fleet.outcomes import client
from tests.servers import CeleryWorker, wait_until
from tests.servers.pagerduty import PagerDutyServer

RULES: list[dict[str, Any]] = [
    {"name": "slow", "on": "runtime", "match": ["fleet.sleep"], "longer_than": "3s", "resolve_after": "0"},
    {"name": "late", "on": "waiting", "match": ["fleet.note"], "longer_than": "3s"},
    {"name": "gone", "on": "lost", "silent_for": "10s"},
    {"name": "long", "on": "backlog", "queues": ["fleet"], "more_than": 2, "lasting": "1s"},
    {"name": "nobody", "on": "no_worker", "queues": ["fleet"], "lasting": "1s"},
]
SETTINGS: dict[str, dict[str, Any]] = {
    "alerts": {"rules": RULES},
    "broker": {"probe_interval": "2s"},
    "metrics": {"poll_interval": "1s"},
    "pagerduty": {"update_interval": "1s"},
}
VISIBILITY = 15
"""Seconds after which Redis delivers again what nobody has acknowledged."""


def incidents(daemon: Daemon, condition: str) -> list[dict[str, Any]]:
    """The incidents of a condition, from the API."""
    status, text = daemon.get(f"/api/v1/incidents?condition={condition}")
    assert status == 200, text
    items: list[dict[str, Any]] = json.loads(text)["items"]
    return items


def until(daemon: Daemon, condition: str, state: str) -> dict[str, Any]:
    """The only incident of a condition, once it is in this state."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = incidents(daemon, condition)
        return [one["state"] for one in found] == [state]

    try:
        wait_until(there, 120, every=0.2)
    except TimeoutError:
        raise AssertionError(f"{condition}, not {state}: {[(one['state'], one['message']) for one in found]}") from None
    return found[0]


def worker(directory: Path, broker_url: str, hostname: str, queue: str = "fleet") -> CeleryWorker:
    """A worker of the fleet; on Redis it soon redelivers the tasks of a killed worker."""
    options = {"broker_transport_options": {"visibility_timeout": VISIBILITY}, "worker_prefetch_multiplier": 1}
    settings = {"FLEET_CONF": json.dumps(options), "FLEET_QUEUE": queue}
    return CeleryWorker(directory, broker_url, hostname=hostname, settings=settings)


@pytest.mark.parametrize("broker", ["rabbitmq", pytest.param("redis", marks=pytest.mark.campaign)])
def test_a_worker_is_killed(request: pytest.FixtureRequest, broker: str, start: Start, tmp_path: Path) -> None:
    """A hanging task, a kill, a backlog that nobody works off: five incidents, also over a kill of the daemon.

    What ``acks_late`` brings again has run again; the other task stays lost, and its incident open.
    """
    broker_url = request.getfixturevalue(f"{broker}_url")
    with PagerDutyServer(keys={KEY}) as server:
        daemon = start(pager(tmp_path, broker_url, server, SETTINGS))
        first = start(worker(tmp_path, broker_url, "first"))
        daemon.until_ready()
        with client(broker_url) as fleet:
            hanging = fleet.send_task("fleet.sleep", [600]).id
            late = fleet.send_task("fleet.sleep_late").id
            slow = until(daemon, "runtime", "open")
            assert (slow["subject"], slow["samples"]) == ("fleet.sleep", [hanging])
            assert daemon.metric("task_oldest_started_seconds") > 3
            wait_until(lambda: daemon.metric("queue_load", queue_name="fleet") == 2, 60, what="two tasks under way")

            first.kill()
            notes = [fleet.send_task("fleet.note", [str(tmp_path / "notes")]).id for _ in range(3)]
            nobody, long = until(daemon, "no_worker", "open"), until(daemon, "backlog", "open")
            assert (nobody["subject"], long["subject"]) == ("fleet", "fleet")
            waiting = until(daemon, "waiting", "open")
            assert (waiting["subject"], sorted(waiting["samples"])) == ("fleet.note", sorted(notes))
            lost = until(daemon, "lost", "open")
            assert (lost["subject"], lost["tasks"]) == ("celery@first", {"fleet.sleep": 1, "fleet.sleep_late": 1})
            assert sorted(lost["samples"]) == sorted([hanging, late])
            assert daemon.metric("task_lost_total") == 2
            until(daemon, "runtime", "resolved")

            daemon.kill()
            daemon.start()
            daemon.until_ready()
            start(worker(tmp_path, broker_url, "second"))
            for condition in ("no_worker", "backlog", "waiting"):
                until(daemon, condition, "resolved")
            wait_until(lambda: daemon.counts()["fleet.sleep_late"].get("succeeded") == 1, 120)
        assert until(daemon, "lost", "open")["key"] == lost["key"]
        opened = server.opened()
        wait_until(lambda: sum(not alert.open for alert in server.alerts.values()) == 4, 60, what="four resolves")
        assert opened == {one["key"]: 1 for one in (slow, nobody, long, waiting, lost)}
        assert daemon.metric("task_lost_total") == 2
        assert server.violations == []
        page = next(seen for seen in server.taken() if seen.key == lost["key"])
        assert set(page.details["task_ids"]) == {hanging, late}


@pytest.mark.campaign
@pytest.mark.parametrize("broker", ["rabbitmq", "redis"])
def test_chords_and_what_is_requeued(request: pytest.FixtureRequest, broker: str, start: Start, tmp_path: Path) -> None:
    """Counts are exact, and nothing of a chord or of ``Reject(requeue=True)`` is lost, waits or runs for long.

    The task that waits for the members of a chord is retried every second.
    """
    broker_url = request.getfixturevalue(f"{broker}_url")
    (tmp_path / "results").mkdir()
    conf = {"result_backend": f"file://{tmp_path / 'results'}", "task_ignore_result": False}
    rules = [
        {"name": "slow", "on": "runtime", "longer_than": "20s"},
        {"name": "late", "on": "waiting", "longer_than": "10s"},
        {"name": "gone", "on": "lost", "silent_for": "10s"},
    ]
    with PagerDutyServer(keys={KEY}) as server:
        daemon = start(pager(tmp_path, broker_url, server, SETTINGS | {"alerts": {"rules": rules}}))
        daemon.until_ready()
        start(CeleryWorker(tmp_path, broker_url, concurrency=10, settings={"FLEET_CONF": json.dumps(conf)}))
        with client(broker_url) as fleet:
            fleet.conf.update(conf)
            for failing in (False, True):
                members = [fleet.signature("fleet.sleep", [4])] * 3
                members += [fleet.signature("fleet.fail")] * failing
                chord(members, app=fleet)(fleet.signature("fleet.succeed", immutable=True))
            for _ in range(3):
                fleet.send_task("fleet.reject_once")
        wait_until(lambda: daemon.counts().get("celery.chord_unlock", {}).get("succeeded") == 2, 120)
        wait_until(lambda: daemon.counts().get("fleet.reject_once", {}).get("succeeded") == 3, 60)
        with client(broker_url) as fleet:
            fleet.send_task("fleet.sleep", [15])  # longer than the rules wait
        wait_until(lambda: daemon.counts()["fleet.sleep"].get("succeeded") == 7, 60)
        counts = daemon.counts()
        once = {"sent": 1, "received": 1, "started": 1}
        assert counts["fleet.sleep"] == dict.fromkeys((*once, "succeeded"), 7)
        assert counts["fleet.fail"] == once | {"failed": 1}
        assert counts["fleet.succeed"] == once | {"succeeded": 1}
        assert counts["fleet.reject_once"] == {
            "sent": 3, "received": 6, "started": 6, "rejected": 3, "succeeded": 3,
        }  # fmt: skip
        unlock = counts["celery.chord_unlock"]
        assert unlock["received"] == unlock["started"] == unlock["retried"] + 2
        assert incidents(daemon, "lost") == incidents(daemon, "waiting") == incidents(daemon, "runtime") == []
        assert "celery_task_lost_total" not in daemon.metrics() or daemon.metric("task_lost_total") == 0


@pytest.mark.campaign
@pytest.mark.parametrize("broker", ["rabbitmq", "redis"])
def test_what_is_delivered_again_is_not_lost(
    request: pytest.FixtureRequest, broker: str, start: Start, tmp_path: Path
) -> None:
    """A lost task with only ``acks_late``: its incident resolves when it has run again."""
    broker_url = request.getfixturevalue(f"{broker}_url")
    with PagerDutyServer(keys={KEY}) as server:
        daemon = start(pager(tmp_path, broker_url, server, SETTINGS))
        first = start(worker(tmp_path, broker_url, "first"))
        daemon.until_ready()
        with client(broker_url) as fleet:
            late = fleet.send_task("fleet.sleep_late").id
            wait_until(lambda: daemon.counts().get("fleet.sleep_late", {}).get("started") == 1, 60)
            first.kill()
            lost = until(daemon, "lost", "open")
            assert lost["samples"] == [late]
            start(worker(tmp_path, broker_url, "second"))
            until(daemon, "lost", "resolved")
        wait_until(lambda: not server.alerts[KEY, lost["key"]].open, 60, what="the resolve")
        assert server.opened()[lost["key"]] == 1


def unfinished(daemon: Daemon, state: str) -> list[tuple[str, str]]:
    """Task and worker of the listed runs in this state."""
    return [(run["task"], run["hostname"]) for run in json.loads(daemon.get(f"/api/v1/runs?state={state}")[1])["items"]]


@pytest.mark.parametrize("broker", ["rabbitmq", pytest.param("redis", marks=pytest.mark.campaign)])
@pytest.mark.parametrize("successor", ["second", pytest.param("first", marks=pytest.mark.campaign)])
def test_a_worker_is_replaced(
    request: pytest.FixtureRequest, broker: str, successor: str, start: Start, tmp_path: Path
) -> None:
    """What it has prefetched, also for later, is listed and counted once, with the worker that has it now."""
    rules = [{"name": "late", "on": "waiting", "longer_than": "10s"}]
    broker_url = request.getfixturevalue(f"{broker}_url")
    daemon = start(Daemon(tmp_path, broker_url, SETTINGS | {"alerts": {"rules": rules}}))
    daemon.until_ready()
    settings = {"FLEET_CONF": json.dumps({"worker_prefetch_multiplier": 4})}
    first = start(CeleryWorker(tmp_path / "1", broker_url, hostname="first", concurrency=1, settings=settings))
    with client(broker_url) as fleet:
        for _ in range(2):
            fleet.send_task("fleet.sleep", [3])
        fleet.send_task("fleet.succeed", countdown=900)
        wait_until(lambda: daemon.counts().get("fleet.succeed", {}).get("received") == 1, 60)
        first.stop()
        start(CeleryWorker(tmp_path / "2", broker_url, hostname=successor, concurrency=1, settings=settings))
        wait_until(lambda: daemon.counts()["fleet.sleep"].get("succeeded") == 2, 60)
        scheduled = [("fleet.succeed", f"celery@{successor}")]
        wait_until(lambda: unfinished(daemon, "scheduled") == scheduled, 60, what="the successor's own task")
        wait_until(lambda: daemon.metric("queue_load", queue_name="fleet") == 0, 120, what="no load")
        assert unfinished(daemon, "waiting") == []
    assert daemon.counts()["fleet.sleep"] == {"sent": 2, "received": 3, "started": 2, "succeeded": 2}
    assert incidents(daemon, "waiting") == []


@pytest.mark.campaign
@pytest.mark.parametrize("broker", ["rabbitmq", "redis"])
def test_the_monitor_is_away(request: pytest.FixtureRequest, broker: str, start: Start, tmp_path: Path) -> None:
    """While a run ends, a worker is replaced, and a backlog comes and goes: no false incident opens."""
    broker_url = request.getfixturevalue(f"{broker}_url")
    with PagerDutyServer(keys={KEY}) as server:
        rules = [rule | {"longer_than": "20s"} if rule["on"] == "runtime" else rule for rule in RULES]
        daemon = start(pager(tmp_path, broker_url, server, SETTINGS | {"alerts": {"rules": rules}}))
        first = start(worker(tmp_path, broker_url, "first"))
        daemon.until_ready()
        with client(broker_url) as fleet:
            fleet.send_task("fleet.sleep", [5])
            wait_until(lambda: daemon.counts().get("fleet.sleep", {}).get("started") == 1, 60)
            daemon.stop()
            notes = tmp_path / "notes"
            for _ in range(20):
                fleet.send_task("fleet.note", [str(notes)])
            wait_until(lambda: notes.exists() and notes.stat().st_size == 20, 60)
            wait_until(lambda: first.log.read_text().count("fleet.sleep[") >= 2, 60, what="the end of the run")
            first.stop()
            start(worker(tmp_path, broker_url, "second"))
            daemon.start()
            daemon.until_ready()
            # Everything has had its time once a run that is really slow is found.
            fleet.send_task("fleet.sleep", [600])
            until(daemon, "runtime", "open")
        assert list(server.opened().values()) == [1]
        for condition in ("waiting", "lost", "backlog", "no_worker", "missed"):
            assert incidents(daemon, condition) == []


def started(daemon: Daemon, task: str, number: int = 1) -> None:
    """Wait until this many runs of a task are active."""
    wait_until(lambda: daemon.counts().get(task, {}).get("started") == number, 60, what=f"{task}: {number} started")


def until_idle(daemon: Daemon, hostname: str) -> None:
    """Wait until a worker has reported that it runs nothing.

    ``hostname``: as in the metrics, the part after the ``@``.
    """
    # A heartbeat says nothing of what began less than BETWEEN before it.
    since, active = time.time() + BETWEEN, "worker_tasks_active"
    last_heartbeat = "worker_last_heartbeat_timestamp_seconds"
    wait_until(
        lambda: (
            daemon.metric(last_heartbeat, hostname=hostname) > since and not daemon.metric(active, hostname=hostname)
        ),
        60,
        what=f"{hostname} is idle",
    )


SHORT: list[dict[str, Any]] = [{"name": "gone", "on": "lost", "silent_for": "10s", "finishing_for": "40s"}]


@pytest.mark.campaign
@pytest.mark.parametrize("broker", ["rabbitmq", "redis"])
def test_workers_are_shut_down(request: pytest.FixtureRequest, broker: str, start: Start, tmp_path: Path) -> None:
    """Warm: nothing is lost, however long it takes. Killed meanwhile: told after ``finishing_for``. Cold: told at once.

    Tasks that raise Ignore, and a child that the kernel kills, are not lost with any of the workers.
    """
    broker_url = request.getfixturevalue(f"{broker}_url")
    with PagerDutyServer(keys={KEY}) as server:
        daemon = start(pager(tmp_path, broker_url, server, SETTINGS | {"alerts": {"rules": SHORT}}))
        daemon.until_ready()
        names = ["warm", "killed", "cold"]
        with client(broker_url) as fleet:
            workers, ids = {}, {}
            for number, name in enumerate(names, start=1):
                workers[name] = start(worker(tmp_path, broker_url, name, queue=name))
                fleet.send_task("fleet.ignore", queue=name)
                started(daemon, "fleet.ignore", number)
                if name == "killed":  # of such a one nothing but a heartbeat tells that the task has ended
                    until_idle(daemon, name)
                ids[name] = [fleet.send_task("fleet.sleep", [30], queue=name).id for _ in range(2)]
                started(daemon, "fleet.sleep", 2 * number)
            for name in ("warm", "killed"):
                workers[name].signal(signal.SIGTERM)
            workers["cold"].signal(signal.SIGQUIT)
            lost = until(daemon, "lost", "open")
            assert (lost["subject"], sorted(lost["samples"])) == ("celery@cold", sorted(ids["cold"]))
            workers["killed"].kill()
            wait_until(lambda: not workers["warm"].running, 90, what="the end of the warm shutdown")
            wait_until(lambda: len(incidents(daemon, "lost")) > 1, 120, what="what was killed")
            (killed,) = (one for one in incidents(daemon, "lost") if one["key"] != lost["key"])
            assert (killed["subject"], sorted(killed["samples"])) == ("celery@killed", sorted(ids["killed"]))
            assert daemon.counts()["fleet.sleep"]["succeeded"] == 2
            assert daemon.metric("task_lost_total") == 4
        assert server.opened() == {lost["key"]: 1, killed["key"]: 1}
        page = next(seen for seen in server.taken() if seen.key == lost["key"])
        assert set(page.details["task_ids"]) == set(ids["cold"])


@pytest.mark.campaign
@pytest.mark.parametrize("broker", ["rabbitmq", "redis"])
def test_memory_is_out(request: pytest.FixtureRequest, broker: str, start: Start, tmp_path: Path) -> None:
    """A child that the kernel kills is one failure; a redelivery is none; a whole worker is one loss."""
    broker_url = request.getfixturevalue(f"{broker}_url")
    with PagerDutyServer(keys={KEY}) as server:
        daemon = start(pager(tmp_path, broker_url, server, SETTINGS | {"alerts": {"rules": SHORT}}))
        first = start(worker(tmp_path, broker_url, "first"))
        daemon.until_ready()
        with client(broker_url) as fleet:
            fleet.send_task("fleet.killed")
            fleet.send_task("fleet.killed_once")
            wait_until(lambda: daemon.counts().get("fleet.killed", {}).get("failed") == 1, 60)
            wait_until(lambda: daemon.counts().get("fleet.killed_once", {}).get("succeeded") == 1, 120)
            running = fleet.send_task("fleet.sleep", [600]).id
            started(daemon, "fleet.sleep")
            first.kill()
            lost = until(daemon, "lost", "open")
            assert lost["samples"] == [running]
        failed = until(daemon, "failure", "open")
        assert failed["task"] == "fleet.killed"
        assert server.opened() == {lost["key"]: 1, failed["key"]: 1}
        assert daemon.metric("task_lost_total") == 1


@pytest.mark.campaign
def test_the_monitor_is_killed_as_a_worker_is_replaced(rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """The losses of the replaced worker are reported once, although the monitor was killed before it could."""
    rules = [{"name": "gone", "on": "lost", "silent_for": "5m"}]
    with PagerDutyServer(keys={KEY}) as server:
        daemon = start(pager(tmp_path, rabbitmq_url, server, SETTINGS | {"alerts": {"rules": rules}}))
        first = start(worker(tmp_path, rabbitmq_url, "first"))
        daemon.until_ready()
        with client(rabbitmq_url) as fleet:
            running = fleet.send_task("fleet.sleep", [600]).id
            started(daemon, "fleet.sleep")
            first.kill()
            first.start()
            until_idle(daemon, "first")
            for _ in range(2):
                daemon.kill()
                daemon.start()
                daemon.until_ready()
            assert until(daemon, "lost", "open")["samples"] == [running]
        wait_until(lambda: len(server.opened()) == 1, 60, what="the page")
        assert set(server.opened().values()) == {1}
        assert daemon.metric("task_lost_total") == 1
