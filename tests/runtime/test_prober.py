"""Timing of the probes."""

import itertools
import threading

from celery_monitor.runtime.prober import MAX_TIMEOUT, MAX_WAIT, Prober
from tests.fakes import ManualClock


class Sender:
    """A Probe that records the time and the timeout of each sending."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.sent: list[tuple[float, float]] = []

    def send(self, body: bytes, timeout: float) -> None:
        """Record it."""
        del body
        self.sent.append((self.clock.monotonic(), timeout))

    def close(self) -> None:
        """Nothing to do."""


class Stop(threading.Event):
    """Waiting for it advances the clock; it is set after ``seconds``."""

    def __init__(self, clock: ManualClock, seconds: float) -> None:
        super().__init__()
        self.clock, self.until = clock, clock.monotonic() + seconds

    def is_set(self) -> bool:
        """Whether the time is over."""
        return self.clock.monotonic() >= self.until

    def wait(self, timeout: float | None = None) -> bool:
        """Advance the clock."""
        self.clock.advance(timeout or 0.0)
        return self.is_set()


def run(interval: float, seconds: float) -> tuple[Sender, list[float], Prober, ManualClock]:
    """A prober with an open stream: the sent probes and the heartbeats of its thread."""
    clock = ManualClock(ticks=0.0)
    sender, turns = Sender(clock), list[float]()
    prober = Prober(sender, clock, interval)
    prober.opened()
    prober.run(Stop(clock, seconds), lambda: turns.append(clock.monotonic()))
    return sender, turns, prober, clock


def test_it_turns_however_long_the_interval() -> None:
    """A prober with an interval of five minutes, or a broker that accepts no message, does not look stuck."""
    sender, turns, _, _ = run(300.0, 900.0)
    assert max(b - a for a, b in itertools.pairwise(turns)) <= MAX_WAIT
    assert [at for at, _ in sender.sent] == [0.0, 300.0, 600.0]
    assert {patience for _, patience in sender.sent} == {MAX_TIMEOUT}


def test_a_new_stream_is_probed_at_once() -> None:
    """It does not wait for the rest of the interval."""
    sender, _, prober, clock = run(300.0, 10.0)
    prober.closed()
    prober.opened()
    prober.run(Stop(clock, 10.0), lambda: None)
    assert [at for at, _ in sender.sent] == [0.0, 10.0]
