"""Incidents that are late, in a storm, resolved, or refused, and replaced routing keys."""

import json
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
from tests.e2e.daemon import Daemon
from tests.e2e.paging import (
    HOUR,
    KEY,
    Failing,
    command,
    in_one_hour,
    pager,
    publish,
    publish_events,
    reported_failures,
    succeeding,
)
from tests.servers.pagerduty import Behaviour, PagerDutyServer
from tests.servers.waiting import wait_until


@pytest.fixture
def server() -> Iterator[PagerDutyServer]:
    """A simulated PagerDuty that knows one key."""
    with PagerDutyServer(keys={KEY}) as running:
        yield running


def test_a_backlog_read_after_midnight(
    rabbitmq_url: str, server: PagerDutyServer, start: Start, tmp_path: Path
) -> None:
    """Late failures keep their hour; those that are too old page nobody and are in the report."""
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
    wait_until(lambda: reported_failures(server) == keys, 60, what=f"{keys}")
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
    """200 tasks that fail at once share one incident, besides the first twenty, also across a kill."""
    daemon = start(pager(tmp_path, rabbitmq_url, server, {"pagerduty": {"update_interval": "1s"}}))
    daemon.until_ready()
    now = in_one_hour(30)
    failures = [Failing(f"shop.task{number:03}", now) for number in range(200)]
    first = {failing.key: 1 for failing in failures[:20]}
    storm = Failing("storm", now).key + "/*"

    publish(rabbitmq_url, failures)
    wait_until(lambda: reported_failures(server) == first | {storm: 200}, 60, what="the storm")
    daemon.kill()
    daemon.start()
    publish(rabbitmq_url, [Failing(failing.task, now + 1) for failing in failures])
    wait_until(
        lambda: reported_failures(server) == dict.fromkeys(first, 2) | {storm: 400}, 60, what="the storm's second wave"
    )

    assert server.opened() == dict.fromkeys([*first, storm], 1)
    assert server.violations == []
    # The first may say less: it goes out with what had failed by then.
    event = [seen.event for seen in server.taken() if seen.key == storm][-1]
    assert event["payload"]["summary"].startswith("[celery] Many tasks fail at once: ")
    assert event["payload"]["custom_details"]["tasks"]["(others)"] > 0


def test_resolved_by_success(rabbitmq_url: str, server: PagerDutyServer, start: Start, tmp_path: Path) -> None:
    """An incident is updated, resolved after a success, also one before a restart, and reopened by a failure."""
    settings = {"pagerduty": {"update_interval": "1s", "resolve": "on_success", "resolve_after": "2s"}}
    daemon = start(pager(tmp_path, rabbitmq_url, server, settings))
    daemon.until_ready()
    began = in_one_hour(10)
    key, end = Failing("shop.task", began).key, began // HOUR * HOUR + HOUR

    publish(rabbitmq_url, [Failing("shop.task", began)])
    wait_until(lambda: server.opened() == {key: 1}, 60)
    # In one message: some of them would be an update of their own.
    publish(rabbitmq_url, [Failing("shop.task", began + 1) for _ in range(9)], per_message=9)
    wait_until(lambda: reported_failures(server) == {key: 10}, 60)
    alert = server.alerts[KEY, key]
    assert (alert.opened, alert.updates, alert.resolves) == (1, 1, 0)
    publish_events(rabbitmq_url, succeeding("shop.task", began + 2))
    wait_until(lambda: alert.resolves == 1, 60)

    # Of now, so that it is not quiet yet when the daemon is killed; but of the same hour.
    publish(rabbitmq_url, [Failing("shop.task", min(time.time(), end - 2))])
    wait_until(lambda: alert.opened == 2, 60)
    publish_events(rabbitmq_url, succeeding("shop.task", min(time.time(), end - 1)))
    wait_until(lambda: daemon.counts()["shop.task"].get("succeeded") == 2, 60)
    daemon.kill()
    daemon.start()
    wait_until(lambda: alert.resolves == 2, 60)
    assert not alert.open
    assert server.violations == []


def test_the_outbox_beside_the_daemon(rabbitmq_url: str, server: PagerDutyServer, start: Start, tmp_path: Path) -> None:
    """Refused and waiting rows are listed with reasons and without the key, and are sent when retried."""
    daemon = start(pager(tmp_path, rabbitmq_url, server))
    daemon.until_ready()
    now = time.time()
    refused, waiting = Failing("shop.refused", now), Failing("shop.waiting", now - 1)  # the newest goes first
    server.script(
        Behaviour.status(400, json.dumps({"errors": ["bad"], "routing_key": KEY}).encode()),
        Behaviour.status(503, Retry_After="3000"),
    )
    publish(rabbitmq_url, [refused, waiting])
    wait_until(lambda: len(server.received) == 2, 60)

    rows = {row[7]: row for row in wait_until(lambda: listed(daemon, "list", number=2), 60)}
    assert rows[refused.key][1] == "dead"
    assert rows[waiting.key][1] == "pending"
    assert [row[7] for row in listed(daemon, "list", "--dead", number=1)] == [refused.key]
    assert daemon.metric("monitor_notifications_total", channel="pagerduty", outcome="dead") == 1

    assert command(daemon, "outbox", "retry", "--all-dead").stdout == "retrying 1 notification now\n"
    assert command(daemon, "outbox", "retry", rows[waiting.key][0]).stdout == "retrying 1 notification now\n"
    wait_until(lambda: server.opened() == {refused.key: 1, waiting.key: 1}, 60, what="the revived rows")
    # PagerDuty has them a moment before it is recorded.
    wait_until(lambda: command(daemon, "outbox", "list").stdout.startswith("no pending"), 60, every=0.1)
    assert command(daemon, "outbox", "retry", rows[waiting.key][0]).exit_code == 1
    assert server.violations == []


def listed(daemon: Daemon, *arguments: str, number: int) -> list[list[str]]:
    """The rows of ``outbox list``, once this many have been tried."""
    done = command(daemon, "outbox", *arguments)
    assert KEY not in done.output
    rows = [re.split(r"  +", line) for line in done.stdout.splitlines()[1:]]
    return rows if len(rows) == number and all(int(row[4]) for row in rows) else []


def test_routing_keys_from_files(rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """A rule with its own key pages its own service; a replaced file applies from the next page."""
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
        wait_until(lambda: len(server.taken()) == 2, 60)
        known.add(renewed)
        known.remove(own)
        mount_secret(mounted, "second", default=default, own=renewed)
        publish(rabbitmq_url, [Failing("own.two", time.time()), Failing("shop.two", time.time())])
        wait_until(lambda: len(server.received) == 4, 60)

        found = {seen.key.partition("/")[0]: seen.event["routing_key"] for seen in server.taken()}
        assert found == {"own.one": own, "shop.one": default, "own.two": renewed, "shop.two": default}
        daemon.stop()


def mount_secret(directory: Path, version: str, **values: str) -> None:
    """Write files like Kubernetes: into a new directory, to which a link is switched."""
    (directory / version).mkdir()
    for name, value in values.items():
        (directory / version / name).write_text(f"{value}\n")
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(Path("..data") / name)
    link = directory / "..data_tmp"
    link.symlink_to(version)
    link.rename(directory / "..data")
