"""Commits of flushes: in order, with retries, and while the pump reads."""

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from celery_monitor.adapters.clock import SystemClock
from celery_monitor.core.model import Changes
from celery_monitor.core.monitor import Limits, Monitor
from celery_monitor.errors import StoreUnavailableError, StoreUnusableError
from celery_monitor.runtime.committer import Committer, PendingFlush
from celery_monitor.runtime.flusher import Flusher
from celery_monitor.runtime.priority import MAX_COMMIT_DELAY, ScrapePriority
from celery_monitor.runtime.pump import Pump
from celery_monitor.runtime.stream import Stream
from tests.builders import life
from tests.fakes import FakeMarks, FakeSource, InlineCommitter, ManualClock, MemoryStore
from tests.servers import wait_until


class SlowStore(MemoryStore):
    """A store whose commits wait until the test releases them."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.begun = threading.Event()

    def commit(self, changes: Changes) -> None:
        self.begun.set()
        assert self.go_on.wait(60)
        super().commit(changes)


@contextmanager
def running(committer: Committer) -> Iterator[None]:
    """The committer's thread; it is stopped at the end."""
    thread = threading.Thread(target=committer.run, args=(threading.Event(), lambda: None))
    thread.start()
    try:
        yield
    finally:
        committer.close()
        thread.join(60)
        assert not thread.is_alive()


def flush(sequence: int) -> PendingFlush:
    """An empty flush."""
    return PendingFlush(Changes(now=0.0, sequence=sequence), tag=sequence, connection=1)


def test_reading_goes_on_while_a_commit_is_under_way() -> None:
    """Messages are applied meanwhile and acknowledged in their turn; each counts once."""
    store, clock = SlowStore(), SystemClock()
    source = FakeSource(prefetch=100)
    restored = store.start()
    monitor = Monitor(Limits(), restored, clock.now())
    priority, stop = ScrapePriority(clock), threading.Event()
    committer = Committer(store, clock, priority)
    shared = monitor, threading.Lock(), clock
    stream = Stream(source, *shared, prober=None, prefetch=source.prefetch)
    flusher = Flusher(stream, committer, *shared, priority=priority, flush_interval=0.01, prefetch=source.prefetch)
    pump = Pump(stream, flusher, *shared, marks=FakeMarks(), prefetch=source.prefetch)
    with running(committer):
        thread = threading.Thread(target=pump.run, args=(stop, lambda: None))
        thread.start()
        source.publish(*life("u1"))
        wait_until(store.begun.is_set, what="a commit under way")
        source.publish(*life("u2"))
        wait_until(lambda: stream.stats.unacked == 8, what="the second task's messages")
        assert (store.commits, source.acked) == ([], [])
        store.go_on.set()
        wait_until(lambda: source.waiting == 0, what="the acknowledgements")
        stop.set()
        thread.join(60)
    assert len(source.acked) == 8
    assert sum(len(one.fingerprints) for one in store.commits) == 8 * 8
    assert [series.counts[3] for series in monitor.snapshot().series] == [2]


def test_what_cannot_be_written_holds_up_what_comes_after_it() -> None:
    """The order is preserved, and no flush is given up."""
    store = MemoryStore()
    store.start()
    store.failures.extend(StoreUnavailableError("disk full") for _ in range(2))
    committer = Committer(store, SystemClock(), ScrapePriority(SystemClock()))
    with running(committer):
        for sequence in (1, 2, 3):
            committer.add(flush(sequence))
        written = committer.finish(SystemClock().monotonic() + 60)
    assert [one.tag for one in written] == [1, 2, 3]
    assert [one.sequence for one in store.commits] == [1, 2, 3]
    assert (committer.stats.failures, committer.stats.error, sum(committer.stats.counts)) == (2, None, 3)


def test_another_writer_is_the_pumps_error() -> None:
    """An error that ends the monitor is raised when the pump asks."""
    store = MemoryStore()
    store.start()
    store.failures.append(StoreUnusableError("another monitor"))
    committer = Committer(store, SystemClock(), ScrapePriority(SystemClock()))
    with running(committer):
        committer.add(flush(1))
        with pytest.raises(StoreUnusableError, match="another monitor"):
            committer.run_once(60)


def test_what_is_committed_is_known_though_the_pump_hangs() -> None:
    """Its pages are sent even if the pump does not ask for seconds; uncommitted changes stay unknown."""
    store, known = MemoryStore(), queue.SimpleQueue[int]()
    store.start()
    store.failures.append(StoreUnavailableError("disk full"))
    clock = SystemClock()
    committer = Committer(store, clock, ScrapePriority(clock), lambda changes: known.put(changes.sequence))
    with running(committer):
        committer.add(flush(1))
        committer.run_once(60)
        assert (store.commits, known.empty()) == ([], True)
        committer._try_at = 0.0
        committer.run_once()
        assert known.get(timeout=60) == 1


def test_a_commit_takes_as_long_as_the_store_does() -> None:
    """The duration does not include the time until the pump asks, which reads a slow stream meanwhile."""
    clock = ManualClock()

    class Store(MemoryStore):
        def commit(self, changes: Changes) -> None:
            clock.advance(0.004)
            super().commit(changes)

    class Committed(InlineCommitter):
        def _submit(self, changes: Changes) -> Future[float]:
            done = super()._submit(changes)
            clock.advance(0.2)
            return done

    store = Store()
    store.start()
    committer = Committed(store, clock, ScrapePriority(clock))
    committer.add(flush(1))
    committer.run_once()
    assert committer.stats.sum == pytest.approx(0.004)


def test_the_end_waits_for_a_commit_under_way_and_no_longer() -> None:
    """A store that does not answer delays the end only until the given time."""
    store, clock = SlowStore(), SystemClock()
    store.start()
    committer = Committer(store, clock, ScrapePriority(clock))
    with running(committer):
        committer.add(flush(1))
        assert committer.finish(clock.monotonic() + 0.2) == []
        assert committer.waiting
        store.go_on.set()
        assert [one.tag for one in committer.finish(clock.monotonic() + 60)] == [1]


def test_a_commit_lets_others_go_first_for_so_long_only() -> None:
    """Measured from the start of each commit: endless scrapes do not block the store."""
    clock = ManualClock()
    seen: list[float] = []
    priority = ScrapePriority(clock)

    class Store(MemoryStore):
        def commit(self, changes: Changes) -> None:
            for _ in range(4):
                seen.append(round(priority.commit_delay, 3))
                clock.advance(MAX_COMMIT_DELAY / 2)
            super().commit(changes)

    store = Store()
    store.start()
    committer = InlineCommitter(store, clock, priority)
    assert priority.commit_delay == 0
    for sequence in (1, 2):
        committer.add(flush(sequence))
        committer.run_once()
    assert seen == [MAX_COMMIT_DELAY, MAX_COMMIT_DELAY / 2, 0, 0] * 2
