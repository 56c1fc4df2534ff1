"""Guarded threads: a death ends the app, missing progress is detected, a suspended process does not count as stuck."""

import threading
from collections.abc import Callable
from functools import partial

import pytest
import structlog

from celery_monitor.errors import LeaseLostError, StoreUnusableError
from celery_monitor.runtime import threads
from celery_monitor.runtime.threads import Threads
from tests.servers import wait_until


def run(loops: dict[str, Callable[[threading.Event, Callable[[], None]], None]]) -> Threads:
    """Start the threads without a watchdog."""
    made = Threads(threading.Event(), lambda name: None)
    for name, loop in loops.items():
        made.start(name, loop, limit=3.0)
    return made


def patient(stop: threading.Event, heartbeat: Callable[[], None]) -> None:
    """A healthy loop."""
    while not stop.wait(0.01):
        heartbeat()


def test_the_first_death_stops_all() -> None:
    """And the thread is named."""

    def dying(stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        raise RuntimeError("no")

    made = run({"well": patient, "bad": dying})
    assert made.stop.wait(60)
    assert made.died == "bad"
    assert made.join("well", 60)


def test_an_end_without_a_reason_is_a_death(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that returns without a stop has abandoned its work."""
    monkeypatch.setattr(threads, "REASON_WAIT", 0.05)  # nobody gives one
    made = run({"leaver": lambda stop, heartbeat: None})
    assert made.stop.wait(60)
    assert made.died == "leaver"


def test_a_partner_of_one_that_lost_the_lease_did_not_die() -> None:
    """The pump ends the committer before it reports that another process leads."""
    lost: list[str] = []
    made = Threads(threading.Event(), lambda _: None, on_lost=lost.append)
    closed = threading.Event()

    def pump(stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        closed.set()
        made.join("committer", 0.2)
        raise LeaseLostError("another one leads")

    def committer(stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        closed.wait(60)

    made.start("committer", committer, limit=60)
    made.start("pump", pump, limit=60)
    assert made.stop.wait(60)
    assert made.join("committer", 60)
    assert (made.died, lost) == (None, ["another one leads"])


def test_an_orderly_end_is_none() -> None:
    """No death is reported."""
    made = run({"well": patient})
    made.stop.set()
    assert made.join("well", 60)
    assert made.died is None


def _has_turned(made: Threads, heartbeat: int) -> bool:
    return made.beats("well") > heartbeat


def test_silence_is_noticed() -> None:
    """A thread without progress is stuck after its limit; the others are not."""
    hold = threading.Event()

    def holding(stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        hold.wait()

    made = run({"well": patient, "stuck": holding})
    try:
        found = []
        for _ in range(6):
            heartbeat = made.beats("well")
            wait_until(partial(_has_turned, made, heartbeat))
            made.check()
            found.append(list(made.stuck()))
        assert found == [[], [], [], [], ["stuck"], ["stuck"]]
    finally:
        made.stop.set()
        hold.set()


def test_a_failure_beside_the_counting_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """A serving thread is restarted after a failure, and reported if it fails repeatedly."""
    monkeypatch.setattr(threads, "RESTART_BASE", 0.02)
    made = Threads(threading.Event(), lambda name: None)
    recovered = threading.Event()

    def slipping(stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        if not made.failures["slips"]:
            raise KeyError("once")
        recovered.set()
        patient(stop, heartbeat)

    def leaving(stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        """A loop that returns without a stop."""

    def failing(stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        raise ZeroDivisionError("a secret")

    made.start("slips", slipping, limit=3.0, restart=True)
    made.start("leaves", leaving, limit=3.0, restart=True)
    made.start("fails", failing, limit=3.0, restart=True)
    try:
        assert recovered.wait(60)
        wait_until(lambda: made.failing().keys() == {"leaves", "fails"}, 60)
        assert made.failing()["fails"].startswith("failed 3 times in a row, last with ZeroDivisionError")
        assert "secret" not in str(made.failing())
        assert (made.died, made.stuck()) == (None, {})
        assert made.failures["slips"] == 1
    finally:
        made.stop.set()
    assert all(made.join(name, 60) for name in ("slips", "leaves", "fails"))
    assert made.died is None


def test_the_watchdog_tells_that_the_interpreter_runs() -> None:
    """At its start and at each check."""
    on_check = []
    made = Threads(threading.Event(), lambda name: None, lambda: on_check.append(True))
    made.check()
    assert on_check == [True]
    made.watch()
    wait_until(lambda: len(on_check) >= 2)
    made.stop.set()


def test_an_error_of_our_own_is_told_without_a_traceback() -> None:
    """Its text gives the problem and the remedy; a traceback would not help."""

    def dying(stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        raise StoreUnusableError("The store was deleted: start the monitor again")

    with structlog.testing.capture_logs() as lines:
        started = run({"committer": dying})
        assert started.stop.wait(30)
    assert [(line["error"], "exc_info" in line) for line in lines] == [
        ("The store was deleted: start the monitor again", False)
    ]
