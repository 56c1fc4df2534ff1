"""How long the duplicate of a failure is recognised."""

import pytest

from celery_monitor.core.model import Delivery, Restored
from celery_monitor.core.monitor import PROBE, Limits, Monitor
from tests.builders import NOON, body, raw

LINGER = Limits().linger
ANYTHING = Delivery(body({"type": PROBE, "timestamp": NOON}))


def failed_once() -> Monitor:
    """A monitor after a task's failure."""
    of = Monitor(Limits(), Restored(), NOON)
    of.connected(acknowledges=True)
    of.receive([Delivery(body(raw("received"), raw("failed")))], NOON)
    return of


def discarded_twins(of: Monitor, now: float) -> float:
    """How the second failure event is counted: 1 as a duplicate, 0 as another failure."""
    of.receive([Delivery(body(raw("failed")))], now)
    return of.snapshot().counters.get("discarded.duplicate", 0)


def test_known_while_events_come() -> None:
    """It is recognised for as long as linger, and no longer."""
    for seconds, twins in ((LINGER - 2, 1), (LINGER + 2, 0)):
        of = failed_once()
        for second in range(int(seconds)):
            of.receive([ANYTHING], NOON + second)
            of.tick(NOON + second)
        assert discarded_twins(of, NOON + seconds) == twins


@pytest.mark.parametrize("ticks", [600, 1])
def test_known_after_a_standstill(ticks: int) -> None:
    """The broker, the store or the process stood still for ten minutes in between."""
    of = failed_once()
    for number in range(1, ticks + 1):
        of.tick(NOON + 600 * number / ticks)
    assert discarded_twins(of, NOON + 600) == 1
