"""Workers, and the audit of unobserved tasks."""

import tracemalloc

import pytest
from msgspec import structs

from celery_monitor.core.model import Event
from celery_monitor.core.workers import HEARTBEAT, MAX_WORKERS, OFFLINE, ONLINE, Workers
from tests.builders import NOON


def beat(processed: int = 0, kind: str = HEARTBEAT, host: str = "w1@box", at: float = NOON, pid: int = 7) -> Event:
    """A worker event."""
    return Event(type=kind, timestamp=at, hostname=host, processed=processed, active=1, pid=pid, sw_ver="5.7.0")


def workers() -> Workers:
    """With the default timeouts."""
    return Workers(timeout=300.0, purge=600.0)


def unobserved(of: Workers, *heartbeats: tuple[int, int]) -> int:
    """(started events before it, its processed count) for each heartbeat → the unobserved tasks."""
    for started, processed in heartbeats:
        for _ in range(started):
            of.started("w1@box")
        of.apply(beat(processed), NOON)
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
    """Processed minus observed, as the minimum of three consecutive heartbeats."""
    of = workers()
    of.apply(beat(0, ONLINE), NOON)
    of.take()
    # The heartbeat of the start is one of the three.
    assert unobserved(of, (0, 0), (0, 0), (0, 0), *heartbeats) == lost


def test_a_worker_that_was_there_before() -> None:
    """Tasks that it processed before it was seen are no loss, even if their events arrive later."""
    of = workers()
    assert unobserved(of, (0, 100), (3, 103), (2, 103), (0, 103), (0, 103)) == 0
    assert unobserved(of, (0, 110), (0, 110), (0, 110)) == 7


def test_a_restarted_worker_counts_from_zero() -> None:
    """Its processed count starts again; earlier losses stay counted. A gap may hide its start."""
    of = workers()
    of.apply(beat(0, ONLINE), NOON)
    assert unobserved(of, (0, 4), (0, 4), (0, 4)) == 4
    of.apply(beat(0, ONLINE), NOON)
    assert unobserved(of, (2, 2), (0, 2), (0, 2)) == 4
    of.stream_interrupted()
    assert unobserved(of, (0, 1), (0, 1), (0, 1)) == 5


def test_a_worker_that_connects_again_counts_on() -> None:
    """It sends worker-online again in the middle of its run: nothing was lost."""
    of = workers()
    of.apply(beat(0, ONLINE), NOON)
    assert unobserved(of, (4, 4), (0, 4), (0, 4)) == 0
    assert of.apply(beat(4, ONLINE), NOON) is False
    assert unobserved(of, (2, 6), (0, 6), (0, 6)) == 0
    assert unobserved(of, (0, 8), (0, 8), (0, 8)) == 2


def test_another_process_id_is_another_run() -> None:
    """Even if its count is higher than the last one's; tasks started before its first heartbeat were observed."""
    of = workers()
    of.apply(beat(0, ONLINE), NOON)
    assert unobserved(of, (4, 4), (0, 4), (0, 4)) == 0
    for _ in range(3):
        of.started("w1@box")
    for _ in range(3):
        of.apply(beat(10, pid=8), NOON)
    assert of.unobserved == 7


def test_a_run_that_ends_takes_along_what_it_had_buffered() -> None:
    """Killed between heartbeats: its last difference counts when another run begins or it stays silent."""
    successor, silence = workers(), workers()
    for of in (successor, silence):
        of.apply(beat(0, ONLINE), NOON)
        assert unobserved(of, (4, 4), (2, 6), (1, 12)) == 0
    successor.apply(beat(0, ONLINE, pid=8), NOON)
    assert successor.unobserved == 5
    assert unobserved(successor, (0, 0), (0, 0), (0, 0)) == 5
    silence.tick(NOON + 301)
    silence.tick(NOON + 302)
    assert silence.unobserved == 5
    assert [one.unobserved for one in silence.take()[0]] == [5]


def test_the_farewell_of_a_run_that_has_a_successor() -> None:
    """A pod that ends slowly does not mark its replacement as down."""
    of = workers()
    of.apply(beat(5), NOON)
    of.apply(beat(0, ONLINE, pid=8), NOON)
    of.apply(beat(5, OFFLINE), NOON)
    assert of.snapshot()[0].up


def test_without_a_stream_nobody_is_silent() -> None:
    """A broker outage longer than the purge drops no worker, and losses in it are counted afterwards."""
    of = workers()
    of.apply(beat(0, ONLINE), NOON)
    assert unobserved(of, (4, 4), (0, 4), (0, 4)) == 0
    of.stream_interrupted()
    assert of.tick(NOON + 1) == []
    assert unobserved(of, (0, 54), (0, 54), (0, 54)) == 50
    assert of.snapshot()[0].up


def processed(of: Workers) -> int:
    """The count of the only host."""
    return sum(one.processed_before + one.processed for one in of.snapshot())


def test_what_a_host_has_begun_never_falls() -> None:
    """Neither when a worker restarts nor when one is dropped: another on the host takes it over."""
    of = workers()
    for host in ("w1@box", "w2@box"):
        of.apply(beat(0, ONLINE, host), 0)
        for count in (50, 60, 60, 60):
            of.apply(beat(count, host=host), 0)
    assert (processed(of), of.unobserved) == (120, 120)
    of.apply(beat(0, ONLINE, "w2@box"), 1)
    of.apply(beat(5, host="w2@box"), 2)
    assert processed(of) == 125
    for now in range(2, 700, 2):
        of.apply(beat(5, host="w2@box"), now)
        of.tick(now)
    (heir,) = of.snapshot()
    assert (heir.hostname, processed(of)) == ("w2@box", 125)
    assert heir.unobserved == of.unobserved == 125  # its own five, too
    again = workers()
    again.restore(of.take()[0], NOON)
    assert processed(again) == 125


@pytest.mark.parametrize("pids", [(1, 1, 1), (1, 7, 8)], ids=["one process id", "three process ids"])
def test_processes_that_share_a_name(pids: tuple[int, ...]) -> None:
    """Replicas with a fixed node name: nothing counts as lost, and heartbeats do not count as new workers."""
    of = workers()
    arrivals = 0
    shown = []
    for turn in range(60):
        for pid, count in zip(pids, (300, 100, 200), strict=True):
            arrivals += of.apply(beat(count + turn, pid=pid), NOON + 2 * turn)
            shown.append(processed(of))
        of.tick(NOON + 2 * turn)
    assert of.unobserved == 0
    assert arrivals <= len(set(pids))
    assert shown == sorted(shown)
    assert of.snapshot()[0].up


def test_a_run_whose_beginning_was_not_seen() -> None:
    """Ten consecutive heartbeats with a lower count are another run, even without its start."""
    of = workers()
    of.apply(beat(0, ONLINE), NOON)
    assert unobserved(of, (40, 40), (0, 40), (0, 40)) == 0
    for _ in range(11):
        of.apply(beat(7), NOON)
    assert of.snapshot()[0].processed == 7
    assert processed(of) == 47


def test_the_survivor_of_a_shared_name() -> None:
    """When the tracked process sends worker-offline, the other one is the worker."""
    of = workers()
    of.apply(beat(300, pid=7), NOON)
    of.apply(beat(0, ONLINE, pid=8), NOON)
    of.apply(beat(301, pid=7), NOON)
    assert (of.snapshot()[0].pid, of.snapshot()[0].up) == (8, True)
    of.apply(beat(1, OFFLINE, pid=8), NOON)
    assert not of.snapshot()[0].up
    assert of.apply(beat(302, pid=7), NOON)
    assert (of.snapshot()[0].pid, of.snapshot()[0].up) == (7, True)


def test_the_audit_goes_on_after_a_restart_of_the_monitor() -> None:
    """Tasks that the worker ran in between are unobserved."""
    before = workers()
    before.apply(beat(0, ONLINE), NOON)
    unobserved(before, (3, 3), (0, 3), (0, 3))
    stored, _ = before.take()
    after = workers()
    after.restore(stored, NOON + 100)
    assert after.snapshot()[0].up
    assert unobserved(after, (0, 13), (0, 13), (0, 13)) == 10
    assert after.snapshot()[0].unobserved == 10


def test_after_a_long_absence_of_the_monitor_nobody_is_up() -> None:
    """Until the worker sends again."""
    before, after = workers(), workers()
    before.apply(beat(), NOON)
    after.restore(before.take()[0], NOON + 301)
    assert not after.snapshot()[0].up
    assert after.apply(beat(), 1)
    assert after.snapshot()[0].up


def test_comes_and_goes() -> None:
    """New, offline, back: each arrival is reported once."""
    of = workers()
    arrivals = [of.apply(beat(kind=kind), NOON) for kind in (ONLINE, HEARTBEAT, OFFLINE, HEARTBEAT, HEARTBEAT, ONLINE)]
    assert arrivals == [True, False, False, True, False, True]


def test_silence() -> None:
    """Down and idle after the timeout, removed after the purge, back with its next heartbeat."""
    of = workers()
    of.apply(beat(), NOON)
    assert of.tick(NOON + 299) == []
    assert of.snapshot()[0].up
    assert of.tick(NOON + 301) == []
    assert (of.snapshot()[0].up, of.snapshot()[0].active) == (False, 0)
    assert of.tick(NOON + 601) == ["w1@box"]
    assert of.snapshot() == []
    assert of.take()[1] == ["w1@box"]


def test_thousands_of_pods_leave_nothing() -> None:
    """After the purge nothing of them remains."""
    of = workers()
    for number in range(5000):
        of.apply(beat(host=f"w@pod-{number}"), NOON)
    of.take()
    assert len(of.tick(NOON + 601)) == 5000
    of.take()
    assert of.snapshot() == []
    assert of.take() == ([], [])


def test_only_what_changed_is_taken() -> None:
    """A flush without worker events writes no workers."""
    of = workers()
    of.apply(beat(), NOON)
    assert len(of.take()[0]) == 1
    assert of.take() == ([], [])


def test_invented_workers_are_bounded() -> None:
    """A flood of new names uses bounded memory."""
    of = workers()
    for number in range(MAX_WORKERS + 100):
        of.apply(beat(host=f"w@{number}"), NOON)
    assert len(of.snapshot()) == MAX_WORKERS


def test_hostile_values() -> None:
    """An empty hostname is not a worker; texts are shortened."""
    of = workers()
    assert not of.apply(beat(host=""), NOON)
    heartbeat = beat(host="h" * 1000)
    heartbeat.sw_ver = "v" * 1000
    heartbeat.traceback = "t" * 1_000_000
    of.apply(heartbeat, NOON)
    (one,) = of.snapshot()
    assert (len(one.hostname), len(one.sw_ver)) == (255, 64)


ODD = {"newline": "w\n1@box", "NUL": "w\x001@box", "long": "w@" + "h" * 300, "long and wide": "w@" + "\U0001f40d" * 200}


@pytest.mark.parametrize("host", ODD.values(), ids=ODD)
def test_odd_hostnames(host: str) -> None:
    """All events of a worker belong to the same worker, under a name that can be shown."""
    of = workers()
    assert of.apply(beat(0, ONLINE, host=host), NOON)
    assert not of.notice(host, NOON, NOON)
    assert not of.started(host)
    of.apply(beat(1, OFFLINE, host=host), NOON)
    assert len(of.finishing) == 1
    of.finish(host, NOON + 1, started=False)
    assert not of.finishing
    (one,) = of.snapshot()
    assert one.hostname.isprintable()
    assert of.liveness(one.hostname) is not None
    assert (one.up, one.started_seen) == (False, 1)


def test_long_hostnames_that_begin_alike() -> None:
    """They are two workers."""
    of = workers()
    for end in "ab":
        of.apply(beat(host=f"w@{'h' * 300}{end}"), NOON)
    assert len(of.snapshot()) == 2


def test_odd_hostnames_of_earlier_versions() -> None:
    """A worker stored under the event's name continues under the cleaned name."""
    stored, of = workers(), workers()
    stored.apply(beat(5), NOON)
    ((worker,), _) = stored.take()
    of.restore([structs.replace(worker, hostname="w\n1@box")], NOON)
    ((moved,), dropped) = of.take()
    assert (moved.hostname, moved.processed, dropped) == ("w\ufffd1@box", 5, ["w\n1@box"])
    assert not of.apply(beat(6, host="w\n1@box"), NOON)


def test_what_is_kept_of_a_heartbeat() -> None:
    """Only shown fields are kept: megabytes of other fields use no memory."""
    of = workers()
    tracemalloc.start()
    for number in range(100):
        of.apply(structs.replace(beat(host=f"w@{number}"), traceback=f"{number}" * 100_000), NOON)
    allocated, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert allocated / 100 < 5_000


def test_memory_of_a_worker() -> None:
    """About 900 bytes per worker with Python 3.11, including its newest heartbeats."""
    of, number = workers(), 500
    of.apply(beat(), NOON)
    tracemalloc.start()
    for heartbeat in range(4):
        for worker in range(number):
            of.apply(beat(heartbeat, host=f"w@{worker}"), NOON + 2.0 * heartbeat)
    allocated, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert allocated / number < 2_000
