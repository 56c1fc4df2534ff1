"""Source, monitor, commit, acknowledge: no message is acknowledged before its commit, or counted twice."""

import json
import threading
from collections.abc import Callable
from functools import partial

import pytest

from celery_monitor.core.model import FAILED, Incident, OutboxRequest, Restored
from celery_monitor.core.monitor import PROBE, Limits, Monitor
from celery_monitor.core.rules import Policy, Rule
from celery_monitor.errors import SourceLostError, StoreUnavailableError, StoreUnusableError
from celery_monitor.runtime import flusher
from celery_monitor.runtime.flusher import MAX_UNCOMMITTED, PAGE_FLUSH_DELAY, Flusher
from celery_monitor.runtime.priority import MAX_FLUSH_DELAY, ScrapePriority
from celery_monitor.runtime.prober import Prober
from celery_monitor.runtime.pump import Pump
from celery_monitor.runtime.read_pacing import BATCH, READ_INTERVAL
from celery_monitor.runtime.stream import Stream
from tests.builders import NOON, life
from tests.fakes import FakeMarks, FakeSource, InlineCommitter, ManualClock, MemoryStore

PAGING = Policy(default=Rule(to=("oncall",)))


class Echo:
    """A Probe whose events go to a FakeSource, unless it is mute."""

    def __init__(self, source: FakeSource) -> None:
        self.source, self.unresponsive = source, False
        self.error: SourceLostError | None = None

    def send(self, sent: bytes, timeout: float) -> None:
        """Publish."""
        del timeout
        if self.error is not None:
            raise self.error
        if not self.unresponsive:
            self.source.publish(sent)

    def close(self) -> None:
        """Nothing to do."""


class Bench:
    """A pump with fakes, driven step by step: each poll of the source advances the clock by its timeout."""

    def __init__(
        self, *, acknowledges: bool = True, prefetch: int = 100, hand_over: Callable[[str], None] | None = None
    ) -> None:
        self.hand_over = hand_over
        self.clock = ManualClock(time=NOON)
        self.source = FakeSource(acknowledges=acknowledges, prefetch=prefetch, clock=self.clock)
        self.store = MemoryStore()
        self.probe = Echo(self.source)
        self.marks = FakeMarks()
        self.told: list[str] = []
        self.priority = ScrapePriority(self.clock)
        self.uncommitted: list[list[tuple[OutboxRequest, Incident]]] = []
        self.start()

    def start(self) -> None:
        """A new process."""
        restored = self.store.start()
        self.monitor = Monitor(Limits(prefetch=self.source.prefetch, policy=PAGING), restored, self.clock.now())
        self.prober = Prober(self.probe, self.clock, 5.0)
        self.committer = InlineCommitter(self.store, self.clock, self.priority)
        shared = self.monitor, threading.Lock(), self.clock
        self.stream = Stream(
            self.source,
            *shared,
            prober=self.prober,
            prefetch=self.source.prefetch,
            alive_at=restored.counters.get("alive_at"),
            opened=lambda: self.told.append("opened"),
        )
        self.flusher = Flusher(
            self.stream,
            self.committer,
            *shared,
            priority=self.priority,
            flush_interval=0.5,
            prefetch=self.source.prefetch,
            uncommitted=self.uncommitted.append,
        )
        self.pump = Pump(
            self.stream,
            self.flusher,
            *shared,
            marks=self.marks,
            prefetch=self.source.prefetch,
            arrived=lambda _: self.told.append("arrived"),
            hand_over=self.hand_over,
        )

    def kill(self) -> None:
        """The process dies and its connection breaks."""
        self.source.abandon()
        self.store.stop()

    def run(self, until: Callable[[], bool], turns: int = 2000) -> None:
        """Run the pump until a condition holds; fails if it never does."""
        stop = _After(lambda: until() or self._count(turns), self.clock)
        self._turns = 0
        while not stop.is_set():
            self.pump.run_once(stop)
        assert until()

    def _count(self, turns: int) -> bool:
        self._turns += 1
        return self._turns > turns

    def committed_since(self, commits: int) -> bool:
        """Whether there were more commits."""
        return len(self.store.commits) > commits

    def reached(self, mono: float) -> bool:
        """Whether this time has come."""
        return self.clock.monotonic() >= mono

    def heartbeat(self, turns: int) -> bool:
        """Whether the current run has had this many turns."""
        return self._turns > turns

    def count_first(self) -> None:
        """Publish a message, which does not wait for the flush interval."""
        self.source.publish(*life("first"))
        self.run(lambda: any(one.series for one in self.store.commits) and not self.committer.waiting)

    def succeeded(self) -> int:
        """The monitor's count."""
        return sum(series.counts[3] for series in self.monitor.snapshot().series)


class _After(threading.Event):
    """A stop event that is set when a condition holds; waiting for it advances the clock."""

    def __init__(self, condition: Callable[[], bool], clock: ManualClock) -> None:
        super().__init__()
        self._condition = condition
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        """Advance the clock."""
        self._clock.advance(timeout or 0.0)
        return self.is_set()

    def is_set(self) -> bool:
        """Evaluate the condition."""
        return self._condition()


def test_acks_after_the_commit() -> None:
    """All published messages are committed, then acknowledged."""
    on = Bench()
    on.source.publish(*life("u1"), *life("u2"))
    on.run(lambda: on.source.waiting == 0 and on.source.connections == 1)
    assert on.succeeded() == 2
    assert sum(len(one.fingerprints) for one in on.store.commits) == 8 * 8


def test_the_first_messages_do_not_wait_for_the_flush_interval() -> None:
    """A new leader thus shows that it counts; later messages wait as usual."""
    on = Bench()
    on.run(lambda: on.stream.stats.connected and on.clock.monotonic() > 3.0)
    took = []
    for uuid in ("u1", "u2"):
        began, commits = on.flusher._flush_at, len(on.store.commits)
        on.run(partial(on.reached, began + 0.01))  # a flush of nothing was just due
        began = on.clock.monotonic()
        on.source.publish(*life(uuid))
        on.run(partial(on.committed_since, commits))
        took.append(on.clock.monotonic() - began)
    assert took[0] <= PAGE_FLUSH_DELAY + 0.01 < 0.2 < took[1]


def test_a_page_does_not_wait_for_the_flush_interval() -> None:
    """A paging failure is committed immediately, with other failures of that moment; the rest waits."""
    on = Bench()
    on.count_first()
    took = {}
    for end in ("succeeded", "failed"):
        began, commits = on.clock.monotonic(), len(on.store.commits)
        for number in range(3):
            for message in life(f"{end}{number}", f"shop.{end}{number}", end=end, exception="ValueError('no')"):
                on.source.publish(message)
        on.run(partial(on.committed_since, commits))
        took[end] = on.clock.monotonic() - began
    assert took["failed"] <= PAGE_FLUSH_DELAY + 0.01 < 0.2 < took["succeeded"]
    assert len(on.store.commits[-1].outbox) == 3


def test_a_flush_gives_way_to_a_scrape_for_a_moment_only() -> None:
    """It waits until the scrape is over, at most MAX_FLUSH_DELAY."""
    on = Bench()
    on.count_first()
    for endless in (False, True):
        on.source.publish(*life(f"u{endless}"))
        commits, due = len(on.store.commits), on.flusher._flush_at
        with on.priority.scrape():
            on.run(partial(on.committed_since, commits) if endless else partial(on.reached, due + MAX_FLUSH_DELAY / 2))
            assert on.committed_since(commits) == endless
        on.run(partial(on.committed_since, commits))
        assert on.clock.monotonic() == pytest.approx(due + MAX_FLUSH_DELAY * (1 if endless else 0.5), abs=0.01)


def test_the_store_away() -> None:
    """Nothing is acknowledged until it is back; nothing is lost or counted twice; the prefetch limits delivery."""
    on = Bench(prefetch=100)
    on.store.failures.extend(StoreUnavailableError("disk full") for _ in range(5))
    on.source.publish(*(message for number in range(100) for message in life(f"u{number}")))
    on.run(lambda: on.committer.stats.error is not None)
    assert on.source.acked == []
    assert on.stream.stats.unacked <= 100
    on.run(lambda: on.source.waiting == 0)
    assert on.succeeded() == 100
    assert on.committer.stats.error is None
    assert on.committer.stats.failures == 5


def test_pages_while_the_store_is_away() -> None:
    """Pages of waiting flushes and later ones are offered, after a moment."""
    on = Bench()
    on.store.failures.extend(StoreUnavailableError("disk full") for _ in range(9))
    on.source.publish(*life("u1", "shop.first", end="failed"))
    on.run(lambda: on.committer.stats.error is not None)
    assert on.uncommitted == []
    on.source.publish(*life("u2", "shop.second", end="failed"))
    on.run(lambda: on.committer.stats.failures >= 8)
    assert {incident.task for _, incident in on.uncommitted[-1]} == {"shop.first", "shop.second"}
    on.run(lambda: on.source.waiting == 0)
    offered = len(on.uncommitted)
    on.source.publish(*life("u3", "shop.third", end="failed"))
    on.run(lambda: on.source.waiting == 0)
    assert len(on.uncommitted) == offered


def test_a_lost_answer_of_the_store() -> None:
    """The same flush is written again without effect."""
    on = Bench()
    on.store.lost_answers.append(StoreUnavailableError("no answer"))
    on.source.publish(*life("u1"))
    on.run(lambda: on.source.waiting == 0 and bool(on.source.acked))
    assert len([one for one in on.store.commits if one.series]) == 1


def test_another_writer_ends_it() -> None:
    """Two monitors on one store would both be wrong."""
    on = Bench()
    on.store.failures.append(StoreUnusableError("another writer has used the store"))
    on.source.publish(*life("u1"))
    with pytest.raises(StoreUnusableError):
        on.run(lambda: False)


def test_connection_lost_with_changes_pending() -> None:
    """Applied but unwritten messages are redelivered and recognised."""
    on = Bench()
    on.store.failures.extend(StoreUnavailableError("disk full") for _ in range(3))
    on.source.publish(*life("u1"))
    on.run(lambda: on.succeeded() == 1)
    on.source.lose()
    on.run(lambda: on.source.waiting == 0 and on.source.connections == 2)
    assert on.succeeded() == 1
    assert on.monitor.snapshot().counters["reconnects"] == 1


@pytest.mark.parametrize("silent", [0.0, 7.0])
def test_a_stream_that_another_process_keeps_is_handed_over(silent: float) -> None:
    """What was applied is committed first, so that the other one goes on from it; and no gap is counted.

    Neither when the loss is noticed late, and it is time for a tick and a flush.
    """
    reasons: list[str] = []
    on = Bench(acknowledges=False, hand_over=reasons.append)
    on.run(lambda: on.stream.stats.connected)
    on.source.publish(*life("u1"))
    on.run(lambda: on.succeeded() == 1)
    on.source.lose()
    on.clock.advance(silent)
    on.run(lambda: bool(reasons))
    restored = on.store.start()
    assert sum(series.counts[3] for series in restored.series) == 1
    assert restored.counters.get("stream_gap_seconds", 0.0) == 0.0
    assert on.source.connections == 1


@pytest.mark.parametrize("acknowledges", [True, False])
def test_flapping_while_the_store_is_away(*, acknowledges: bool) -> None:
    """The waiting changes are bounded, however often the connection breaks, and none are lost."""
    on, lives = Bench(acknowledges=acknowledges, prefetch=1000), 4 * MAX_UNCOMMITTED
    on.store.failures.extend(StoreUnavailableError("disk full") for _ in range(100_000))
    for number in range(lives):
        on.run(lambda: on.stream.stats.connected or on.committer.waiting >= MAX_UNCOMMITTED)
        on.source.publish(*life(f"u{number}"))
        on.run(partial(on.heartbeat, 5))
        on.source.lose()
        on.run(partial(on.heartbeat, 1))
    assert on.committer.waiting == (MAX_UNCOMMITTED if acknowledges else 1)
    assert acknowledges or on.succeeded() == lives
    on.store.failures.clear()
    on.run(lambda: on.source.waiting == 0 and on.stream.stats.connected and not on.committer.waiting)
    on.run(partial(on.committed_since, len(on.store.commits)))
    assert on.succeeded() == lives
    assert sum(series.counts[3] for series in on.store.start().series) == lives


def test_large_changes_that_wait_for_the_store_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their size is limited, not only their number."""
    monkeypatch.setattr(flusher, "MAX_UNCOMMITTED_BYTES", 50_000)
    on = Bench(acknowledges=True, prefetch=1000)
    on.store.failures.extend(StoreUnavailableError("disk full") for _ in range(100_000))
    for number in range(10):
        on.run(lambda: on.stream.stats.connected or on.committer.waiting_bytes >= 50_000)
        on.source.publish(*life(f"u{number}", end="failed", exception="E()", traceback="x" * 15_000))
        on.run(partial(on.heartbeat, 5))
        on.source.lose()
        on.run(partial(on.heartbeat, 1))
    assert on.committer.waiting < 5
    assert 50_000 <= on.committer.waiting_bytes < 100_000
    on.store.failures.clear()
    on.run(lambda: on.source.waiting == 0 and on.stream.stats.connected and not on.committer.waiting)
    on.run(partial(on.committed_since, len(on.store.commits)))
    assert sum(series.counts[FAILED] for series in on.store.start().series) == 10


@pytest.mark.parametrize("written", [True, False])
def test_killed(*, written: bool) -> None:
    """Killed before or after the commit, but before the acknowledgement: the totals are equal."""
    on = Bench()
    on.source.publish(*life("u1"))
    if written:
        ack, on.source.ack = on.source.ack, lambda tag: None  # type: ignore[method-assign]
        on.run(lambda: any(one.series for one in on.store.commits))
        on.source.ack = ack  # type: ignore[method-assign]
    else:
        on.run(lambda: on.succeeded() == 1)
    on.kill()
    on.start()
    on.run(lambda: on.source.waiting == 0)
    assert on.succeeded() == 1


def test_reconnects_for_ever() -> None:
    """It reports the reason and keeps ticking."""
    on = Bench()
    on.source.refusals.extend(SourceLostError("no route", "check broker.url") for _ in range(30))
    on.run(lambda: on.stream.stats.error is not None)
    assert on.stream.stats.error == "no route: check broker.url"
    for _ in range(40):
        on.clock.advance(31)
        on.pump.run_once(threading.Event())
    assert on.stream.stats.connected
    assert on.stream.stats.error is None


def test_a_silent_stream_is_lost() -> None:
    """Without a probe or another message, it reconnects within three intervals."""
    on = Bench()
    on.run(lambda: on.stream.stats.connected)
    on.probe.unresponsive = True
    on.prober.probe()
    began = on.clock.monotonic()
    on.run(lambda: on.source.connections == 2)
    assert 5.0 < on.clock.monotonic() - began < 15.0


def test_a_stream_that_is_opened_again_after_silence_is_not_well_before_something_came() -> None:
    """With an exchange that delivers nothing, each new connection looks healthy, and /readyz would stay 200."""
    on = Bench()
    on.run(lambda: on.stream.stats.connected)
    on.probe.unresponsive = True
    for connections in (2, 3):
        on.prober.probe()
        while not (on.source.connections == connections and on.stream.stats.connected):
            on.clock.advance(1.0)
            on.pump.run_once(threading.Event())
        assert "compare broker.exchange" in (on.prober.trouble(on.stream.last_received_at) or "")
    on.source.publish(*life("u1"))
    on.run(lambda: on.source.waiting == 0)
    assert on.prober.trouble(on.stream.last_received_at) is None


def test_a_stream_that_falls_silent_in_the_middle_of_a_round_trip() -> None:
    """The last message came after the probe was sent: the next probe shows that nothing arrives any more."""
    on = Bench()
    on.run(lambda: on.stream.stats.connected)
    on.probe.unresponsive = True
    on.prober.probe()
    on.clock.advance(0.01)
    on.source.publish(*life("u1"))
    on.run(lambda: on.source.waiting == 0)
    began = on.clock.monotonic()
    on.run(lambda: on.clock.monotonic() - began >= 5.0)
    on.prober.probe()
    on.run(lambda: on.source.connections == 2)
    assert on.clock.monotonic() - began < 15.0


@pytest.mark.parametrize("probed", ["before", "after"])
@pytest.mark.parametrize("stall", [10.0, 30.0, 3600.0])
def test_a_stall_of_this_process_is_no_silence_of_the_stream(stall: float, probed: str) -> None:
    """The process was suspended after a probe was sent, and messages have not been read yet."""
    on = Bench(acknowledges=False)
    on.run(lambda: on.stream.stats.connected)
    on.probe.unresponsive = True
    if probed == "before":
        on.prober.probe()
    on.clock.advance(0.1)
    on.pump.run_once(threading.Event())
    on.clock.advance(stall)
    if probed == "after":
        on.prober.probe()
    on.pump.run_once(threading.Event())
    resumed = on.clock.monotonic()
    on.run(lambda: on.clock.monotonic() - resumed >= 5.0)
    assert on.source.connections == 1
    assert on.prober.trouble(on.stream.last_received_at) is None
    # It goes on, and nothing comes: that is silence.
    on.run(lambda: on.source.connections == 2)
    assert on.clock.monotonic() - resumed < 15.0


def test_a_process_that_stands_still_again_and_again_notices_silence_all_the_same() -> None:
    """Each read counts as at most one second, and enough of them are silence."""
    on = Bench(acknowledges=False)
    on.run(lambda: on.stream.stats.connected)
    on.probe.unresponsive = True
    on.prober.probe()
    for _ in range(20):
        on.clock.advance(30.0)
        on.pump.run_once(threading.Event())
    assert on.source.connections == 2


def test_a_prefetch_that_is_used_up_is_no_silence() -> None:
    """The store was unavailable for a minute, and the broker could not deliver: no reason to reconnect."""
    on = Bench(prefetch=100)
    on.run(lambda: on.stream.stats.connected)
    on.store.failures.extend(StoreUnavailableError("disk full") for _ in range(20))
    on.source.publish(*(message for number in range(100) for message in life(f"u{number}")))
    on.run(lambda: on.stream.stats.unacked == 100)
    for _ in range(6):
        on.prober.probe()
        on.clock.advance(10.0)
        on.pump.run_once(threading.Event())
        assert on.prober.trouble(on.stream.last_received_at) is None
    on.run(lambda: on.source.waiting == 0)
    assert on.source.connections == 1


def test_while_nothing_can_be_delivered_nobody_is_silent() -> None:
    """The store is unavailable for longer than the purge: workers stay up, and losses are counted."""
    on = Bench(prefetch=10)
    beats = [
        json.dumps({"type": kind, "timestamp": NOON, "hostname": "w@box", "processed": processed, "pid": 7}).encode()
        for kind, processed in [("worker-online", 0), *[("worker-heartbeat", 0)] * 2, *[("worker-heartbeat", 50)] * 3]
    ]
    on.source.publish(*beats[:3])
    on.run(lambda: on.source.waiting == 0 and on.source.connections == 1)
    on.store.failures.extend(StoreUnavailableError("disk full") for _ in range(300))
    on.source.publish(*life("u1"), *life("u2"), *life("u3"))
    on.run(lambda: on.stream.stats.unacked == 10)
    began = on.clock.monotonic()
    on.run(lambda: on.clock.monotonic() - began > 900, turns=10_000)
    (worker,) = on.monitor.snapshot().workers
    assert worker.up
    assert on.stream.stats.live
    on.run(lambda: on.source.waiting == 0, turns=10_000)
    on.source.publish(*beats[3:])
    on.run(lambda: on.source.waiting == 0)
    (worker,) = on.monitor.snapshot().workers
    assert (worker.up, worker.unobserved) == (True, 50)


def test_a_stream_that_brings_nothing_is_not_live() -> None:
    """However often it is reopened, it does not count as live until a message arrives."""
    on = Bench()
    on.probe.unresponsive = True
    states = set()
    while on.source.connections < 20:
        on.pump.run_once(threading.Event())
        if on.stream.stats.connected:
            on.prober.probe()
        states.add(on.stream.stats.live)
    assert states == {False}
    on.probe.unresponsive = False
    on.run(lambda: on.stream.stats.connected)
    on.prober.probe()
    on.run(lambda: on.stream.stats.live)


def test_where_no_probe_may_be_sent_an_open_stream_is_live() -> None:
    """A fleet may send nothing for long; its workers are then silent."""
    on = Bench()
    on.probe.error = SourceLostError("refused", "grant write")
    heartbeat = {"type": "worker-heartbeat", "timestamp": NOON, "hostname": "w@box", "pid": 7}
    on.source.publish(json.dumps(heartbeat).encode())
    on.run(lambda: on.stream.stats.live)
    on.prober.probe()
    on.source.lose()
    on.run(lambda: not on.stream.stats.connected)
    assert not on.stream.stats.live
    on.run(lambda: on.stream.stats.live)
    began = on.clock.monotonic()
    on.run(lambda: on.clock.monotonic() - began > 310, turns=10_000)
    assert [one.up for one in on.monitor.snapshot().workers] == [False]


def test_a_stream_that_lags_is_not_silent() -> None:
    """Messages arrive before the probe: no reason to reconnect."""
    on = Bench()
    on.run(lambda: on.stream.stats.connected)
    on.probe.unresponsive = True
    on.prober.probe()
    for number in range(30):
        on.source.publish(*life(f"u{number}"))
        on.run(lambda: on.source.waiting == 0)
        on.clock.advance(1)
    assert on.source.connections == 1


def test_a_probe_that_comes_back() -> None:
    """Its round trip is measured; probes of other monitors are ignored."""
    on = Bench()
    on.run(lambda: on.stream.stats.connected)
    other = {"type": PROBE, "timestamp": NOON, "probe_instance": on.prober.instance + 1, "probe_number": 1}
    on.source.publish(json.dumps(other).encode())
    on.run(lambda: on.source.waiting == 0)
    assert on.prober.roundtrip is None
    on.prober.probe()
    on.clock.advance(0.2)
    on.run(lambda: on.prober.roundtrip is not None)
    assert on.prober.roundtrip == pytest.approx(0.2)
    assert on.prober.overdue(0.0) is None


def test_probes_that_may_not_be_sent_prove_nothing() -> None:
    """Without permission to publish, the stream does not count as silent."""
    on = Bench()
    on.run(lambda: on.stream.stats.connected)
    on.probe.error = SourceLostError("refused", "grant write")
    on.prober.probe()
    on.clock.advance(100)
    assert on.prober.overdue(0.0) is None
    assert on.prober.trouble(0.0) == "cannot send probes: refused: grant write"


@pytest.mark.parametrize(("acknowledges", "gap"), [(True, 0.0), (False, 90.0)])
def test_gaps(*, acknowledges: bool, gap: float) -> None:
    """If the broker keeps nothing, the time without a stream is a gap, also across a restart."""
    on = Bench(acknowledges=acknowledges)
    on.source.publish(*life("u1"))
    on.run(lambda: on.stream.stats.connected)
    on.prober.probe()
    on.run(lambda: on.prober.roundtrip is not None)
    on.source.refusals.append(SourceLostError("down"))
    on.source.lose()
    on.run(lambda: on.stream.stats.error is not None)
    on.clock.advance(90)
    on.run(lambda: on.stream.stats.connected)
    assert on.monitor.snapshot().counters.get("stream_gap_seconds", 0.0) == pytest.approx(gap, abs=1.5)


def test_a_queue_that_was_deleted_is_a_gap() -> None:
    """Events since the last read one are lost with a deleted queue."""
    on = Bench()
    on.source.queue_created = True  # the first start: there is nothing that could be lost
    on.source.publish(*life("u1"))
    on.run(lambda: on.stream.stats.live)
    assert "stream_gap_seconds" not in on.monitor.snapshot().counters
    on.source.refusals.append(SourceLostError("down"))
    on.source.lose("the broker cancelled the consumer")
    on.run(lambda: on.stream.stats.error is not None)
    on.clock.advance(90)
    on.run(lambda: on.stream.stats.connected)
    assert on.monitor.snapshot().counters["stream_gap_seconds"] == pytest.approx(90, abs=1.5)


def test_a_gap_over_a_restart() -> None:
    """It counts from the last stored sign of life."""
    on = Bench(acknowledges=False)
    on.run(lambda: len(on.store.commits) > 2)
    on.kill()
    on.clock.advance(300)
    on.start()
    on.run(lambda: on.stream.stats.connected)
    assert on.monitor.snapshot().counters["stream_gap_seconds"] == pytest.approx(300, abs=11)


def test_a_gap_over_a_restart_while_disconnected() -> None:
    """It includes the time without a stream before the restart."""
    on = Bench(acknowledges=False)
    on.run(lambda: on.stream.stats.connected)
    on.source.refusals.extend(SourceLostError("down") for _ in range(1000))
    on.source.lose()
    began = on.clock.now()
    on.run(lambda: on.clock.now() - began > 90)
    on.kill()
    on.clock.advance(30)
    on.source.refusals.clear()
    on.start()
    on.run(lambda: on.stream.stats.connected)
    assert on.monitor.snapshot().counters["stream_gap_seconds"] == pytest.approx(120, abs=2)


def test_connections_that_break_at_once_are_no_reason_to_hurry() -> None:
    """A broker that drops each connection at once gets few of them; after a stable one, it reconnects quickly."""
    on = Bench()
    on.run(lambda: on.stream.stats.connected)
    began = on.clock.monotonic()
    for _ in range(100):
        on.run(lambda: on.stream.stats.connected)
        on.source.lose()
        on.run(lambda: not on.stream.stats.connected)
    assert on.clock.monotonic() - began > 100
    on.run(lambda: on.stream.stats.connected)
    on.clock.advance(10)
    on.source.lose()
    on.run(lambda: not on.stream.stats.connected)
    began = on.clock.monotonic()
    on.run(lambda: on.stream.stats.connected)
    assert on.clock.monotonic() - began == 0.0


def test_the_end_commits_and_acknowledges() -> None:
    """Applied messages are written and acknowledged before the connection closes."""
    on = Bench()
    on.source.publish(*life("u1"))
    on.run(lambda: on.succeeded() == 1)
    stop = threading.Event()
    stop.set()
    on.pump.run(stop, lambda: None)
    assert (on.source.waiting, on.source.closed) == (0, 1)


def test_a_slow_stream_is_read_now_and_then() -> None:
    """Between reads with few messages, messages accumulate; a fast stream is read immediately."""
    on = Bench(prefetch=4000)
    on.run(lambda: on.stream.stats.connected)
    began = on.clock.monotonic()
    for number in range(10):
        on.source.publish(*life(f"slow{number}"))
        on.run(lambda wanted=number + 1: on.succeeded() == wanted)  # type: ignore[misc]
    assert on.clock.monotonic() - began > 8 * READ_INTERVAL
    began = on.clock.monotonic()
    for number in range(10):
        on.source.publish(*(body for one in range(BATCH) for body in life(f"fast{number}-{one}")))
        on.run(lambda wanted=10 + (number + 1) * BATCH: on.succeeded() == wanted)  # type: ignore[misc]
    assert round(on.clock.monotonic() - began, 6) <= READ_INTERVAL


def test_a_small_read_does_not_slow_down_a_backlog() -> None:
    """After an acknowledgement, a read may return only the first messages that the broker sends."""
    on = Bench(prefetch=4000)
    on.count_first()
    total = on.succeeded()
    began = on.clock.monotonic()
    for number in range(20):
        for size in (5 * BATCH, 1):
            on.source.publish(*(body for one in range(size) for body in life(f"{number}-{size}-{one}")))
            total += size
            on.run(lambda wanted=total: on.succeeded() == wanted)  # type: ignore[misc]
    assert on.clock.monotonic() - began < 20 * READ_INTERVAL / 5


def test_who_is_told() -> None:
    """When the stream opens, tasks are queried; when a worker arrives, its events are enabled."""
    on = Bench()
    on.run(lambda: on.stream.stats.connected)
    on.source.publish(
        json.dumps({"type": "worker-online", "hostname": "w@h", "timestamp": NOON, "processed": 0}).encode()
    )
    on.run(lambda: "arrived" in on.told)
    assert on.told == ["opened", "arrived"]


def test_restored_is_empty_at_first() -> None:
    """A new store counts from zero."""
    assert Bench().store.start() == Restored(
        series=[], tracked=[], unnamed=[], workers=[], incidents=[], fingerprints=[]
    )


def test_standing_by() -> None:
    """While another monitor is consuming, silence is no reason to reconnect; the first message ends this state."""
    on = Bench()
    on.probe.unresponsive = True
    on.source.standby = "another monitor"
    on.run(lambda: on.stream.stats.connected)
    for _ in range(6):
        on.prober.probe()
        on.clock.advance(10.0)
        on.pump.run_once(threading.Event())
        assert on.prober.trouble(on.stream.last_received_at) is None
    assert (on.source.connections, on.stream.stats.connected, on.stream.stats.live) == (1, True, False)
    assert on.stream.stats.standby == "another monitor"
    on.source.standby = None
    on.source.publish(*life("u1"))
    on.run(lambda: on.stream.stats.live)
    assert on.stream.stats.standby is None
