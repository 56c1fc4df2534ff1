"""The monitor's clock is set forward, in contrast to a monitor that stood still."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from celery_monitor.core.model import Action, Condition, Delivery, Restored
from celery_monitor.core.monitor import PROBE, Limits, Monitor
from celery_monitor.core.rules import Policy, Rule
from celery_monitor.core.schedules.calendar import Schedule
from tests.builders import NOON, body, raw

HOUR = 3600.0
EVERY = 300
RULES = (
    Rule("slow", on=Condition.RUNTIME, longer_than=600.0, to=("oncall",), route="oncall"),
    Rule("late", on=Condition.WAITING, longer_than=600.0, to=("oncall",), route="oncall"),
)
SYNC = Schedule(
    "sync",
    "shop.sync",
    f"every {EVERY}s",
    Rule("sync", on=Condition.MISSED, to=("oncall",), route="oncall"),
    60.0,
    every=EVERY,
)
LIMITS = replace(Limits(), prober=1, policy=Policy(fleet="shop", rules=RULES), schedules=[SYNC])


class Shop:
    """A fleet that is simulated second by second, and its monitor, whose clock may be wrong."""

    def __init__(self, wrong: float = 0.0) -> None:
        self.at = NOON
        """The time, by which the worker's clock goes."""
        self.wrong = wrong
        self.running: dict[str, float] = {}
        self.waiting: set[str] = set()
        self.sent: list[Delivery] = []
        """What the broker keeps for the monitor."""
        self.rows: list[tuple[Action, str]] = []
        self.counters: dict[str, float] = {}
        self.monitor = Monitor(LIMITS, Restored(), self.now)
        self.monitor.connected(acknowledges=True)

    @property
    def now(self) -> float:
        """The time that the monitor's clock shows."""
        return self.at + self.wrong

    def send(self, kind: str, uuid: str, **fields: object) -> None:
        """Send an event of the worker."""
        self.sent.append(Delivery(body(raw(kind, uuid, self.at, hostname="w1@box", **fields))))

    def start(self, uuid: str, name: str = "shop.report") -> None:
        """The worker starts a task."""
        self.send("received", uuid, name=name)
        self.send("started", uuid)
        self.running[uuid] = self.at

    def end(self, uuid: str) -> None:
        """The worker ends a task."""
        self.send("succeeded", uuid, runtime=self.at - self.running.pop(uuid))

    def fetch(self, uuid: str) -> None:
        """A task is sent and fetched, and waits."""
        self.sent.append(Delivery(body(raw("sent", uuid, self.at, name="shop.mail", queue="mail", hostname="web@box"))))
        self.send("received", uuid, name="shop.mail")
        self.waiting.add(uuid)

    def pass_time(self, seconds: int, *, read: bool = True, scheduled: bool = True) -> None:
        """Let time pass. ``read``: the monitor runs; ``scheduled``: the scheduler runs."""
        for _ in range(seconds):
            self.at += 1
            second = int(self.at - NOON)
            if second % 2:
                beat = raw("heartbeat", "", self.at, hostname="w1@box", processed=0, active=len(self.running), pid=1)
                self.sent.append(Delivery(body(beat | {"type": "worker-heartbeat"})))
            if scheduled and second % EVERY == 0:
                self.start(f"sync-{second}", "shop.sync")
                self.end(f"sync-{second}")
            if read:
                self.read()

    def read(self) -> None:
        """The monitor reads all events and a probe, and its clock ticks."""
        probe = {"type": PROBE, "probe_instance": 1, "probe_number": 1, "hostname": "m@p", "timestamp": self.now}
        sent, self.sent = [*self.sent, Delivery(body(probe))], []
        self.monitor.receive(sent, self.now)
        self.monitor.tick(self.now)
        if hosts := self.monitor.to_confirm():
            self.monitor.confirm(hosts, {host: [*self.running, *self.waiting] for host in hosts})
        if changes := self.monitor.take(self.now):
            self.rows += [(row.action, row.key.partition("/")[0]) for row in changes.outbox]
            self.counters = dict(changes.counters)


@pytest.mark.parametrize("before", [0.0, -HOUR])
def test_skipped_times_have_not_existed(before: float) -> None:
    """Neither tasks that run or wait nor schedules are judged by them, whether the clock was right before or is now."""
    shop = Shop(before)
    shop.pass_time(400)
    shop.start("a")
    shop.fetch("b")
    shop.pass_time(100)
    shop.wrong += HOUR
    shop.start("c")
    shop.pass_time(200)
    shop.end("a")
    shop.pass_time(250)
    assert shop.rows == []
    assert "missed.sync" not in shop.counters
    shop.pass_time(300)
    assert sorted(shop.rows) == [(Action.TRIGGER, "runtime"), (Action.TRIGGER, "waiting")]
    shop.pass_time(2 * EVERY, scheduled=False)
    assert (Action.TRIGGER, "missed") in shop.rows


def _kept(shop: Shop) -> None:
    """The broker has kept the events."""
    shop.pass_time(int(HOUR), read=False, scheduled=False)


def _lost(shop: Shop) -> None:
    """The connection was lost, and the worker sends no heartbeats."""
    shop.at += HOUR
    shop.monitor.connected(acknowledges=True)


@pytest.mark.parametrize("stand_still", [_kept, _lost])
def test_a_standstill_is_no_skip(stand_still: Callable[[Shop], None]) -> None:
    """While the monitor stood still, time has passed: a task is too slow, and a schedule has missed its starts."""
    shop = Shop()
    shop.pass_time(400)
    shop.start("a")
    shop.pass_time(100)
    stand_still(shop)
    shop.pass_time(60, scheduled=False)
    assert {key for _, key in shop.rows} == {"runtime", "missed"}
    assert shop.counters["missed.sync"] == pytest.approx(HOUR / EVERY, abs=2)


def test_skipped_times_exist_after_all() -> None:
    """The clock was set forward by mistake and is set back: tasks that then run in the skipped hour are judged."""
    shop = Shop()
    shop.pass_time(100)
    shop.wrong = HOUR
    shop.pass_time(100)
    shop.wrong = 0.0
    shop.pass_time(100)
    shop.start("a")
    shop.pass_time(590)
    assert shop.rows == []
    shop.pass_time(60)
    assert shop.rows == [(Action.TRIGGER, "runtime")]
