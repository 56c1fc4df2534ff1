"""The machine's clock was ahead and is set back: tasks under way, and tasks of workers that share the clock."""

from dataclasses import replace

import pytest

from celery_monitor.core.model import Action, Condition, Restored
from celery_monitor.core.monitor import Limits, Monitor
from celery_monitor.core.rules import Policy, Rule
from tests.builders import NOON, raw
from tests.core.test_clocks import HOUR, PROBER, probe, receive

RULES = (
    Rule("lost", match=("*",), to=("oncall",), on=Condition.LOST, silent_for=60.0, finishing_for=HOUR),
    Rule("slow", match=("*",), to=("oncall",), on=Condition.RUNTIME, longer_than=60.0),
    Rule("wait", match=("*",), to=("oncall",), on=Condition.WAITING, longer_than=60.0),
)


class SharedClock:
    """A monitor and a worker on one machine."""

    def __init__(self) -> None:
        limits = replace(
            Limits(), prober=PROBER, policy=Policy(fleet="shop", default=Rule(to=("oncall",)), rules=RULES)
        )
        self.of = Monitor(limits, Restored(), NOON)
        self.of.connected(acknowledges=True)
        self.now, self.process, self.held, self.opened = NOON, 0, set[str](), list[str]()
        self.start_worker()
        self.turn(20)

    def start_worker(self) -> None:
        """A new process, which has none of the tasks of the previous one."""
        self.process += 1
        self.held.clear()
        self.turn(1, self._of_worker("online"))

    def start(self, uuid: str) -> None:
        """A task starts."""
        self.held.add(uuid)
        self.turn(1, raw("received", uuid, name="shop.pay"), raw("started", uuid))

    def turn(self, seconds: int, *events: dict[str, object]) -> None:
        """Events of now, then so many seconds, with heartbeats."""
        receive(self.of, self.now, *(one | {"timestamp": self.now} for one in events))
        for _ in range(seconds):
            self.now += 1
            probe(self.of, self.now)
            receive(self.of, self.now, self._of_worker("heartbeat"))
            self.of.tick(self.now)
            if asked := self.of.to_confirm():
                self.of.confirm(asked, {"w1@box": self.held})
            if (changes := self.of.take(self.now)) is not None:
                self.opened += [row.key.partition("/")[0] for row in changes.outbox if row.action is Action.TRIGGER]

    def _of_worker(self, kind: str) -> dict[str, object]:
        active = len(self.held)
        event = {"type": f"worker-{kind}", "hostname": "w1@box", "processed": active, "active": active}
        return event | {"timestamp": self.now, "pid": self.process}


@pytest.fixture(params=[600.0, 48 * HOUR])
def back(request: pytest.FixtureRequest) -> float:
    """Seconds by which the clock is set back."""
    return float(request.param)


@pytest.mark.parametrize("before", [False, True])
def test_a_task_is_judged_as_if_nothing_had_happened(back: float, *, before: bool) -> None:
    """Whether it started ``before`` the clock was set back or after: it is not lost, but too slow, and then lost."""
    shop = SharedClock()
    if before:
        shop.start("u1")
    shop.now -= back
    if not before:
        shop.start("u1")
    shop.turn(40)
    assert shop.opened == []
    shop.turn(40)
    assert shop.opened == ["runtime"]
    shop.start_worker()
    shop.turn(30)
    assert shop.opened == ["runtime", "lost"]


def test_a_worker_that_began_to_stop_before(back: float) -> None:
    """The tasks of its next process are not those that it was finishing."""
    shop = SharedClock()
    shop.start("u1")
    shop.turn(1, shop._of_worker("offline"))
    shop.turn(2)
    shop.now -= back
    shop.turn(5)
    shop.start_worker()
    shop.turn(5)
    shop.start("u2")
    shop.turn(50)
    assert "lost" not in shop.opened
    shop.turn(40)
    assert "runtime" in shop.opened


@pytest.mark.parametrize("gap", [False, True])
def test_a_task_that_waits(back: float, *, gap: bool) -> None:
    """It is reported, although events were lost before the clock was set back."""
    shop = SharedClock()
    if gap:
        shop.of.note_gap(shop.now - 5, shop.now)
    shop.turn(5)
    shop.now -= back
    shop.turn(1, raw("sent", "u1", name="shop.pay", queue="pay"))
    shop.turn(50)
    assert shop.opened == []
    shop.turn(30)
    assert shop.opened == ["waiting"]


def test_an_eta_stays(back: float) -> None:
    """It is in the future by the clock of the client, too."""
    shop = SharedClock()
    eta = "2023-11-16T00:00:00+00:00"
    shop.turn(1, raw("sent", "u1", name="shop.pay", queue="pay", eta=eta))
    shop.now -= back
    shop.turn(100)
    assert shop.opened == []
