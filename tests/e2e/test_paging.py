"""One incident per failing task and hour, and none lost: the daemon, a real broker, a PagerDuty server that checks."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from tests import outcomes
from tests.conftest import Start
from tests.e2e.campaign import seeded
from tests.e2e.paging import (
    HOUR,
    KEY,
    Failing,
    assert_opened_once,
    command,
    in_one_hour,
    pager,
    publish,
    publishing,
    reported_failures,
    wait_until_reported,
    whole_hours,
)
from tests.fleet.outcomes import OUTCOMES, client, send_outcomes
from tests.servers.celery_worker import CeleryWorker
from tests.servers.pagerduty import Behaviour, PagerDutyServer
from tests.servers.waiting import wait_until


@pytest.fixture
def server() -> Iterator[PagerDutyServer]:
    """A simulated PagerDuty that knows one key."""
    with PagerDutyServer(keys={KEY}) as running:
        yield running


def test_ten_thousand_failures(rabbitmq_url: str, server: PagerDutyServer, start: Start, tmp_path: Path) -> None:
    """Of 3 tasks over 2 hours: 6 incidents that include all failures, within the contract and the rate limit."""
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

    wait_until_reported(server, failures, 120)  # with more updates than the rate limit allows, where it is slow
    assert_opened_once(server, failures)
    assert len(server.opened()) == 6
    assert server.throttled == 0
    assert daemon.metric("monitor_incidents_total", reason="opened") == 6
    assert daemon.metric("monitor_task_failures_total") == 10_000


def test_a_real_fleet(rabbitmq_url: str, server: PagerDutyServer, start: Start, tmp_path: Path) -> None:
    """A worker's task that fails five times: one incident with everything needed to act."""
    daemon = start(
        pager(
            tmp_path / "daemon",
            rabbitmq_url,
            server,
            {
                "metrics": {"poll_interval": "1s"},
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
    # Until the monitor knows what the worker consumes, a failure that overtakes its task-sent has another queue.
    wait_until(lambda: daemon.metric("active_worker_count", queue_name="fleet") == 1, 60, what="the worker's queue")
    began = in_one_hour(60)

    app = client(rabbitmq_url)
    ids = [app.send_task("fleet.decline", args=["no funds"]).id for _ in range(5)]

    key = Failing("fleet.decline", began).key
    wait_until(lambda: reported_failures(server).get(key) == 5, 60, what="the five failures")
    told_by = datetime.now(UTC)
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
        assert datetime.fromtimestamp(int(began), UTC) <= datetime.fromisoformat(details[name]) <= told_by
    incident, newest, *others = [link["href"] for link in event["links"]]
    assert incident == f"https://monitor.example/base/incidents/{quote(event['dedup_key'], safe='')}"
    assert newest.removeprefix("https://monitor.example/base/failures/") in ids
    assert others == ["https://monitor.example/base/tasks/fleet.decline", "https://wiki.example/fleet"]


def test_every_outcome_of_a_real_fleet(
    rabbitmq_url: str, server: PagerDutyServer, start: Start, tmp_path: Path
) -> None:
    """Final failures page, with an explanation if the exception says little; tasks that succeed in the end do not."""
    daemon = start(pager(tmp_path / "daemon", rabbitmq_url, server))
    daemon.until_ready()
    start(CeleryWorker(tmp_path / "worker", rabbitmq_url, concurrency=4))

    send_outcomes(client(rabbitmq_url))

    failing = {outcome.task for outcome in OUTCOMES.values() if outcome.exception is not None}
    wait_until(lambda: len(server.opened()) >= len(failing), 60, what="the incidents")
    ended = ("task_succeeded_total", "task_failed_total", "task_revoked_total")
    # All but the one that is ignored, which has no end.
    wait_until(lambda: sum(map(daemon.metric, ended)) == len(OUTCOMES) - 1, 60, what="the end of all tasks")
    summaries = {seen.event["payload"]["component"]: seen.event["payload"]["summary"] for seen in server.taken()}
    assert summaries.pop("fleet.reject").startswith("[celery] fleet.reject failed: Reject: ")
    assert summaries == {
        "fleet.fail": "[celery] fleet.fail failed: ValueError: no such order",
        "fleet.decline": "[celery] fleet.decline failed: CardDeclinedError: card declined",
        "fleet.soft_limit": "[celery] fleet.soft_limit: exceeded its soft time limit",
        "fleet.hard_limit": "[celery] fleet.hard_limit: exceeded its hard time limit and was killed",
        "fleet.killed": "[celery] fleet.killed: a worker's child process was killed (often out of memory)",
        "fleet.retry_exhausted": "[celery] fleet.retry_exhausted failed: ConnectionError: payment gateway unreachable",
        "fleet.unregistered": "[celery] fleet.unregistered: it is not registered in the worker that received it",
    }
    assert set(server.opened().values()) == {1}
    assert server.violations == []


KILLS = pytest.mark.parametrize("kills", [5, pytest.param(30, marks=pytest.mark.campaign)])


@KILLS
def test_killed_daemon(kills: int, rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """Kill -9 at random moments, some between POST and record: each incident is opened exactly once."""
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
        between: list[Failing] = []
        with publishing(rabbitmq_url, failures, rate=200) as progress:
            for kill, moment in enumerate(sorted(randomly.randrange(number) for _ in range(kills))):
                progress.until(moment)
                if kill % 2 == 0:
                    more = [Failing(f"shop.more{kill}-{n}", began) for n in range(randomly.randint(1, 4))]
                    between += more
                    killed_between_post_and_record(rabbitmq_url, server, more)
                daemon.kill()
                daemon.launch()
        daemon.until_ready()

        wait_until_reported(server, [*failures, *between])
        assert_opened_once(server, [*failures, *between])
        assert len(server.opened()) == tasks + len(between)
        wait_until(lambda: command(daemon, "outbox", "list").stdout.startswith("no pending"), 60, every=0.1)
    outcomes.figures("PagerDuty", kills=kills, failures=number + len(between), incidents=tasks + len(between))


def killed_between_post_and_record(url: str, server: PagerDutyServer, more: Sequence[Failing]) -> None:
    """Wait until PagerDuty has taken an event whose sender waits for the answer.

    ``more``: failures of new tasks, so that there are requests enough, however far the others have come.
    """
    before = sum(seen.taken and seen.code == 0 for seen in server.received)
    server.script(*[Behaviour()] * (len(more) - 1), Behaviour.hang(take=True))
    publish(url, more)
    wait_until(lambda: sum(seen.taken and seen.code == 0 for seen in server.received) > before, 60, what="a POST")
