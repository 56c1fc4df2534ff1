"""One incident per failing task and hour, and never a lost one: the daemon, a real broker, a PagerDuty that checks."""

import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.conftest import Start
from tests.e2e.campaign import seeded
from tests.e2e.daemon import Daemon
from tests.e2e.paging import (
    HOUR,
    KEY,
    Failing,
    assert_opened_once,
    command,
    in_one_hour,
    pager,
    publish,
    publish_events,
    publishing,
    succeeding,
    told,
    until_told,
    whole_hours,
)
from tests.fleet.outcomes import OUTCOMES, client, send_outcomes
from tests.servers.celery_worker import CeleryWorker
from tests.servers.pagerduty import Behaviour, PagerDutyServer
from tests.servers.waiting import wait_until


@pytest.fixture
def server() -> Iterator[PagerDutyServer]:
    """A PagerDuty that knows one key."""
    with PagerDutyServer(keys={KEY}) as running:
        yield running


def test_ten_thousand_failures(rabbitmq_url: str, server: PagerDutyServer, start: Start, tmp_path: Path) -> None:
    """Of 3 tasks over 2 hours of event time: 6 incidents that tell of all of them, within contract and rate limit."""
    daemon = start(
        pager(
            tmp_path,
            rabbitmq_url,
            server,
            {"pagerduty": {"update_interval": "1s"}, "alerts": {"max_age": "4h"}},
        )
    )
    daemon.until_ready()
    since = whole_hours(2)
    failures = [Failing(f"shop.task{number % 3}", since + number * 2 * HOUR / 10_000) for number in range(10_000)]

    publish(rabbitmq_url, failures, rate=6000, per_message=5)

    until_told(server, failures)
    assert_opened_once(server, failures)
    assert len(server.opened()) == 6
    assert server.throttled == 0
    assert daemon.metric("monitor_incidents_total", reason="opened") == 6
    assert daemon.metric("monitor_task_failures_total") == 10_000


def test_a_real_fleet(rabbitmq_url: str, server: PagerDutyServer, start: Start, tmp_path: Path) -> None:
    """A worker's task that fails five times: one incident, with all that is needed to act."""
    daemon = start(
        pager(
            tmp_path / "daemon",
            rabbitmq_url,
            server,
            {
                "pagerduty": {"update_interval": "1s"},
                "web": {"external_url": "https://monitor.example/base"},
                "alerts": {
                    "rules": [{"name": "fleet", "severity": "critical", "runbook_url": "https://wiki.example/fleet"}]
                },
            },
        )
    )
    daemon.until_ready()
    start(CeleryWorker(tmp_path / "worker", rabbitmq_url, concurrency=1))
    began = in_one_hour(30)

    app = client(rabbitmq_url)
    ids = [app.send_task("fleet.decline", args=["no funds"]).id for _ in range(5)]

    key = Failing("fleet.decline", began).key
    wait_until(lambda: told(server).get(key) == 5, 30, what="the five failures")
    assert server.opened() == {key: 1}
    assert server.violations == []
    event = server.taken()[-1].event
    payload, details = event["payload"], event["payload"]["custom_details"]
    assert payload["summary"] == "[celery] fleet.decline failed 5 times: CardDeclinedError: no funds"
    assert payload["severity"] == "critical"
    assert (payload["source"], payload["component"]) == ("celery", "fleet.decline")
    assert (payload["group"], payload["class"]) == ("fleet", "CardDeclinedError")
    assert details["exceptions"] == {"CardDeclinedError": 5}
    assert details["workers"] == {"celery@worker": 5}
    assert details["queues"] == {"fleet": 5}
    assert sorted(details["sample_task_ids"]) == sorted(ids)
    assert details["traceback"].rstrip().endswith("CardDeclinedError: no funds")
    assert "args" not in details
    for name in ("first_failure", "last_failure"):
        at = datetime.fromisoformat(details[name])
        assert timedelta(0) <= at - datetime.fromtimestamp(int(began), UTC) < timedelta(seconds=30)
    assert [link["href"] for link in event["links"]] == [
        "https://monitor.example/base/tasks/fleet.decline",
        "https://monitor.example/base/incidents",
        "https://wiki.example/fleet",
    ]


def test_every_outcome_of_a_real_fleet(
    rabbitmq_url: str, server: PagerDutyServer, start: Start, tmp_path: Path
) -> None:
    """What failed for good pages, in words where the exception says little; what succeeds in the end does not."""
    daemon = start(pager(tmp_path / "daemon", rabbitmq_url, server))
    daemon.until_ready()
    start(CeleryWorker(tmp_path / "worker", rabbitmq_url, concurrency=4))

    send_outcomes(client(rabbitmq_url))

    failing = {outcome.task for outcome in OUTCOMES.values() if outcome.exception is not None}
    wait_until(lambda: len(server.opened()) >= len(failing), 40, what="the incidents")
    ended = ("task_succeeded_total", "task_failed_total", "task_revoked_total")
    # All but the one that is ignored, which has no end.
    wait_until(lambda: sum(map(daemon.metric, ended)) == len(OUTCOMES) - 1, 20, what="the end of all tasks")
    summaries = {seen.event["payload"]["component"]: seen.event["payload"]["summary"] for seen in server.taken()}
    assert summaries.pop("fleet.reject").startswith("[celery] fleet.reject failed: Reject: ")
    assert summaries == {
        "fleet.fail": "[celery] fleet.fail failed: ValueError: no such order",
        "fleet.decline": "[celery] fleet.decline failed: CardDeclinedError: card declined",
        "fleet.soft_limit": "[celery] fleet.soft_limit: ran past its soft time limit",
        "fleet.hard_limit": "[celery] fleet.hard_limit: ran past its hard time limit and was killed",
        "fleet.killed": "[celery] fleet.killed: a worker's child process was killed (often out of memory)",
        "fleet.retry_exhausted": "[celery] fleet.retry_exhausted failed: ConnectionError: payment gateway unreachable",
        "fleet.unregistered": "[celery] fleet.unregistered: a worker received it and does not know it",
    }
    assert set(server.opened().values()) == {1}
    assert server.violations == []


KILLS = pytest.mark.parametrize("kills", [5, pytest.param(30, marks=pytest.mark.campaign)])


@KILLS
def test_killed_daemon(kills: int, rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """Kill -9 at random moments, some between POST and record: each incident is opened exactly once, none missing."""
    randomly = seeded()
    began = whole_hours(1) + HOUR / 2
    tasks, number = kills * 10, kills * 100
    failures = [
        # Ever new tasks, and now and then one of those that have failed before.
        Failing(
            f"shop.task{randomly.randint(0, n * tasks // number) if n % 3 else n * tasks // number}", began + n / 99
        )
        for n in range(number)
    ]
    with PagerDutyServer(keys={KEY}, rate_limit=1_000_000) as server:
        daemon = start(
            pager(
                tmp_path,
                rabbitmq_url,
                server,
                {
                    "pagerduty": {"update_interval": "1s", "rate_limit": 1_000_000},
                    "alerts": {"storm": {"tasks": 1_000_000}},
                },
            )
        )
        daemon.until_ready()
        between = 0
        with publishing(rabbitmq_url, failures, rate=200) as progress:
            for kill, moment in enumerate(sorted(randomly.randrange(number) for _ in range(kills))):
                progress.until(moment)
                if kill % 2 == 0 and not progress.ended:
                    between += killed_between_post_and_record(server, randomly)
                daemon.kill()
                daemon.launch()
        daemon.until_ready()

        until_told(server, failures)
        assert_opened_once(server, failures)
        assert len(server.opened()) == tasks
        assert between > 0
        wait_until(lambda: command(daemon, "outbox", "list").stdout.startswith("nothing waits"), 20, every=0.1)


def killed_between_post_and_record(server: PagerDutyServer, randomly: random.Random) -> bool:
    """Wait until PagerDuty has taken an event whose sender waits for the answer; whether there was one."""
    before = sum(seen.taken and seen.code == 0 for seen in server.received)
    server.script(*[Behaviour()] * randomly.randint(0, 3), Behaviour.hang(take=True))
    wait_until(lambda: sum(seen.taken and seen.code == 0 for seen in server.received) > before, 20, what="a POST")
    return True


def test_a_backlog_read_after_midnight(
    rabbitmq_url: str, server: PagerDutyServer, start: Start, tmp_path: Path
) -> None:
    """Failures of the hours before, read late, keep their hour; what is too old pages nobody and is in the report."""
    now = time.time()
    hour = now // HOUR * HOUR
    # Somewhere it is between midnight and one o'clock now.
    ahead = -datetime.fromtimestamp(now, UTC).hour
    zone = f"Etc/GMT{-ahead if ahead >= -12 else -(ahead + 24):+d}"
    alerts = {"timezone": zone, "max_age": "2h"}
    settings = {"alerts": alerts, "email": {"timezone": zone}, "pagerduty": {"update_interval": "1s"}}
    daemon = start(pager(tmp_path, rabbitmq_url, server, settings))
    daemon.until_ready()
    daemon.kill()
    moments = [now - 115 * 60, hour - 60, hour - 1, hour, now]
    old = [Failing("shop.old", now - age * 60) for age in (125, 300)]
    publish(rabbitmq_url, [*old, *(Failing("shop.task", at) for at in moments)])

    daemon.start()

    keys = Counter(f"shop.task/{local_hour(at, zone)}" for at in moments)
    wait_until(lambda: told(server) == keys, 30, what=f"{keys}")
    assert server.opened() == dict.fromkeys(keys, 1)
    today = datetime.fromtimestamp(now, ZoneInfo(zone)).date()
    assert any(key.startswith(f"shop.task/{today - timedelta(days=1)}T23") for key in keys)
    assert any(key.startswith(f"shop.task/{today}T00") for key in keys)
    reported = Counter[str]()
    for day in (today, today - timedelta(days=1)):
        done = command(daemon, "report", "--date", str(day), "--format", "json")
        reported.update({row["name"]: row["failed"] for row in json.loads(done.stdout)["tasks"]})
    assert reported == {"shop.old": 2, "shop.task": 5}
    assert daemon.metric("monitor_incidents_total", reason="too_old") == 2


def local_hour(at: float, zone: str) -> str:
    """The hour as in a dedup key."""
    local = datetime.fromtimestamp(at, ZoneInfo(zone))
    return f"{local:%Y-%m-%dT%H}{local.isoformat()[-6:]}"


def test_a_storm(rabbitmq_url: str, server: PagerDutyServer, start: Start, tmp_path: Path) -> None:
    """200 tasks that fail at once are one incident beside the twenty before it was a storm, also over a kill."""
    daemon = start(pager(tmp_path, rabbitmq_url, server, {"pagerduty": {"update_interval": "1s"}}))
    daemon.until_ready()
    now = in_one_hour(30)
    failures = [Failing(f"shop.task{number:03}", now) for number in range(200)]
    first = {failing.key: 1 for failing in failures[:20]}
    storm = Failing("storm", now).key

    publish(rabbitmq_url, failures)
    wait_until(lambda: told(server) == first | {storm: 180}, 30, what="the storm")
    daemon.kill()
    daemon.start()
    publish(rabbitmq_url, [Failing(failing.task, now + 1) for failing in failures])
    wait_until(lambda: told(server) == dict.fromkeys(first, 2) | {storm: 360}, 30, what="the storm's second wave")

    assert server.opened() == dict.fromkeys([*first, storm], 1)
    assert server.violations == []
    event = next(seen.event for seen in server.taken() if seen.key == storm)
    assert event["payload"]["summary"].startswith("[celery] Many tasks fail at once: ")
    assert event["payload"]["custom_details"]["tasks"]["(others)"] > 0


def test_resolved_by_success(rabbitmq_url: str, server: PagerDutyServer, start: Start, tmp_path: Path) -> None:
    """An incident is updated, resolved after a success, also one before a restart, and opened again by a failure."""
    settings = {"pagerduty": {"update_interval": "1s", "resolve": "on_success", "resolve_after": "2s"}}
    daemon = start(pager(tmp_path, rabbitmq_url, server, settings))
    daemon.until_ready()
    key = Failing("shop.task", in_one_hour(40)).key

    publish(rabbitmq_url, [Failing("shop.task", time.time())])
    wait_until(lambda: server.opened() == {key: 1}, 20)
    publish(rabbitmq_url, [Failing("shop.task", time.time()) for _ in range(9)])
    wait_until(lambda: told(server) == {key: 10}, 20)
    alert = server.alerts[KEY, key]
    assert (alert.opened, alert.updates, alert.resolves) == (1, 1, 0)
    publish_events(rabbitmq_url, succeeding("shop.task", time.time()))
    wait_until(lambda: alert.resolves == 1, 20)

    publish(rabbitmq_url, [Failing("shop.task", time.time())])
    wait_until(lambda: alert.opened == 2, 20)
    publish_events(rabbitmq_url, succeeding("shop.task", time.time()))
    wait_until(lambda: daemon.counts()["shop.task"].get("succeeded") == 2, 20)
    daemon.kill()
    daemon.start()
    wait_until(lambda: alert.resolves == 2, 20)
    assert not alert.open
    assert server.violations == []


def test_the_outbox_beside_the_daemon(rabbitmq_url: str, server: PagerDutyServer, start: Start, tmp_path: Path) -> None:
    """What was refused or waits is listed with its reason and without the key, and goes when a person says so."""
    daemon = start(pager(tmp_path, rabbitmq_url, server))
    daemon.until_ready()
    refused, waiting = Failing("shop.refused", time.time()), Failing("shop.waiting", time.time())
    server.script(
        Behaviour.status(400, json.dumps({"errors": ["bad"], "routing_key": KEY}).encode()),
        Behaviour.status(503, Retry_After="3000"),
    )
    publish(rabbitmq_url, [refused, waiting])
    wait_until(lambda: len(server.received) == 2, 20)

    rows = {row[7]: row for row in wait_until(lambda: listed(daemon, "list", number=2), 20)}
    assert rows[refused.key][1] == "dead"
    assert rows[waiting.key][1] == "pending"
    assert [row[7] for row in listed(daemon, "list", "--dead", number=1)] == [refused.key]
    assert daemon.metric("monitor_notifications_total", channel="pagerduty", outcome="dead") == 1

    assert command(daemon, "outbox", "retry", "--all-dead").stdout == "1 row due now\n"
    assert command(daemon, "outbox", "retry", rows[waiting.key][0]).stdout == "1 row due now\n"
    wait_until(lambda: server.opened() == {refused.key: 1, waiting.key: 1}, 5, what="the revived rows")
    assert command(daemon, "outbox", "retry", rows[waiting.key][0]).exit_code == 1
    assert server.violations == []


def listed(daemon: Daemon, *arguments: str, number: int) -> list[list[str]]:
    """The rows of ``outbox list``, when there are so many that have been tried."""
    done = command(daemon, "outbox", *arguments)
    assert KEY not in done.output
    rows = [re.split(r"  +", line) for line in done.stdout.splitlines()[1:]]
    return rows if len(rows) == number and all(int(row[4]) for row in rows) else []


def test_routing_keys_from_files(rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """A rule with its own key pages its own service; a file that is exchanged meanwhile counts from the next page."""
    default, own, renewed = KEY, "S" * 32, "T" * 32
    known = {default, own}
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    mount_secret(mounted, "first", default=default, own=own)
    rules = [{"name": "own", "match": ["own.*"], "routing_key_file": str(mounted / "own")}]
    with PagerDutyServer(keys=known) as server:
        settings: dict[str, dict[str, Any]] = {
            "alerts": {"rules": rules},
            "pagerduty": {"routing_key": None, "routing_key_file": str(mounted / "default")},
        }
        daemon = start(pager(tmp_path / "daemon", rabbitmq_url, server, settings))
        daemon.until_ready()

        publish(rabbitmq_url, [Failing("own.one", time.time()), Failing("shop.one", time.time())])
        wait_until(lambda: len(server.taken()) == 2, 20)
        known.add(renewed)
        known.remove(own)
        mount_secret(mounted, "second", default=default, own=renewed)
        publish(rabbitmq_url, [Failing("own.two", time.time()), Failing("shop.two", time.time())])
        wait_until(lambda: len(server.received) == 4, 20)

        found = {seen.key.partition("/")[0]: seen.event["routing_key"] for seen in server.taken()}
        assert found == {"own.one": own, "shop.one": default, "own.two": renewed, "shop.two": default}
        daemon.stop()


def mount_secret(directory: Path, version: str, **values: str) -> None:
    """Write files as Kubernetes does: into a directory of their own, to which a link is swapped."""
    (directory / version).mkdir()
    for name, value in values.items():
        (directory / version / name).write_text(f"{value}\n")
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(Path("..data") / name)
    link = directory / "..data_tmp"
    link.symlink_to(version)
    link.rename(directory / "..data")
