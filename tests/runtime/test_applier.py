"""Portions, marks, and messages that kill the process."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from celery_monitor.core.fingerprint import fingerprint_of
from celery_monitor.core.model import Delivery, Restored
from celery_monitor.core.monitor import Limits, Monitor
from celery_monitor.runtime.applier import FATAL, LARGE, MAX_BYTES, MAX_MESSAGES, Applier, chunks
from tests.builders import NOON, body, raw
from tests.fakes import FakeMarks, ManualClock

_sizes = st.lists(st.tuples(st.integers(0, 2 * LARGE), st.booleans()), max_size=60)


@given(_sizes, st.integers(1, 30))
def test_portions(sizes: list[tuple[int, bool]], copies: int) -> None:
    """All messages are applied in order, in limited portions; large and redelivered ones alone."""
    deliveries = [Delivery(b"x" * size, "", again) for size, again in sizes] * copies
    found = list(chunks(deliveries))
    assert [one for chunk in found for one in chunk] == deliveries
    for chunk in found:
        assert 0 < len(chunk) <= MAX_MESSAGES
        assert len(chunk) == 1 or sum(len(one.body) for one in chunk) <= MAX_BYTES
        assert len(chunk) == 1 or not any(one.redelivered or len(one.body) > LARGE for one in chunk)


class _Dying(Monitor):
    """An applier that dies of one body."""

    fatal = b""
    alive = True

    def receive(self, deliveries: object, now: float) -> None:
        chunk: list[Delivery] = list(deliveries)  # type: ignore[call-overload]
        if any(one.body == self.fatal and one.refused is None for one in chunk):
            raise SystemExit
        super().receive(chunk, now)


def _starts(poison: Delivery, others: int, most: int = 10) -> tuple[int, FakeMarks, Monitor]:
    """The number of starts until everything is applied; each begins with all messages again."""
    marks = FakeMarks()
    before = [Delivery(body(raw("sent", uuid=f"b{number}"))) for number in range(others)]
    behind = [Delivery(body(raw("sent", uuid=f"a{number}"))) for number in range(others)]
    for start in range(1, most):
        monitor = _Dying(Limits(), Restored(), NOON)
        monitor.fatal = poison.body
        again = start > 1
        deliveries = [Delivery(one.body, one.content_type, again) for one in (*before, poison, *behind)]
        try:
            Applier(monitor, threading.Lock(), ManualClock(time=NOON), marks).apply(deliveries, marking=True)
        except SystemExit:
            marks.killed()
        else:
            return start, marks, monitor
    raise AssertionError("never")


def test_a_large_message_of_which_the_process_dies_twice_is_set_aside() -> None:
    """It is marked from the first time; all others are counted."""
    poison = Delivery(b"[" + b" " * LARGE + b"]")
    starts, marks, monitor = _starts(poison, 5)
    assert (starts, marks.deaths(fingerprint_of(poison.body))) == (FATAL + 1, FATAL)
    counters = monitor.snapshot().counters
    assert (counters["discarded.poison"], counters["events.task-sent"], counters["messages"]) == (1, 10, 11)


def test_a_small_one_is_set_aside_too() -> None:
    """It is marked when it is redelivered, so it takes one more death."""
    starts, _, monitor = _starts(Delivery(b"[]"), 5)
    assert starts == FATAL + 2
    assert monitor.snapshot().counters["discarded.poison"] == 1


def test_who_is_killed_often_sets_nothing_aside() -> None:
    """A message that was applied after a death is cleared; small messages are not marked without a redelivery."""
    marks = FakeMarks()
    delivery = Delivery(body(raw("sent")), redelivered=True)
    for _ in range(20):
        monitor = Monitor(Limits(), Restored(), NOON)
        Applier(monitor, threading.Lock(), ManualClock(time=NOON), marks).apply([delivery], marking=True)
        marks.begin(fingerprint_of(delivery.body))
        marks.killed()
        assert monitor.snapshot().counters.get("discarded.poison", 0) == 0
    applier = Applier(Monitor(Limits(), Restored(), NOON), threading.Lock(), ManualClock(time=NOON), marks)
    marks.marks = 0
    applier.apply([Delivery(body(raw("sent"))) for _ in range(500)], marking=True)
    applier.apply([delivery], marking=False)
    assert marks.marks == 0
