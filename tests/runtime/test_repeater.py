"""Open incidents are repeated as long as they are open."""

import threading

import pytest

from celery_monitor.core.model import Incident
from celery_monitor.core.paging import Page
from celery_monitor.errors import DeliveryError, InterruptedSendError, RejectedError, RetryableError
from celery_monitor.runtime.notifier import Notifier
from celery_monitor.runtime.repeater import BATCH, Repeater
from tests.contracts.values import incident
from tests.fakes import ManualClock
from tests.runtime.test_notifier import MemoryOutbox, ScriptedSender

INTERVAL = 60.0


class Bench:
    """A repeater over a list of open incidents."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.open = [incident(f"key{number:04}") for number in range(2 * BATCH + 1)]
        self.sent: list[list[str]] = []
        self.errors: list[DeliveryError | None] = []
        self.start()

    def start(self) -> None:
        """Start it as after a restart."""
        self.repeater = Repeater(self, "am", self.send, self.clock, INTERVAL)

    def open_incidents(self, channel: str, limit: int, cursor: str | None = None) -> Page[Incident]:
        assert channel == "am"
        rest = [one for one in self.open if one.key > (cursor or "")]
        return Page(rest[:limit], rest[limit - 1].key if len(rest) > limit else None)

    def send(self, incidents: object) -> None:
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        self.sent.append([one.key for one in incidents])  # type: ignore[attr-defined]

    def run(self, seconds: float = 0.0) -> float:
        self.clock.advance(seconds)
        return self.repeater.run_once()


@pytest.fixture
def bench() -> Bench:
    """With more than two batches."""
    return Bench()


def test_repeats_at_once_and_then_at_its_interval(bench: Bench) -> None:
    """All are repeated in batches, and not in between; resolved ones are omitted."""
    assert bench.run() == INTERVAL
    assert [len(batch) for batch in bench.sent] == [BATCH, BATCH, 1]
    assert [key for batch in bench.sent for key in batch] == [one.key for one in bench.open]
    assert bench.run(INTERVAL - 1) == 1.0
    assert len(bench.sent) == 3
    del bench.open[1:]
    bench.run(1)
    assert bench.sent[3:] == [["key0000"]]
    bench.open.clear()
    bench.run(INTERVAL)
    assert len(bench.sent) == 4


def test_a_restart_repeats_at_once(bench: Bench) -> None:
    """It does not know when the previous process repeated them."""
    bench.run()
    bench.start()
    bench.run()
    assert len(bench.sent) == 6


@pytest.mark.parametrize("error", [RetryableError("no answer"), InterruptedSendError("stopping")])
def test_a_failure_is_tried_again_soon(bench: Bench, error: DeliveryError) -> None:
    """After a delay, but before the interval is over."""
    bench.errors = [None, error]
    wait = bench.run()
    assert (len(bench.sent), wait) == (1, INTERVAL / 4)
    bench.run(wait)
    assert len(bench.sent) == 4


def test_a_refusal_costs_its_batch_only(bench: Bench) -> None:
    """A refused batch does not delay others."""
    bench.errors = [RejectedError("bad label")]
    assert bench.run() == INTERVAL
    assert [len(batch) for batch in bench.sent] == [BATCH, 1]


def test_stops_between_two_batches(bench: Bench) -> None:
    """The end of the program does not wait for all batches."""
    bench.repeater.run_once(lambda: len(bench.sent) < 1)
    assert len(bench.sent) == 1


def test_the_notifier_repeats() -> None:
    """Between rows, in its own thread, and without any row."""
    bench = Bench()
    notifier = Notifier(MemoryOutbox(), ScriptedSender(bench.clock), bench.clock, repeater=bench.repeater)
    notifier.run_once()
    assert len(bench.sent) == 3
    stop = threading.Event()
    stop.set()
    notifier.run(stop, lambda: None)
    assert len(bench.sent) == 3
