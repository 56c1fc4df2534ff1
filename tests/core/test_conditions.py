"""Conditions: the incidents that the monitor opens and resolves for a simulated fleet."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from celery_monitor.core.conditions.gaps import Gaps
from celery_monitor.core.lookup import RunFilter, RunState, select_runs, state_of_run
from celery_monitor.core.model import (
    Action,
    Changes,
    Condition,
    Delivery,
    Incident,
    IncidentState,
    QueueStats,
    Restored,
    TaskRef,
)
from celery_monitor.core.monitor import Limits, Monitor
from celery_monitor.core.rules import Policy, Rule
from tests.builders import NOON, body, raw

RULES = (
    Rule("slow", on=Condition.RUNTIME, match=["shop.*"], longer_than=600.0, resolve_after=300.0),
    Rule("late", on=Condition.WAITING, match=["shop.*"], longer_than=300.0),
    Rule("lost", on=Condition.LOST, silent_for=60.0, finishing_for=600.0),
    Rule("long", on=Condition.BACKLOG, more_than=100, lasting=60.0),
    Rule("nobody", on=Condition.NO_WORKER, queues=["pay"], lasting=60.0),
    Rule("few", on=Condition.NO_WORKER, queues=["mail"], fewer_than=3, lasting=60.0),
)
POLL = 15
TICK = 2
HEARTBEAT = 2
FLUSH = 5


class Shop:
    """A fleet and its monitor, simulated second by second. The class attributes are intervals in seconds."""

    def __init__(self, *, acknowledges: bool = True, rules: tuple[Rule, ...] = RULES) -> None:
        self.now = NOON
        self.acknowledges = acknowledges
        self.policy = Policy(fleet="shop", rules=[replace(rule, to=["oncall"], route="oncall") for rule in rules])
        self.workers: dict[str, int] = {"w1@box": 1, "w2@box": 2}
        """Those that are there, and their process ids."""
        self.held: dict[str, set[str]] = {}
        """What they say that they hold; None of them: nobody answers."""
        self.mute = False
        """Workers do not answer."""
        self.queues = [QueueStats("pay", 0, 1, 1, 4), QueueStats("mail", 0, 3, 3, 4)]
        self.incidents: dict[str, Incident] = {}
        self.rows: list[tuple[Action, str]] = []
        self.tracked: dict[str, TaskRef] = {}
        self.ended: dict[str, TaskRef] = {}
        self.counters: dict[str, float] = {}
        self.known: dict[str, Any] = {}
        self.monitor = self._start(Restored())

    def _start(self, restored: Restored) -> Monitor:
        monitor = Monitor(Limits(policy=self.policy, worker_timeout=100.0, worker_purge=100_000.0), restored, self.now)
        monitor.connected(acknowledges=self.acknowledges)
        return monitor

    def send(
        self, kind: str, uuid: str = "u1", *, host: str = "w1@box", at: float | None = None, **fields: Any
    ) -> None:
        """Send an event."""
        event = raw(kind, uuid, self.now if at is None else at, **({"hostname": host} | fields))
        self.monitor.receive([Delivery(body(event))], self.now)

    def run(self, uuid: str = "u1", name: str = "shop.report", host: str = "w1@box") -> None:
        """A worker fetches a task and starts it."""
        self.send("received", uuid, name=name, host=host)
        self.send("started", uuid, host=host)
        self.held.setdefault(host, set()).add(uuid)

    def end(self, uuid: str = "u1", host: str = "w1@box") -> None:
        """The task ends."""
        self.send("succeeded", uuid, host=host)
        self.held[host].discard(uuid)

    def worker(self, kind: str, host: str, pid: int = 1, processed: int = 0) -> None:
        """Send a worker event."""
        event = {"type": f"worker-{kind}", "hostname": host, "timestamp": self.now, "pid": pid, "freq": 2.0}
        event |= {
            "active": len(self.held.get(host, ())),
            "processed": processed,
            "sw_ident": "py-celery",
            "sw_ver": "5.7.0",
            "sw_sys": "Linux",
        }
        self.monitor.receive([Delivery(body(event))], self.now)

    def pass_time(self, seconds: int) -> None:
        """Let time pass, with heartbeats, ticks and polls."""
        for second in range(seconds):
            self.now += 1.0
            if int(self.now) % HEARTBEAT == 0:
                for host, pid in self.workers.items():
                    self.worker("heartbeat", host, pid, processed=10_000)
            if int(self.now) % POLL == 0:
                self._poll()
            if int(self.now) % TICK == 0 or second == seconds - 1:
                self.monitor.tick(self.now)
            if int(self.now) % FLUSH == 0 or second == seconds - 1:
                self._take()

    def _poll(self) -> None:
        answering = () if self.mute else tuple(self.workers)
        self.monitor.note_answers(answering, frozenset())
        self.monitor.polled(self.queues)
        asked = self.monitor.to_confirm()
        self.monitor.confirm(asked, {host: self.held.get(host, set()) for host in asked if host in answering})

    def _take(self) -> None:
        changes = self.monitor.take(self.now)
        if changes is not None:
            self._keep(changes)

    def _keep(self, changes: Changes) -> None:
        self.incidents |= {one.key: one for one in changes.incidents}
        self.rows += [(row.action, row.key) for row in changes.outbox]
        self.tracked |= msgspec.json.decode(msgspec.json.encode(dict(changes.tracked)), type=dict[str, TaskRef])
        for uuid, _ in changes.forgotten:
            self.tracked.pop(uuid, None)
        self.ended |= {
            run.uuid: TaskRef(run.name, run.queue, run.stage, started_at=run.ended_at, host=run.hostname)
            for run in changes.ended
        }
        self.known |= {one.hostname: one for one in changes.workers}
        self.counters = dict(changes.counters)

    def restart(self, *, away: int = 0, missed: bool = False) -> None:
        """Restart the monitor after some seconds; ``missed``: events sent meanwhile are lost."""
        self._take()
        since = self.now
        self.now += away
        stored = [one for one in self.incidents.values() if one.state is not IncidentState.EXPIRED]
        workers = tuple(self.known.values())
        counters = self.counters | {"alive_at": since}
        self.monitor = self._start(
            Restored(
                tracked=list(self.tracked.items()),
                ended=list(self.ended.items()),
                incidents=stored,
                workers=workers,
                counters=counters,
            )
        )
        if missed:
            self.monitor.note_gap(since, self.now)

    def open(self, on: Condition | None = None) -> list[Incident]:
        """The open incidents."""
        known = self.incidents.values()
        return [one for one in known if one.state is IncidentState.OPEN and on in {None, one.condition}]

    def opened(self) -> int:
        """The number of incidents that were ever opened."""
        return len({key for action, key in self.rows if action is Action.TRIGGER})


def test_a_run_that_takes_too_long_and_ends() -> None:
    """One incident opens when the limit is exceeded, stays open for resolve_after, and resolves."""
    shop = Shop()
    shop.pass_time(60)
    shop.run()
    began = shop.now
    shop.pass_time(590)
    assert shop.open() == []
    shop.pass_time(40)
    (one,) = shop.open()
    assert (one.condition, one.subject, one.task, one.samples) == (
        Condition.RUNTIME, "shop.report", "shop.report", ("u1",),
    )  # fmt: skip
    assert one.first_at == began + 600
    assert "shop.report has been running since" in one.message
    assert "limit 10 min" in one.message
    assert dict(one.workers) == {"w1@box": 1}
    shop.pass_time(400)
    assert shop.open()
    shop.end()
    shop.pass_time(280)
    assert shop.open()
    shop.pass_time(40)
    assert shop.open() == []
    assert [action for action, _ in shop.rows] == [
        Action.TRIGGER,
        Action.TRIGGER,
        Action.RESOLVE,
    ]  # one told of its end
    assert {key for _, key in shop.rows} == {one.key}


@pytest.mark.parametrize("kind", ["succeeded", "failed"])
def test_a_run_that_has_ended_took_too_long(kind: str) -> None:
    """The run's own timestamps count, even if no check happened while it ran."""
    shop = Shop()
    shop.pass_time(30)
    shop.send("received", at=shop.now - 700, name="shop.report")
    shop.send("started", at=shop.now - 700)
    shop.send(kind, exception="ValueError()")
    shop.pass_time(5)
    (one,) = shop.open(Condition.RUNTIME)
    assert "took 11 min 40 s" in one.message


def replaced(shop: Shop) -> None:
    """Another run of the task with another name."""
    shop.end()
    shop.run("u2", "blog.post")


def gone(shop: Shop) -> None:
    """The worker is killed."""
    del shop.workers["w1@box"]
    shop.held.pop("w1@box", None)


def goodbye(shop: Shop) -> None:
    """A warm shutdown begins."""
    shop.worker("offline", "w1@box")
    gone(shop)


def another_process(shop: Shop) -> None:
    """The worker is killed, and a new process starts immediately."""
    gone(shop)
    shop.workers["w1@box"] = 7


def another_container(shop: Shop) -> None:
    """The same in a container, where the new process has the same ID."""
    gone(shop)
    shop.workers["w1@box"] = 1
    shop.worker("online", "w1@box")


NOT_SLOW: dict[str, Callable[[Shop], None]] = {
    "ends in time": Shop.end,
    "ends without an event": lambda shop: shop.held["w1@box"].clear(),
    "another task": replaced,
    "its worker is gone": gone,
    "another process": another_process,
    "another container": another_container,
}


@pytest.mark.parametrize("happens", NOT_SLOW.values(), ids=NOT_SLOW)
def test_what_is_not_slow(happens: Callable[[Shop], None]) -> None:
    """A run that ended in any way does not count as running."""
    shop = Shop(rules=RULES[:1])
    shop.pass_time(10)
    shop.run()
    shop.pass_time(100)
    happens(shop)
    shop.pass_time(800)
    assert shop.opened() == 0


@pytest.mark.parametrize("acknowledges", [True, False])
def test_the_monitor_is_away_while_the_run_ends(*, acknowledges: bool) -> None:
    """Whether the end waits in the queue or is lost, nothing opens, and later runs are evaluated again."""
    shop = Shop(acknowledges=acknowledges)
    shop.pass_time(10)
    shop.run()
    shop.pass_time(30)
    shop.restart(away=3_600, missed=not acknowledges)
    if acknowledges:
        # The backlog is read first: what it tells is of an hour ago.
        shop.send("started", "other", at=shop.now - 3_500)
        shop.monitor.tick(shop.now)
        shop.send("succeeded", at=shop.now - 3_400)
    shop.held.clear()
    shop.pass_time(900)
    assert shop.opened() == 0
    shop.run("u2")
    shop.pass_time(700)
    assert len(shop.open(Condition.RUNTIME)) == 1


@pytest.mark.parametrize("missed", [True, False])
def test_a_run_goes_on_over_an_absence(*, missed: bool) -> None:
    """Its worker confirms the run: one incident, which says for how long the monitor was down if events were lost."""
    shop = Shop(acknowledges=not missed)
    shop.pass_time(10)
    shop.run()
    shop.pass_time(650)
    shop.restart(away=1_000, missed=missed)
    shop.pass_time(60)
    (one,) = shop.open(Condition.RUNTIME)
    assert one.unwatched == (1_000 if missed else 0)
    assert shop.opened() == 1
    shop.restart(away=1_000, missed=missed)
    shop.pass_time(1)
    assert shop.open() == [one]
    shop.end()
    shop.pass_time(400)
    assert shop.open() == []


def test_ids_that_an_application_has_chosen() -> None:
    """A worker's answer matches the run even if the task ID is long."""
    shop = Shop(rules=RULES[:1])
    shop.run("invoice-" * 30)
    shop.pass_time(700)
    assert len(shop.open(Condition.RUNTIME)) == 1


def test_workers_that_never_answer() -> None:
    """Without remote control the events decide, except for a time whose events are lost."""
    shop = Shop(acknowledges=False)
    shop.mute = True
    shop.pass_time(10)
    shop.run("before")
    shop.restart(away=10, missed=True)
    shop.run("after", "shop.other")
    shop.pass_time(800)
    assert [one.subject for one in shop.open(Condition.RUNTIME)] == ["shop.other"]


def test_waiting_in_the_queue() -> None:
    """A task waits from when it was sent, or from its ETA, until it starts."""
    shop = Shop()
    shop.queues[0] = QueueStats("pay", 2, 1, 1, 4)
    shop.pass_time(10)
    sent = shop.now
    shop.send("sent", "u1", name="shop.pay", queue="pay", host="web")
    eta = "2023-11-15T12:10:00+00:00"
    shop.send("sent", "u2", name="shop.eta", queue="pay", host="web", eta=eta)
    shop.pass_time(295)
    assert shop.open(Condition.WAITING) == []
    shop.pass_time(20)
    (one,) = shop.open(Condition.WAITING)
    assert (one.subject, one.samples, one.first_at, dict(one.queues)) == ("shop.pay", ("u1",), sent + 300, {"pay": 1})
    shop.send("received", "u1", name="shop.pay")
    shop.send("started", "u1")
    shop.pass_time(2)
    assert shop.open(Condition.WAITING) == []
    shop.pass_time(700)
    assert [one.subject for one in shop.open(Condition.WAITING)] == ["shop.eta"]


@pytest.mark.parametrize("restart", [False, True])
def test_what_has_expired_does_not_wait(*, restart: bool) -> None:
    """RabbitMQ drops an expired task without an event. It counts as waiting only until it expires."""
    shop = Shop(rules=(replace(RULES[1], longer_than=60.0),))
    shop.queues[0] = QueueStats("pay", 2, 1, 1, 4)
    for uuid, seconds in (("soon", 30), ("late", 120)):
        expires = datetime.fromtimestamp(shop.now + seconds, UTC).isoformat()
        shop.send("sent", uuid, name=f"shop.{uuid}", queue="pay", host="web", expires=expires)
    shop.send("sent", "odd", name="shop.odd", queue="pay", host="web", expires="tomorrow")
    shop.send("received", "held", name="shop.held", expires=datetime.fromtimestamp(shop.now + 90, UTC).isoformat())
    shop.held["w1@box"] = {"held"}
    if restart:
        shop.pass_time(10)
        shop.restart(away=5)
    shop.pass_time(100)
    assert {one.subject for one in shop.open()} == {"shop.late", "shop.odd"}
    shop.pass_time(30)
    assert {one.subject for one in shop.open()} == {"shop.odd"}
    assert shop.opened() == 2


@pytest.mark.parametrize("late", ["sent", "received"])
@pytest.mark.parametrize(
    "life",
    [
        ["sent", "received", "started", "succeeded"],
        ["received", "started", "succeeded"],
        ["received", "started", "failed"],
        ["received", "revoked"],
        ["started", "succeeded"],
    ],
    ids="-".join,
)
def test_an_event_that_is_read_after_its_task_has_ended(life: list[str], late: str) -> None:
    """After a late event, also across a restart, the task is neither waiting nor running. A reused ID is."""
    for away in (None, 5):
        shop = Shop(rules=(replace(RULES[1], longer_than=60.0),))
        shop.queues[0] = QueueStats("pay", 2, 1, 1, 4)
        fields: dict[str, dict[str, Any]] = {
            "sent": {"name": "shop.pay", "queue": "pay", "host": "web"},
            "received": {"name": "shop.pay"},
        }
        for uuid in ("earlier", "u1"):
            for kind in life:
                shop.send(kind, uuid, **fields.get(kind, {}))
        at = shop.now - 0.5
        shop.pass_time(70)
        if away is not None:
            shop.restart(away=away)
        shop.send(late, at=at, **fields[late])
        shop.pass_time(70)
        assert shop.open(Condition.WAITING) == []
        snapshot = shop.monitor.snapshot()
        assert (snapshot.tracked, dict(snapshot.load)) == (0, {})
        shop.send("sent", **fields["sent"])
        shop.pass_time(70)
        assert [one.samples for one in shop.open(Condition.WAITING)] == [("u1",)]


def test_waiting_on_its_worker() -> None:
    """A task that was fetched and has not started counts as waiting, unless its worker no longer holds it."""
    shop = Shop()
    shop.pass_time(10)
    for uuid, name in (("u1", "shop.pay"), ("u2", "shop.gone")):
        shop.send("received", uuid, name=name)
    shop.held["w1@box"] = {"u1"}
    shop.pass_time(420)
    assert [one.subject for one in shop.open(Condition.WAITING)] == ["shop.pay"]


def reconnects(shop: Shop) -> None:
    """The worker lost its connection and dropped what it had not started."""
    shop.held["w1@box"].clear()


@pytest.mark.parametrize(
    ("happens", "within"),
    [(goodbye, 4), (another_process, 14), (another_container, 14), (gone, 34), (reconnects, 80)],
)
@pytest.mark.parametrize("restart", [False, True])
def test_prefetched_tasks_are_returned(happens: Callable[[Shop], None], within: int, *, restart: bool) -> None:
    """What another worker received instead is no longer in the load, in the list of tasks, or waiting."""
    shop = Shop(rules=(Rule("late", on=Condition.WAITING, longer_than=10.0),))
    shop.pass_time(10)
    tasks: dict[str, dict[str, Any]] = {"u1": {}, "u2": {"eta": datetime.fromtimestamp(NOON + 3_600, UTC).isoformat()}}
    for uuid, due in tasks.items():
        shop.send("sent", uuid, name="shop.pay", queue="celery", **due)
        shop.send("received", uuid, name="shop.pay", **due)
    shop.held["w1@box"] = set(tasks)
    shop.pass_time(4)
    assert dict(shop.monitor.snapshot().load) == {"celery": 1}
    happens(shop)
    for uuid, due in tasks.items():
        shop.send("received", uuid, name="shop.pay", host="w2@box", **due)
    shop.held["w2@box"] = set(tasks)
    if restart:
        shop.pass_time(2)
        shop.restart()
    shop.send("started", "u1", host="w2@box")
    shop.end("u1", host="w2@box")
    shop.pass_time(within)
    assert listed(shop) == [("u2", RunState.SCHEDULED, "w2@box")]
    assert dict(shop.monitor.snapshot().load) == {}
    assert shop.opened() == 0


def listed(shop: Shop) -> list[tuple[str, str, str]]:
    """Task ID, state and worker of the tasks that have not ended."""
    lookup = shop.monitor.lookup
    page = select_runs(lookup.entries(lookup.uuids()), RunFilter(), shop.now)
    return [(run.uuid, state_of_run(run, shop.now), run.hostname) for run in page.runs]


def test_a_task_for_later_is_returned_many_times() -> None:
    """Each deployment moves it to a new worker. The memory that it takes does not grow."""
    shop = Shop()
    shop.pass_time(10)
    eta = datetime.fromtimestamp(NOON + 86_400, UTC).isoformat()
    shop.send("sent", name="shop.pay", queue="celery", eta=eta)
    for number in range(20):
        host = f"w{number}@box"
        shop.workers = {host: 1}
        shop.send("received", name="shop.pay", host=host, eta=eta)
        shop.held[host] = {"u1"}
        shop.pass_time(4)
        shop.worker("offline", host)
    assert listed(shop) == [("u1", RunState.SCHEDULED, "w19@box")]
    assert shop.monitor.snapshot().tracked <= 3


def restarts(shop: Shop) -> None:
    """A warm shutdown and a start with the same hostname."""
    goodbye(shop)
    shop.pass_time(5)
    shop.workers["w1@box"] = 7
    shop.worker("online", "w1@box", 7)


@pytest.mark.parametrize("happens", [restarts, reconnects])
def test_a_worker_receives_again_what_it_returned(happens: Callable[[Shop], None]) -> None:
    """A worker gets its own tasks back: each is one task, from its fetch to its end."""
    shop = Shop(rules=(Rule("late", on=Condition.WAITING, longer_than=30.0),))
    shop.pass_time(10)
    shop.send("sent", name="shop.pay", queue="celery", eta=datetime.fromtimestamp(NOON + 25, UTC).isoformat())
    shop.send("received", name="shop.pay")
    shop.held["w1@box"] = {"u1"}
    shop.pass_time(5)
    happens(shop)
    shop.send("received", name="shop.pay")
    shop.held["w1@box"] = {"u1"}
    shop.pass_time(30)
    shop.send("started")
    shop.end()
    shop.pass_time(2)
    assert (listed(shop), dict(shop.monitor.snapshot().load)) == ([], {})
    shop.pass_time(200)
    assert shop.opened() == 0


def test_a_broadcast_that_workers_hold() -> None:
    """Each worker has its own copy, which waits until that worker starts it."""
    shop = Shop()
    shop.pass_time(10)
    shop.send("sent", name="shop.pay", queue="celery")
    for host in shop.workers:
        shop.send("received", name="shop.pay", host=host)
        shop.held[host] = {"u1"}
    shop.send("started", host="w2@box")
    shop.end(host="w2@box")
    shop.pass_time(120)
    assert listed(shop) == [("u1", RunState.WAITING, "w1@box")]
    assert dict(shop.monitor.snapshot().load) == {"celery": 1}


@pytest.mark.parametrize("end", [{"kind": "retried", "exception": "Retry()"}, {"kind": "rejected", "requeue": True}])
def test_a_lost_task_returns_to_the_queue_after_all(end: dict[str, Any]) -> None:
    """A worker that was only silent retries or requeues its task, which is neither lost nor long overdue then."""
    shop = Shop()
    shop.pass_time(10)
    shop.run(name="shop.pay")
    gone(shop)
    shop.pass_time(70)
    assert [one.condition for one in shop.open()] == [Condition.LOST]
    shop.workers["w1@box"] = 1
    shop.send(**end)
    shop.send("received", name="shop.pay")
    shop.held["w1@box"] = {"u1"}
    shop.pass_time(40)
    assert shop.open() == []


def test_tasks_without_events() -> None:
    """Of a task with send_events=False only task-sent is known: it does not wait, and is not kept."""
    shop = Shop()
    shop.queues = [QueueStats("pay", 5, 1, 1, 4)]
    shop.monitor.learn_names({"w1@box": ["shop.pay", "shop.quiet"]}, {"w1@box": ["shop.quiet"]})
    shop.pass_time(POLL)
    shop.send("sent", "u1", name="shop.quiet", queue="pay")
    shop.send("sent", "u2", name="shop.pay", queue="pay")
    shop.pass_time(400)
    assert [one.subject for one in shop.open(Condition.WAITING)] == ["shop.pay"]
    assert [uuid for uuid, _, _ in listed(shop)] == ["u2"]
    assert {row.key.name: row.counts[0] for row in shop.monitor.snapshot().series} == {"shop.quiet": 1, "shop.pay": 1}


def test_a_queue_that_was_purged() -> None:
    """Tasks sent to a queue that is empty do not count as waiting."""
    shop = Shop()
    shop.send("sent", "u1", name="shop.pay", queue="pay", host="web")
    shop.pass_time(1_000)
    assert shop.opened() == 0


LOST: dict[str, tuple[Callable[[Shop], None], int]] = {
    "silent": (gone, 61),
    "good-bye": (goodbye, 601),
    "another process": (another_process, 11),
    "another container": (another_container, 11),
}


@pytest.mark.parametrize(("happens", "after"), LOST.values(), ids=LOST)
def test_a_worker_that_is_gone(happens: Callable[[Shop], None], after: int) -> None:
    """One incident per worker, with the names and IDs of its running tasks, counted once, also across a restart."""
    shop = Shop(rules=RULES[2:3])
    shop.pass_time(10)
    shop.run("u1", "shop.report")
    shop.run("u2", "shop.mail")
    shop.run("done", "shop.mail")
    shop.end("done")
    shop.run("other", "shop.mail", host="w2@box")
    shop.pass_time(2)
    happens(shop)
    shop.pass_time(after - 3)
    assert shop.open() == []
    shop.pass_time(5)
    (one,) = shop.open()
    assert (one.condition, one.subject, one.count) == (Condition.LOST, "w1@box", 2)
    assert dict(one.tasks) == {"shop.report": 1, "shop.mail": 1}
    assert set(one.samples) == {"u1", "u2"}
    ((label, value),) = one.details
    assert label == "Lost tasks"
    assert [name in value for name in ("shop.report u1, started", "shop.mail u2, started")] == [True, True]
    assert "Worker w1@box was lost at" in one.message
    for _ in range(3):
        shop.restart()
        shop.pass_time(120)
    assert shop.open() == [one]
    assert (shop.counters["lost.shop.report"], shop.counters["lost.shop.mail"]) == (1, 1)
    assert shop.rows == [(Action.TRIGGER, one.key)]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("successor", [False, True])
def test_an_orderly_shutdown(*, restart: bool, successor: bool) -> None:
    """A worker sends worker-offline and then finishes its tasks in silence: nothing is lost, however long it takes."""
    shop = Shop(rules=RULES[:3])
    shop.run("u1", "blog.post")
    shop.pass_time(2)
    shop.run("u2", "blog.post")  # between its last heartbeat and its good-bye
    goodbye(shop)
    shop.pass_time(30)
    if restart:
        shop.restart(away=30)
    if successor:
        shop.worker("online", "w1@box")
        shop.workers["w1@box"] = 1
    shop.pass_time(400)
    for uuid in ("u1", "u2"):
        shop.send("succeeded", uuid)
    shop.pass_time(900)
    assert shop.opened() == 0
    assert not [name for name in shop.counters if name.startswith("lost")]


def test_how_long_a_worker_may_finish() -> None:
    """The rule's finishing_for limits how long a worker may take to finish."""
    shop = Shop(rules=(replace(RULES[2], finishing_for=90.0),))
    shop.run()
    shop.pass_time(2)
    goodbye(shop)
    shop.pass_time(89)
    assert shop.opened() == 0
    shop.pass_time(3)
    (one,) = shop.open()
    assert one.samples == ("u1",)


@pytest.mark.parametrize("terminated", [False, True])
def test_a_task_is_revoked_while_a_worker_finishes(*, terminated: bool) -> None:
    """A revoked task that had not started was not running at worker-offline; a terminated one was."""
    shop = Shop(rules=RULES[2:3])
    shop.run("u1")
    shop.send("received", "u2", name="shop.mail")
    shop.pass_time(2)
    goodbye(shop)
    shop.pass_time(1)
    shop.send("revoked", "u1" if terminated else "u2")
    shop.pass_time(700)
    assert [one.samples for one in shop.open()] == ([] if terminated else [("u1",)])


@pytest.mark.parametrize("claimed", [0.0, 1.0])
def test_a_worker_that_claims_any_time(claimed: float) -> None:
    """A run that it killed is lost once, whatever its clock says."""
    shop = Shop(rules=RULES[2:3])
    shop.run()
    shop.pass_time(2)
    shop.send("cancelled", at=claimed)
    goodbye(shop)
    for _ in range(3):
        shop.pass_time(700)
        shop.restart()
    assert shop.counters["lost.shop.report"] == 1


def test_the_next_process_begins_at_once() -> None:
    """Runs of the new process, even in its first second, do not count as left behind by the old one."""
    shop = Shop(rules=RULES[2:3])
    shop.pass_time(10)
    goodbye(shop)
    shop.pass_time(3)
    shop.workers["w1@box"] = 7
    shop.worker("online", "w1@box", 7)
    shop.run()
    shop.pass_time(1_300)
    assert shop.opened() == 0


def cold_shutdown(shop: Shop) -> None:
    """SIGQUIT: the worker kills its tasks, sends worker-offline, and sends its remaining events."""
    uuids = shop.held.pop("w1@box")
    shop.worker("offline", "w1@box")
    del shop.workers["w1@box"]
    for uuid in uuids:
        shop.send("cancelled", uuid)


def cold_after_warm_shutdown(shop: Shop) -> None:
    """SIGTERM, and SIGQUIT before all tasks have ended."""
    shop.worker("offline", "w1@box")
    uuids = shop.held.pop("w1@box")
    del shop.workers["w1@box"]
    shop.pass_time(100)
    for uuid in uuids:
        shop.send("cancelled", uuid)


def reconnected(shop: Shop) -> None:
    """The worker lost its connection, and kills the tasks that the broker will redeliver."""
    for uuid in shop.held.pop("w1@box"):
        shop.send("cancelled", uuid)


CANCELLED = [cold_shutdown, cold_after_warm_shutdown, reconnected]


@pytest.mark.parametrize("happens", CANCELLED)
def test_a_worker_kills_what_it_runs(happens: Callable[[Shop], None]) -> None:
    """Killed tasks are lost if they are not redelivered within ``silent_for``; they are counted once."""
    shop = Shop(rules=RULES[2:3])
    shop.pass_time(10)
    shop.run("u1", "shop.report")
    shop.run("u2", "shop.mail")
    shop.pass_time(200)  # its worker has confirmed that it holds them
    happens(shop)
    assert shop.monitor.snapshot().oldest_started
    shop.pass_time(2)
    assert (shop.monitor.snapshot().oldest_started, shop.monitor.snapshot().load) == ({}, {})
    shop.pass_time(55)
    assert shop.opened() == 0
    shop.pass_time(5)
    (one,) = shop.open()
    assert (one.subject, dict(one.tasks), set(one.samples)) == (
        "w1@box", {"shop.report": 1, "shop.mail": 1}, {"u1", "u2"},
    )  # fmt: skip
    for _ in range(2):
        shop.restart()
        shop.pass_time(120)
    assert shop.open() == [one]
    assert (shop.counters["lost.shop.report"], shop.counters["lost.shop.mail"]) == (1, 1)
    shop.send("sent", "u1", name="shop.report", queue="pay", host="web")  # it comes late
    shop.run("u1", host="w2@box")
    shop.run("u2", host="w2@box")
    shop.pass_time(3)
    assert shop.open() == []


@pytest.mark.parametrize("happens", CANCELLED)
def test_what_was_killed_comes_again(happens: Callable[[Shop], None]) -> None:
    """With acks_late the broker redelivers it at once, and an end may arrive first: nothing is lost."""
    shop = Shop(rules=RULES[2:3])
    shop.run("u1")
    shop.run("u2")
    shop.pass_time(5)
    happens(shop)
    shop.send("succeeded", "u2")
    shop.pass_time(5)
    shop.run("u1", host="w2@box")
    shop.pass_time(900)
    assert shop.opened() == 0
    assert not [name for name in shop.counters if name.startswith("lost")]


@pytest.mark.parametrize("happens", CANCELLED)
def test_the_monitor_restarts_before_a_killed_task_is_told(happens: Callable[[Shop], None]) -> None:
    """Killed tasks are stored: after ``silent_for`` they are reported and counted, once."""
    shop = Shop(rules=RULES[2:3])
    shop.run()
    shop.pass_time(5)
    happens(shop)
    shop.pass_time(5)
    shop.restart(away=30)
    shop.pass_time(20)
    assert shop.opened() == 0
    shop.pass_time(50)
    assert [one.samples for one in shop.open()] == [("u1",)]
    for _ in range(2):
        shop.restart()
        shop.pass_time(70)
    assert (shop.opened(), shop.counters["lost.shop.report"]) == (1, 1)


@pytest.mark.parametrize("missed", [False, True])
def test_a_killed_task_comes_again_after_a_restart(*, missed: bool) -> None:
    """It is not lost, nor is one that may have been redelivered while the monitor was down."""
    shop = Shop(rules=RULES[2:3])
    shop.run()
    shop.pass_time(5)
    cold_shutdown(shop)
    shop.pass_time(5)
    shop.restart(away=5, missed=missed)
    shop.pass_time(20)
    if not missed:
        shop.run(host="w2@box")
    shop.pass_time(900)
    assert shop.opened() == 0
    assert not [name for name in shop.counters if name.startswith("lost")]


@pytest.mark.parametrize("replace", [another_process, another_container])
@pytest.mark.parametrize("after", [2, 9, 15, 40, 100])
def test_the_monitor_restarts_after_a_worker_was_replaced(after: int, replace: Callable[[Shop], None]) -> None:
    """The tasks of a replaced worker are reported and counted once, whenever the monitor restarts."""
    shop = Shop(rules=RULES[2:3])
    shop.run()
    shop.pass_time(200)
    replace(shop)
    shop.pass_time(after)
    for _ in range(3):
        shop.restart()
        shop.pass_time(after)
    shop.pass_time(200)
    assert (shop.opened(), len(shop.open()), shop.counters["lost.shop.report"]) == (1, 1, 1)


@pytest.mark.parametrize("after", [2, 9, 15, 40, 100])
@pytest.mark.parametrize("happens", [gone, another_process, cold_shutdown, reconnected])
def test_what_no_rule_tells_is_counted_once(happens: Callable[[Shop], None], after: int) -> None:
    """Lost tasks are counted without a rule, and once, although no incident records the loss across a restart."""
    shop = Shop(rules=())
    shop.run()
    shop.pass_time(200)
    happens(shop)
    for _ in range(4):
        shop.pass_time(after)
        shop.restart(away=1)
    shop.pass_time(200)
    assert (shop.opened(), shop.counters["lost.shop.report"]) == (0, 1)


def test_the_monitor_restarts_while_workers_finish() -> None:
    """worker-offline and the running tasks are stored, so the time limit continues."""
    shop = Shop(rules=RULES[2:3])
    for uuid in ("killed", "ends", "ignored"):
        shop.run(uuid)
    shop.run("other", host="w2@box")
    shop.pass_time(2)
    goodbye(shop)
    shop.worker("offline", "w2@box", 2)
    del shop.workers["w2@box"]
    shop.pass_time(10)
    shop.workers["w1@box"] = 7
    shop.worker("online", "w1@box", 7)
    for _ in range(5):
        shop.restart(away=5)
        shop.pass_time(60)
    assert shop.opened() == 0
    shop.send("succeeded", "ends")
    shop.pass_time(250)
    assert shop.opened() == 0
    shop.pass_time(50)
    assert [one.subject for one in shop.open()] == ["w1@box", "w2@box"]
    assert [one.count for one in shop.open()] == [2, 1]


@pytest.mark.parametrize("ended", [False, True])
def test_the_ends_of_a_finishing_worker_come_after_a_restart(*, ended: bool) -> None:
    """When as many tasks have ended as ran at worker-offline, the others had ended before without an event."""
    shop = Shop(rules=RULES[2:3])
    for uuid in ("u1", "u2", "ignored"):
        shop.run(uuid)
    shop.pass_time(1)
    shop.held["w1@box"].discard("ignored")
    goodbye(shop)
    shop.pass_time(10)
    shop.send("succeeded", "u1")
    shop.restart(away=5)
    shop.pass_time(10)
    if ended:
        shop.send("succeeded", "u2")
    shop.pass_time(700)
    assert [one.count for one in shop.open()] == ([] if ended else [2])


@pytest.mark.parametrize("killed", [False, True])
def test_what_ends_without_an_event_before_a_warm_shutdown(*, killed: bool) -> None:
    """If all tasks that ran at worker-offline have ended, no other is lost; otherwise others may be."""
    shop = Shop(rules=RULES[2:3])
    shop.run("ended")
    shop.run("ignored")
    shop.run("u1")
    shop.run("u2")
    shop.pass_time(1)
    shop.held["w1@box"] -= {"ignored", "ended"}
    ended_at = shop.now
    goodbye(shop)
    shop.pass_time(20)
    for uuid, at in {"ended": ended_at, "u1": shop.now, "u2": shop.now}.items():
        if not (killed and uuid == "u2"):
            shop.send("succeeded", uuid, at=at)
    shop.pass_time(700)
    assert [one.count for one in shop.open()] == ([2] if killed else [])


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("happens", [gone, goodbye, another_process, another_container], ids=lambda one: one.__name__)
def test_it_has_ended_without_an_event(happens: Callable[[Shop], None], *, restart: bool) -> None:
    """A task that raised Ignore is not lost, because its worker reports that it does not run it."""
    shop = Shop(rules=RULES[2:3])
    shop.pass_time(10)
    shop.run("short")
    shop.pass_time(2)
    shop.held["w1@box"].clear()
    shop.pass_time(20)
    shop.run("long")
    shop.run("other", "shop.mail")
    shop.pass_time(100)
    shop.held["w1@box"].remove("long")
    shop.pass_time(200)  # it says so when it is asked
    if restart:
        shop.restart(away=3)
    happens(shop)
    shop.pass_time(700)
    (one,) = shop.open()
    assert one.samples == ("other",)


def test_it_ran_again() -> None:
    """With acks_late the tasks are redelivered: the incident resolves once all of them have run."""
    shop = Shop()
    shop.pass_time(10)
    shop.run("u1")
    shop.run("u2")
    shop.pass_time(2)
    del shop.workers["w1@box"]
    shop.pass_time(70)
    (one,) = shop.open()
    shop.run("u1", host="w2@box")
    shop.pass_time(3)
    assert [each.count for each in shop.open()] == [2]
    shop.end("u1", host="w2@box")
    shop.pass_time(3)
    assert shop.open()
    shop.run("u2", host="w2@box")
    shop.pass_time(3)
    assert shop.open() == []
    assert shop.rows[-1] == (Action.RESOLVE, one.key)


def test_it_was_delivered_again_before_anybody_knew() -> None:
    """RabbitMQ redelivers it at once: nothing was lost."""
    shop = Shop()
    shop.pass_time(10)
    shop.run("u1")
    shop.pass_time(2)
    del shop.workers["w1@box"]
    shop.pass_time(2)
    shop.run("u1", host="w2@box")
    shop.pass_time(100)
    assert shop.opened() == 0
    assert "lost.shop.report" not in shop.counters


@pytest.mark.parametrize("after", [2, 70])
@pytest.mark.parametrize("mute", [False, True])
@pytest.mark.parametrize("happens", [gone, another_process, goodbye])
def test_a_run_that_was_redelivered(happens: Callable[[Shop], None], after: int, *, mute: bool) -> None:
    """The run on the worker that is gone is neither listed nor counted as running beside the next one."""
    shop = Shop(rules=(Rule("lost", on=Condition.LOST, silent_for=60.0, finishing_for=60.0),))
    shop.mute = mute
    shop.pass_time(10)
    shop.run("u1")
    shop.pass_time(2)
    happens(shop)
    shop.pass_time(after)
    shop.run("u1", host="w2@box")
    began = shop.now
    shop.pass_time(200)
    assert listed(shop) == [("u1", RunState.RUNNING, "w2@box")]
    snapshot = shop.monitor.snapshot()
    assert (dict(snapshot.load), snapshot.oldest_started) == ({"celery": 1}, {"shop.report": began})
    shop.end("u1", host="w2@box")
    shop.pass_time(2)
    snapshot = shop.monitor.snapshot()
    assert (listed(shop), dict(snapshot.load), snapshot.oldest_started) == ([], {}, {})
    assert shop.open() == []


@pytest.mark.parametrize("behind", [-50.0, 50.0])
def test_it_ran_again_by_another_clock(behind: float) -> None:
    """Clocks of two workers differ by less than a minute: a task that is redelivered at once is not lost."""
    shop = Shop(rules=RULES[2:3])
    shop.pass_time(100)
    shop.run("u1")
    shop.pass_time(100)
    del shop.workers["w1@box"]
    shop.pass_time(2)
    shop.send("received", "u1", name="shop.report", host="w2@box", at=shop.now - behind)
    shop.send("started", "u1", host="w2@box", at=shop.now - behind)
    shop.held["w2@box"] = {"u1"}
    shop.pass_time(300)
    assert (shop.opened(), shop.counters.get("lost.shop.report", 0)) == (0, 0)


def test_a_broadcast_that_one_worker_loses() -> None:
    """Other workers run their own copies: it is lost with its worker, unless that was within a minute of its start."""
    shop = Shop(rules=RULES[2:3])
    for host in ("w1@box", "w2@box"):
        shop.run("u1", host=host)
    shop.pass_time(100)
    del shop.workers["w1@box"]
    shop.pass_time(100)
    assert [one.subject for one in shop.open()] == ["w1@box"]


def test_nobody_says_anything_for_a_day() -> None:
    """Tasks that did not run again are given up after a day: the incident resolves."""
    shop = Shop()
    shop.run("u1")
    shop.pass_time(2)
    del shop.workers["w1@box"]
    shop.pass_time(70)
    shop.now += 86_400
    shop.pass_time(5)
    assert shop.open() == []
    assert shop.opened() == 1


def test_a_worker_that_was_only_silent() -> None:
    """The same process returns and still has the run: the incident resolves."""
    shop = Shop()
    shop.run("u1")
    shop.pass_time(40)
    workers, shop.workers = shop.workers, {"w2@box": 2}
    shop.pass_time(70)
    assert len(shop.open(Condition.LOST)) == 1
    shop.workers = workers
    shop.pass_time(60)
    assert shop.open(Condition.LOST) == []
    shop.end("u1")
    shop.pass_time(10)
    assert shop.opened() == 1


@pytest.mark.parametrize("acknowledges", [True, False])
def test_the_worker_dies_while_the_monitor_is_away(*, acknowledges: bool) -> None:
    """If events are lost, the run may have ended, so nothing opens. If they wait in the queue, they decide."""
    shop = Shop(acknowledges=acknowledges)
    shop.run("u1")
    shop.pass_time(30)
    del shop.workers["w1@box"]
    shop.restart(away=600, missed=not acknowledges)
    shop.pass_time(30)
    assert shop.opened() == 0
    shop.pass_time(100)
    assert shop.opened() == (1 if acknowledges else 0)


def test_a_shared_name() -> None:
    """Two processes with one name alternate: their runs cannot be distinguished, and none is lost."""
    shop = Shop()
    shop.run("u1")
    for second in range(200):
        shop.workers["w1@box"] = 1 + 5 * (second % 2)
        shop.pass_time(1)
    assert shop.opened() == 0


def test_a_stream_that_stands_still() -> None:
    """While no events arrive, no worker is gone. Afterwards, nothing is evaluated until all had time to send."""
    shop = Shop(rules=RULES[2:3])
    shop.run("u1")
    shop.pass_time(30)
    shop.monitor.stalled()
    for _ in range(3_600):
        shop.now += 1
        shop.monitor.tick(shop.now)
    shop.pass_time(100)
    assert shop.opened() == 0


def test_backlog() -> None:
    """It opens only if the backlog lasts. A failed poll does not count. It resolves when the queue is short."""
    shop = Shop()
    shop.pass_time(POLL)
    for length in (500, 500, 3, 500, 500, None, 500, 500):
        assert shop.open() == []
        shop.queues[0] = QueueStats("pay", length, 1, 1, 4)
        shop.pass_time(POLL)
    shop.pass_time(POLL)
    (one,) = shop.open()
    assert (one.condition, one.subject, one.task) == (Condition.BACKLOG, "pay", "")
    assert "500 messages now (limit 100, for 1 min)" in one.message
    shop.queues[0] = QueueStats("pay", None, 1, 1, 4)
    shop.pass_time(120)
    assert shop.open() == [one]
    shop.restart()
    shop.pass_time(60)
    assert [one.key for one in shop.open()] == [one.key]
    shop.queues[0] = QueueStats("pay", 100, 1, 1, 4)
    shop.pass_time(POLL)
    assert shop.open() == []
    assert shop.opened() == 1


def test_backlog_while_the_monitor_is_away() -> None:
    """A queue that was long before and after a downtime was not observed to stay long."""
    shop = Shop()
    shop.queues[0] = QueueStats("pay", 500, 1, 1, 4)
    shop.pass_time(40)
    shop.restart(away=3_600)
    shop.pass_time(60)
    assert shop.opened() == 0
    shop.pass_time(40)
    assert shop.opened() == 1


NOBODY: dict[str, tuple[Mapping[int, QueueStats], bool, str]] = {
    "empty": ({0: QueueStats("pay", 0, 0, 0, 0)}, False, ""),
    "nobody": ({0: QueueStats("pay", 7, 0, 0, 0)}, False, "Queue pay has had no worker since"),
    "the broker does not tell": ({0: QueueStats("pay", 7, None, 0, 0)}, False, "holds 7 tasks"),
    "a consumer that is no Celery worker": ({0: QueueStats("pay", 7, 1, 0, 0)}, False, ""),
    "nobody ever answered": ({0: QueueStats("pay", 7, None, 0, 0)}, True, ""),
    "nobody ever answered, the broker tells": ({0: QueueStats("pay", 7, 0, 0, 0)}, True, "has had no worker"),
    "too few": ({1: QueueStats("mail", 0, 2, 2, 2)}, False, "Queue mail has had 2 workers (fewer than 3) since"),
    "enough": ({1: QueueStats("mail", 900, 3, 3, 3)}, False, ""),
}


@pytest.mark.parametrize(("queues", "mute", "expected"), NOBODY.values(), ids=NOBODY)
def test_no_worker(queues: Mapping[int, QueueStats], mute: bool, expected: str) -> None:  # noqa: FBT001  # a column
    """A queue with tasks needs a worker, or as many as the rule requires."""
    shop = Shop(rules=RULES[4:])
    shop.mute = mute
    for place, queue in queues.items():
        shop.queues[place] = queue
    shop.pass_time(60)
    assert shop.open() == []
    shop.pass_time(60)
    assert [expected in one.message for one in shop.open()] == ([True] if expected else [])
    shop.queues = [QueueStats("pay", 7, 1, 1, 1), QueueStats("mail", 0, 3, 3, 4)]
    shop.pass_time(POLL)
    assert shop.open() == []


def test_the_oldest_run_and_the_load() -> None:
    """Readers see when the oldest run of each task started, and the load of each queue."""
    shop = Shop(rules=())
    shop.pass_time(10)
    shop.run("u1")
    began = shop.now
    shop.pass_time(30)
    shop.run("u2")
    shop.run("u3", "blog.post")
    shop.pass_time(2)
    snapshot = shop.monitor.snapshot()
    assert snapshot.oldest_started == {"shop.report": began, "blog.post": began + 30}
    assert dict(snapshot.load) == {"celery": 3}
    shop.end("u1")
    shop.pass_time(2)
    assert shop.monitor.snapshot().oldest_started["shop.report"] == began + 30
    shop.held["w1@box"].clear()  # they end without an event
    shop.pass_time(120)
    assert shop.monitor.snapshot().oldest_started == {}


def test_many_tasks_are_looked_at_in_turn() -> None:
    """A round over many tasks takes several checks, finds all, and evaluates once at its end."""
    shop = Shop()
    names = [f"n{number}" for number in range(12_000)]
    shop.monitor.receive(
        [Delivery(body(*(raw("received", name, shop.now, name="shop.x", hostname="w1@box") for name in names)))],
        shop.now,
    )
    shop.run("u1")
    shop.held["w1@box"] |= set(names)
    shop.pass_time(630)
    assert [one.samples for one in shop.open(Condition.RUNTIME)] == [("u1",)]
    (waiting,) = shop.open(Condition.WAITING)
    assert waiting.count <= 12_000


def test_gaps() -> None:
    """Adjacent gaps are merged, gaps outside of the time are ignored, and their number is bounded."""
    gaps = Gaps()
    for second in range(10):
        gaps.add(100.0 + second, 101.0 + second)
    gaps.add(200.0, 150.0)
    gaps.add(300.0, 310.0)
    assert (gaps.within(0, 1_000), gaps.within(105, 305), gaps.end) == (20, 10, 310)
    for number in range(1_000):
        gaps.add(1_000.0 + 10 * number, 1_001.0 + 10 * number)
    assert gaps.within(0, 100_000) == 200
