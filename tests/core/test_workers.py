"""Workers and the audit of what the stream did not show."""

import pytest

from celery_monitor.core.model import Event
from celery_monitor.core.workers import HEARTBEAT, MOST_WORKERS, OFFLINE, ONLINE, Workers
from tests.builders import NOON


def beat(processed: int = 0, kind: str = HEARTBEAT, host: str = "w1@box", at: float = NOON, pid: int = 7) -> Event:
    """A worker's own event."""
    return Event(type=kind, timestamp=at, hostname=host, processed=processed, active=1, pid=pid, sw_ver="5.7.0")


def workers() -> Workers:
    """With the default times."""
    return Workers(timeout=300.0, purge=600.0)


def unobserved(of: Workers, *heartbeats: tuple[int, int]) -> int:
    """(started events seen before it, processed in it) for each heartbeat → what counts as unobserved."""
    for started, processed in heartbeats:
        for _ in range(started):
            of.started("w1@box")
        of.hear(beat(processed), NOON)
    return of.unobserved


AUDITS = {
    "all seen": ([(5, 5), (5, 10), (0, 10), (0, 10)], 0),
    "three lost": ([(5, 5), (2, 10), (0, 10), (0, 10), (0, 10)], 3),
    "a loss counts once": ([(0, 4), (0, 4), (0, 4), (0, 4), (0, 4), (0, 4)], 4),
    "two losses": ([(0, 4), (0, 4), (0, 4), (1, 8), (0, 8), (0, 8)], 7),
    "heartbeats overtake events": ([(0, 5), (5, 8), (3, 8), (0, 8)], 0),
    "two heartbeats are not enough": ([(0, 5), (0, 5)], 0),
}


@pytest.mark.parametrize(("heartbeats", "lost"), AUDITS.values(), ids=AUDITS)
def test_audit_of_a_worker_seen_from_its_start(heartbeats: list[tuple[int, int]], lost: int) -> None:
    """Processed less seen, as the least of three heartbeats in a row."""
    of = workers()
    of.hear(beat(0, ONLINE), NOON)
    of.take()
    # The heartbeat of the start is one of the three.
    assert unobserved(of, (0, 0), (0, 0), (0, 0), *heartbeats) == lost


def test_a_worker_that_was_there_before() -> None:
    """What it had processed before it was seen is no loss, though part of it may still arrive."""
    of = workers()
    assert unobserved(of, (0, 100), (3, 103), (2, 103), (0, 103), (0, 103)) == 0
    assert unobserved(of, (0, 110), (0, 110), (0, 110)) == 7


def test_a_restarted_worker_counts_from_zero() -> None:
    """Its processed starts again; what was lost before stays counted."""
    of = workers()
    of.hear(beat(0, ONLINE), NOON)
    assert unobserved(of, (0, 4), (0, 4), (0, 4)) == 4
    of.hear(beat(0, ONLINE), NOON)
    assert unobserved(of, (2, 2), (0, 2), (0, 2)) == 4
    assert unobserved(of, (0, 1), (0, 1), (0, 1)) == 5


def test_a_worker_that_connects_again_counts_on() -> None:
    """It says that it is online, once more, in the middle of its run: nothing was lost."""
    of = workers()
    of.hear(beat(0, ONLINE), NOON)
    assert unobserved(of, (4, 4), (0, 4), (0, 4)) == 0
    assert of.hear(beat(4, ONLINE), NOON) is False
    assert unobserved(of, (2, 6), (0, 6), (0, 6)) == 0
    assert unobserved(of, (0, 8), (0, 8), (0, 8)) == 2


def test_another_process_id_is_another_run() -> None:
    """Though it has counted further than the last one had; what it began before its first heartbeat was seen."""
    of = workers()
    of.hear(beat(0, ONLINE), NOON)
    assert unobserved(of, (4, 4), (0, 4), (0, 4)) == 0
    for _ in range(3):
        of.started("w1@box")
    for _ in range(3):
        of.hear(beat(10, pid=8), NOON)
    assert of.unobserved == 7


def test_a_run_that_ends_takes_along_what_it_had_buffered() -> None:
    """Killed between two heartbeats: its last difference counts, when another run begins or it stays silent."""
    successor, silence = workers(), workers()
    for of in (successor, silence):
        of.hear(beat(0, ONLINE), NOON)
        assert unobserved(of, (4, 4), (2, 6), (1, 12)) == 0
    successor.hear(beat(0, ONLINE, pid=8), NOON)
    assert successor.unobserved == 5
    assert unobserved(successor, (0, 0), (0, 0), (0, 0)) == 5
    silence.tick(NOON + 301)
    silence.tick(NOON + 302)
    assert silence.unobserved == 5
    assert [one.unobserved for one in silence.take()[0]] == [5]


def test_the_farewell_of_a_run_that_has_a_successor() -> None:
    """A pod that takes its time to end does not mark the one that replaced it as down."""
    of = workers()
    of.hear(beat(5), NOON)
    of.hear(beat(0, ONLINE, pid=8), NOON)
    of.hear(beat(5, OFFLINE), NOON)
    assert of.snapshot()[0].up


def test_without_a_stream_nobody_is_silent() -> None:
    """An outage of the broker longer than the purge drops nobody: what was lost in it is counted after it."""
    of = workers()
    of.hear(beat(0, ONLINE), NOON)
    assert unobserved(of, (4, 4), (0, 4), (0, 4)) == 0
    assert of.tick(NOON + 900, watched=False) == []
    assert not of.snapshot()[0].up
    of.unwatched(900)
    assert of.tick(NOON + 901) == []
    assert unobserved(of, (0, 54), (0, 54), (0, 54)) == 50
    assert of.snapshot()[0].up


def test_the_audit_goes_on_after_a_restart_of_the_monitor() -> None:
    """What the worker did in between is unobserved."""
    before = workers()
    before.hear(beat(0, ONLINE), NOON)
    unobserved(before, (3, 3), (0, 3), (0, 3))
    stored, _ = before.take()
    after = workers()
    after.restore(stored, NOON + 100)
    assert unobserved(after, (0, 13), (0, 13), (0, 13)) == 10
    assert after.snapshot()[0].unobserved == 10


def test_comes_and_goes() -> None:
    """New, offline, back: each arrival is told once."""
    of = workers()
    arrivals = [of.hear(beat(kind=kind), NOON) for kind in (ONLINE, HEARTBEAT, OFFLINE, HEARTBEAT, HEARTBEAT, ONLINE)]
    assert arrivals == [True, False, False, True, False, True]


def test_silence() -> None:
    """Down after the timeout, gone after the purge, back by its next heartbeat."""
    of = workers()
    of.hear(beat(), NOON)
    assert of.tick(NOON + 299) == []
    assert of.snapshot()[0].up
    assert of.tick(NOON + 301) == []
    assert not of.snapshot()[0].up
    assert of.tick(NOON + 601) == ["w1@box"]
    assert of.snapshot() == []
    assert of.take()[1] == ["w1@box"]


def test_thousands_of_pods_leave_nothing() -> None:
    """After the purge no trace of them is kept."""
    of = workers()
    for number in range(5000):
        of.hear(beat(host=f"w@pod-{number}"), NOON)
    of.take()
    assert len(of.tick(NOON + 601)) == 5000
    of.take()
    assert of.snapshot() == []
    assert of.take() == ([], [])


def test_only_what_changed_is_taken() -> None:
    """A flush without worker events writes no workers."""
    of = workers()
    of.hear(beat(), NOON)
    assert len(of.take()[0]) == 1
    assert of.take() == ([], [])


def test_invented_workers_are_bounded() -> None:
    """A flood of new names fills no memory."""
    of = workers()
    for number in range(MOST_WORKERS + 100):
        of.hear(beat(host=f"w@{number}"), NOON)
    assert len(of.snapshot()) == MOST_WORKERS


def test_hostile_values() -> None:
    """No hostname is no worker; texts are cut."""
    of = workers()
    assert not of.hear(beat(host=""), NOON)
    told = beat(host="h" * 1000)
    told.sw_ver = "v" * 1000
    of.hear(told, NOON)
    (one,) = of.snapshot()
    assert (len(one.hostname), len(one.sw_ver)) == (255, 64)
