"""Two replicas, and all that can happen to one of them: no count is off, each incident and each mail comes once.

The long form can be chosen by variables of the environment, beside CAMPAIGN_SEED: how many minutes of load
(CAMPAIGN_MINUTES), and the names of brokers and faults, separated by commas (CAMPAIGN_BROKERS, CAMPAIGN_FAULTS):

    CAMPAIGN_MINUTES=5 CAMPAIGN_BROKERS=redis make campaign PYTEST_ARGS="-n 0 -s -k test_one_replica"
"""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.publish import Load
from tests import outcomes
from tests.conftest import Start
from tests.e2e.campaign import Publishing, assert_drained, classes, exact, publishing, seeded
from tests.e2e.replicas import FAULTS, Fault, Pair, freeze_leader, kill_leader, pair, roll, side_by_side
from tests.servers import PgBouncer, PostgreSQL, RabbitMQ, Redis, wait_until

_EVENTS_A_TASK = 3.6
_STARTED = '"event": "Started"'
"""A replica logs it when it begins to lead."""


@dataclass(frozen=True)
class Form:
    """How much of it. ``seconds`` of load at ``rate`` events a second; ``frozen``: seconds of each standstill."""

    brokers: Sequence[str]
    seconds: float
    frozen: float
    rate: float
    faults: Sequence[Callable[[Pair, float], Fault]]


def chosen(variable: str, names: Iterable[str]) -> list[str]:
    """The names in the environment variable; all if it is not set."""
    wanted = os.environ.get(variable, "").split(",")
    return [name for name in names if name in wanted] or list(names)


_MINUTES = float(os.environ.get("CAMPAIGN_MINUTES") or 30)
_ALL_FAULTS = {fault.__name__: fault for fault in FAULTS}
_FAULTS = [_ALL_FAULTS[name] for name in chosen("CAMPAIGN_FAULTS", _ALL_FAULTS)]
SHORT = Form(("quorum", "redis"), seconds=20, frozen=6, rate=300, faults=(kill_leader, freeze_leader))
LONG = Form(
    brokers=chosen("CAMPAIGN_BROKERS", ["classic", "quorum", "redis"]),
    seconds=60 * _MINUTES, frozen=min(30, 3 * _MINUTES), rate=250,
    faults=_FAULTS if len(_FAULTS) < len(FAULTS) else (*FAULTS, *[kill_leader] * 4, *[roll] * 3),
)  # fmt: skip


@dataclass(frozen=True)
class Servers:
    """The shared servers: a database that may be killed, a pooler in transaction mode, and RabbitMQ."""

    database: PostgreSQL
    pooler: PgBouncer
    rabbitmq: RabbitMQ

    def new_database(self) -> str:
        """The URL of an empty database through the pooler."""
        return self.pooler.url(self.database.new_database().rpartition("/")[2])


@pytest.fixture
def servers(empty_cluster: Path, rabbitmq: RabbitMQ, tmp_path: Path) -> Iterator[Servers]:
    """The running servers."""
    with closing(PostgreSQL(empty_cluster, fsync="on", full_page_writes="on")) as database:
        database.start()
        # As documented: one that is frozen keeps the connections that it has in its transactions.
        with PgBouncer(database, tmp_path / "pgbouncer", size=10) as pooler:
            yield Servers(database, pooler, rabbitmq)


def broker_urls(names: Sequence[str], rabbitmq: RabbitMQ, start: Start, tmp_path: Path) -> dict[str, str]:
    """The URL of a broker for each pair."""
    urls = {name: rabbitmq.new_vhost() for name in names if name != "redis"}
    if "redis" in names:
        # A subscriber that is behind is not cut off: what Redis has thrown away cannot be counted by anybody.
        redis = start(Redis(tmp_path / "redis-server", options=("--client-output-buffer-limit", "pubsub 0 0 0")))
        urls["redis"] = redis.url()
    return urls


def harm(pairs: Sequence[Pair], form: Form, database: PostgreSQL, loads: Sequence[Publishing], seed: float) -> None:
    """All faults in random order for each pair, and a restart of the database, repeated until all is published."""
    randomly = random.Random(seed)
    while not all(load.ended for load in loads):
        orders = [randomly.sample(form.faults, len(form.faults)) for _ in pairs]
        restart = randomly.randrange(len(form.faults))
        for number, faults in enumerate(zip(*orders, strict=True)):
            side_by_side(pairs, faults, form.frozen)
            if number == restart:
                restart_database(pairs, database)


def restart_database(pairs: Sequence[Pair], database: PostgreSQL) -> None:
    """SIGKILL to all of its processes, and a restart."""
    for each in pairs:
        each.done.append("restart_database")
    database.kill()
    database.start()
    for each in pairs:
        each.until_complete()


@pytest.mark.parametrize(
    "form", [pytest.param(SHORT, id="short"), pytest.param(LONG, id="long", marks=pytest.mark.campaign)]
)
def test_one_replica_after_the_other(form: Form, servers: Servers, start: Start, tmp_path: Path) -> None:
    """Killed, stopped, ended, cut off from the database, the broker and both; the database killed."""
    randomly, load = seeded(), Load(int(form.seconds * form.rate / _EVENTS_A_TASK))
    with ExitStack() as stack:
        pairs = []
        for name, url in broker_urls(form.brokers, servers.rabbitmq, start, tmp_path).items():
            if name != "redis":
                stack.callback(servers.rabbitmq.delete_vhost, url)
            queue = "quorum" if name == "quorum" else "classic"
            both = pair(url, servers.new_database(), tmp_path / name, queue=queue, report_in=90)
            pairs.append(stack.enter_context(both))
        with ExitStack() as running:
            loads = [running.enter_context(publishing(one.broker_url, load, form.rate)) for one in pairs]
            for one in pairs:
                until_counting(one)
            harm(pairs, form, servers.database, loads, randomly.random())
        for one in pairs:
            check(one, load)
            report(one, load)
            if one.name != "redis":
                assert_drained(servers.rabbitmq, one.broker_url)


def until_counting(one: Pair) -> None:
    """Wait until the leader has committed an event: before that, a standby on Redis cannot know what it missed."""
    leader, _ = one.until_complete()
    # It has no series of a type before the first event.
    wait_until(lambda: "celery_monitor_events_total" in leader.metrics(), 60, what="the first event")
    wait_until(lambda: leader.metric("monitor_events_total", type="task-received") > 0, 60)
    one.until_complete()


def check(one: Pair, load: Load) -> None:
    """Nothing is lost, doubled or unreported."""
    leader, _ = one.until_complete()
    gaps = leader.metric("monitor_stream_gap_seconds_total")
    try:
        exact(leader, load)
    except AssertionError as exc:
        raise AssertionError(f"{one.name} after {one.done}, gaps of {gaps} s: {exc}") from exc
    assert gaps == 0
    wait_until(lambda: leader.metric("monitor_outbox_pending") == 0, 90, what="all notifications delivered")
    opened = one.pagerduty.opened()
    assert {key.partition("/")[0] for key in opened} == set(classes(load))
    assert set(opened.values()) == {1}
    assert one.pagerduty.violations == []
    wait_until(lambda: len(one.mail.mails) >= 1, 150, what="the daily mail")
    assert len(one.mail.mails) == 1


def report(one: Pair, load: Load) -> None:
    """Print what was done and counted."""
    leader, _ = one.until_complete()
    outcomes.figures(
        one.name,
        events=load.events,
        off=0,
        **{"take-overs": sum(replica.log.read_text().count(_STARTED) for replica in one.replicas) - 1},
        redelivered=leader.metric("monitor_events_discarded_total", reason="redelivered"),
        incidents=len(one.pagerduty.opened()),
        mails=len(one.mail.mails),
        faults=", ".join(f"{number} {name}" for name, number in sorted(Counter(one.done).items())),
    )
