"""Two daemons with one store in PostgreSQL: whichever ends, nothing is lost or doubled."""

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Start
from tests.e2e.daemon import Counts, Daemon
from tests.e2e.paging import KEY, Failing, assert_opened_once, command, pager, publish, publish_events, publishing
from tests.e2e.replicas import pair
from tests.servers import PostgreSQL
from tests.servers.pagerduty import PagerDutyServer
from tests.servers.waiting import wait_until

FAILURES = 1_500
RATE = 1_500.0
"""Events a second: two for each failure."""

Replica = Callable[..., Daemon]
End = Callable[[Daemon], object]


@pytest.fixture
def server() -> Iterator[PagerDutyServer]:
    """A simulated PagerDuty that knows one key."""
    with PagerDutyServer(keys={KEY}) as running:
        yield running


@pytest.fixture
def replica(broker_url: str, server: PagerDutyServer, postgresql: PostgreSQL, start: Start, tmp_path: Path) -> Replica:
    """Starts a replica by its name; all have the same store and broker."""
    database = postgresql.new_database()

    def started(name: str, schedules: Sequence[dict[str, str]] = ()) -> Daemon:
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        settings: dict[str, dict[str, Any]] = {
            "store": {"url": database, "directory": str(directory), "replicas": 2},
            "broker": {"url": broker_url, "probe_interval": "500ms"},
        }
        daemon = pager(directory, broker_url, server, settings)
        daemon.settings["schedules"] = list(schedules)  # type: ignore[assignment]
        return start(daemon)

    return started


def failing(number: int) -> list[Failing]:
    """Failures of five tasks, now."""
    now = time.time()
    return [Failing(f"shop.task{one % 5}", now) for one in range(number)]


def counted(failures: list[Failing]) -> Counts:
    """The expected counts."""
    numbers = {task: len(list(group)) for task, group in itertools.groupby(sorted(one.task for one in failures))}
    return {task: {"received": number, "failed": number} for task, number in numbers.items()}


def leads(daemon: Daemon) -> bool:
    """Whether it reports that it leads."""
    return daemon.metric("monitor_leader") == 1


def until_subscribed(standby: Daemon) -> None:
    """Wait until it could take over without a gap."""
    standby.until_ready()
    assert not leads(standby)
    wait_until(lambda: standby.get("/api/v1/workers")[0] == 200, 60)
    assert "This replica is on standby" in standby.get("/")[1]
    assert "starting" not in standby.get("/")[1]
    assert not standby.metrics().get("celery_task_failed_total")


def end_while_tasks_fail(broker_url: str, server: PagerDutyServer, pair: tuple[Daemon, Daemon], end: End) -> Daemon:
    """End the leader while tasks fail; returns the new leader, once all failures are counted and paged."""
    wait_until(lambda: any(map(leads, pair)), 60)
    leader, standby = pair if leads(pair[0]) else pair[::-1]
    leader.until_ready()
    until_subscribed(standby)
    failures = failing(FAILURES)
    with publishing(broker_url, failures, rate=RATE) as progress:
        progress.until(FAILURES // 2)
        end(leader)
        wait_until(lambda: leads(standby), 60, every=0.05)
    standby.until_counts(counted(failures))
    wait_until(lambda: server.opened().keys() == {one.key for one in failures}, 60)
    assert_opened_once(server, failures)
    assert standby.metric("monitor_stream_gap_seconds_total") == 0
    return standby


def test_the_other_replica_goes_on(broker_url: str, replica: Replica, server: PagerDutyServer) -> None:
    """The leader ends while tasks fail; the other one counts its uncommitted messages, and pages each incident."""
    pair = replica("first"), replica("second")
    end: End = Daemon.kill if broker_url.startswith("amqp") else Daemon.stop
    end_while_tasks_fail(broker_url, server, pair, end)


@pytest.mark.campaign
def test_the_other_replica_goes_on_in_the_other_way(broker_url: str, replica: Replica, server: PagerDutyServer) -> None:
    """The same: killed on Redis, terminated on RabbitMQ."""
    pair = replica("first"), replica("second")
    end: End = Daemon.stop if broker_url.startswith("amqp") else Daemon.kill
    end_while_tasks_fail(broker_url, server, pair, end)


@pytest.mark.campaign
def test_a_frozen_leader_steps_down(broker_url: str, replica: Replica, server: PagerDutyServer) -> None:
    """Suspended for longer than its lease, a leader becomes the standby, and its uncommitted changes are refused."""
    pair = replica("first"), replica("second")
    leader = end_while_tasks_fail(broker_url, server, pair, Daemon.pause)
    zombie = next(one for one in pair if one is not leader)
    zombie.resume()
    wait_until(lambda: not leads(zombie), 60)
    until_subscribed(zombie)
    assert leads(leader)
    assert zombie.running
    assert zombie.counts() == leader.counts()


def running(task: str) -> list[dict[str, Any]]:
    """The events of a run that has just succeeded."""
    now = time.time()
    both = {"hostname": "celery@box", "uuid": f"run-{now}", "timestamp": now}
    kinds: dict[str, dict[str, Any]] = {"received": {"name": task}, "started": {}, "succeeded": {"runtime": 0.1}}
    return [both | {"type": f"task-{kind}"} | fields for kind, fields in kinds.items()]


def take_over(leader: Daemon, standby: Daemon, end: End) -> tuple[Daemon, Daemon]:
    """End the leader. Returns the new leader, and the former one as a standby."""
    until_subscribed(standby)
    end(leader)
    wait_until(lambda: leads(standby), 60, every=0.05)
    standby.until_ready()
    leader.start()
    return standby, leader


@pytest.mark.campaign
@pytest.mark.parametrize("end", [Daemon.kill, Daemon.stop])
def test_what_people_asked_for_is_taken_over(
    end: End, broker_url: str, replica: Replica, server: PagerDutyServer
) -> None:
    """A silence, what waits for its end, and a schedule that is missing: each is told once, by whoever leads then.

    It does not matter which of the replicas was asked for the silence.
    """
    schedules = [{"task": "shop.sync", "every": "2s", "grace": "8s"}]
    leader, standby = (replica(name, schedules) for name in ("first", "second"))
    wait_until(lambda: leads(leader), 60)
    leader.until_ready()
    until_subscribed(standby)
    silence = command(standby, "silence", "add", "shop.broken", "--for", "1h", "--reason", "deploy").output.split()[1]
    wait_until(lambda: leader.metric("monitor_silences_active", kind="silence") == 1, 30)
    publish(broker_url, [Failing("shop.broken", time.time())])
    publish_events(broker_url, running("shop.sync"))
    wait_until(lambda: leader.metric("monitor_silenced_failures_total") == 1, 30, what="the silenced failure")

    def missed(daemon: Daemon) -> list[str]:
        found = json.loads(daemon.get("/api/v1/incidents?condition=missed")[1])["items"]
        return [one["state"] for one in found if one["subject"] == "shop.sync"]

    wait_until(lambda: missed(leader) == ["open"], 60, what="the schedule is missing")
    wait_until(lambda: len(server.opened()) == 1, 60)
    leader, standby = take_over(leader, standby, end)
    assert leader.metric("monitor_silences_active", kind="silence") == 1
    publish_events(broker_url, running("shop.sync"))
    wait_until(lambda: missed(leader) == ["resolved"], 60, what="the schedule runs again")
    assert command(leader, "silence", "end", silence).exit_code == 0
    wait_until(lambda: any(key.startswith("shop.broken/") for key in server.opened()), 60, what="the page")
    wait_until(lambda: len(missed(leader)) == 2 and len(server.opened()) == 3, 60, what="missing again")

    added = command(leader, "silence", "add", "shop.late", "--for", "15s", "--reason", "deploy")
    assert added.exit_code == 0, added.output
    wait_until(lambda: leader.metric("monitor_silences_active", kind="silence") == 1, 30)
    publish(broker_url, [Failing("shop.late", time.time())])
    wait_until(lambda: leader.metric("monitor_silenced_failures_total") == 2, 30, what="the second silenced failure")
    leader, standby = take_over(leader, standby, end)
    wait_until(lambda: len(server.opened()) == 4, 60, what="the page when the silence has ended by itself")
    leader, standby = take_over(leader, standby, end)
    publish_events(broker_url, running("shop.sync"))
    wait_until(lambda: missed(leader) == ["resolved"] * 2, 60)
    assert set(server.opened().values()) == {1}
    assert sorted(key.split("/")[0] for key in server.opened()) == ["missed", "missed", "shop.broken", "shop.late"]


@pytest.mark.campaign
def test_a_leader_that_is_killed_while_it_mails(rabbitmq_url: str, postgresql: PostgreSQL, tmp_path: Path) -> None:
    """At the mail's end: the outcome is unknown, so it is sent again later with the same Message-ID."""
    database = postgresql.new_database()
    with pair(rabbitmq_url, database, tmp_path / "rabbitmq", report_in=60) as both:
        leader, standby = both.until_complete()
        killed: list[str] = []

        def kill(stage: str) -> None:
            if stage == "DATA" and not killed:
                killed.append(leader.directory.name)
                leader.kill()

        both.mail.stage = kill
        wait_until(lambda: killed, 240, what="the mail")
        wait_until(standby.leads, 60)
        standby.until_ready()

        def row() -> tuple[str, float]:
            query = "SELECT state, due_at FROM \"celery_monitor_celery\".outbox WHERE action = 'report'"
            ((state, due_at),) = postgresql.query(query, database=database.rpartition("/")[2])
            return state, due_at

        # The new leader has found the claim, and waits.
        wait_until(lambda: row()[1] > time.time() + 60, 60, what="the claim to be put off")
        assert len(both.mail.mails) == 1
        postgresql.execute(
            "UPDATE \"celery_monitor_celery\".outbox SET due_at = 0 WHERE action = 'report'",
            database=database.rpartition("/")[2],
        )
        wait_until(lambda: row()[0] == "delivered", 60)
        assert len(both.mail.mails) == 2
        assert both.mail.message(0)["Message-ID"] == both.mail.message(1)["Message-ID"]
