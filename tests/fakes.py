"""In-memory implementations of the ports, driven by the test. They wait no longer than specified."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import msgspec

from celery_monitor.core.model import Changes, Delivery, Incident, IncidentState, Restored, Series, TaskRef
from celery_monitor.errors import MonitorError, SourceLostError, StoreUnavailableError, StoreUnusableError
from celery_monitor.ports import Batch, LeaseState, StoreSpace
from celery_monitor.runtime.committer import Committer


@dataclass
class ManualClock:
    """A Clock that stands still until the test moves it."""

    time: float = 1_700_000_000.0
    ticks: float = 1_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.ticks

    def advance(self, seconds: float) -> None:
        """Advance both clocks."""
        self.time += seconds
        self.ticks += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock; monotonic time does not change."""
        self.time += seconds


@dataclass
class FakeSource:
    """An EventSource with a broker's memory: what is not acknowledged comes again on the next connection.

    ``publish`` gives it messages, ``lose`` cuts the connection, ``refusals`` are raised by the next calls of
    ``connect``. With a ``clock``, an empty poll advances it by its timeout instead of waiting.
    """

    acknowledges: bool = True
    prefetch: int = 4000
    clock: ManualClock | None = None
    standby: str | None = None
    queue_created: bool = False
    refusals: deque[SourceLostError] = field(default_factory=deque)
    connections: int = 0
    """How often ``connect`` succeeded."""
    acked: list[Delivery] = field(default_factory=list)
    """Everything that the broker has forgotten because it was acknowledged, in order."""
    closed: int = 0
    abandoned: int = 0

    def __post_init__(self) -> None:
        self._ready: deque[Delivery] = deque()
        self._unacked: deque[tuple[int, Delivery]] = deque()
        self._tag = 0
        self._connected = False
        self._lost: str | None = None
        self._change = threading.Condition()

    # --- what the test does ---
    def publish(self, *bodies: bytes, content_type: str = "application/json") -> None:
        """The fleet sends messages. Without acknowledgements they are lost while no source is connected."""
        with self._change:
            if self._connected or self.acknowledges:
                self._ready.extend(Delivery(body, content_type) for body in bodies)
            self._change.notify_all()

    def lose(self, reason: str = "connection reset") -> None:
        """The connection breaks: the next poll or ack raises SourceLostError."""
        with self._change:
            self._lost = reason
            self._change.notify_all()

    @property
    def waiting(self) -> int:
        """Unacknowledged messages, delivered or not."""
        with self._change:
            return len(self._ready) + len(self._unacked)

    # --- EventSource ---
    def connect(self) -> None:
        with self._change:
            self._drop()
            if self.refusals:
                raise self.refusals.popleft()
            self._connected = True
            self._lost = None
            self.connections += 1

    def poll(self, timeout: float) -> Batch | None:
        with self._change:
            self._check()
            if not self._ready and self.clock is None:
                self._change.wait_for(lambda: self._ready or self._lost or not self._connected, timeout)
                self._check()
            room = min(self.prefetch // 2, self.prefetch - len(self._unacked))
            taken = [self._ready.popleft() for _ in range(min(room, len(self._ready)))]
            if not taken:
                if self.clock is not None:
                    self.clock.advance(timeout)
                return None
            for delivery in taken:
                self._tag += 1
                if self.acknowledges:
                    self._unacked.append((self._tag, delivery))
            return Batch(taken, self._tag)

    def ack(self, tag: int) -> None:
        with self._change:
            self._check()
            while self._unacked and self._unacked[0][0] <= tag:
                self.acked.append(self._unacked.popleft()[1])

    def abandon(self) -> None:
        with self._change:
            self.abandoned += 1
            self._drop()
            self._change.notify_all()

    def close(self) -> None:
        with self._change:
            self.closed += 1
            self._drop()
            self._change.notify_all()

    def _check(self) -> None:
        if self._lost is not None:
            reason = self._lost
            self._drop()
            raise SourceLostError(reason)
        if not self._connected:
            raise SourceLostError("not connected")

    def _drop(self) -> None:
        """At the end of a connection, unacknowledged messages return to the head of the queue, flagged."""
        again = [msgspec.structs.replace(d, redelivered=True) for _, d in self._unacked]
        self._ready.extendleft(reversed(again))
        self._unacked.clear()
        if not self.acknowledges:
            self._ready.clear()
        self._connected = False
        self._lost = None


class MemoryStore:
    """A Store that keeps its state across ``stop`` and ``start``, as a file does, and fails when it is told to.

    ``failures`` are raised by the next commits before anything is applied; ``lost_answers`` after everything was.
    """

    def __init__(self, *, fingerprint_window: int = 4000) -> None:
        self.failures: deque[MonitorError] = deque()
        self.lost_answers: deque[MonitorError] = deque()
        self.commits: list[Changes] = []
        """Those that were applied, each once."""
        self.pruned: list[float] = []
        self.running = False
        self._holder, self._term = "", 0
        self.room = StoreSpace()
        self._fingerprint_window = fingerprint_window
        self._lock = threading.Lock()

    lease_ttl = 4.0
    shared = False

    def lead(self, holder: str) -> Restored:
        with self._lock:
            self.running = True
            self._holder, self._term = holder, self._term + 1
            return Restored(
                sequence=len(self.commits),
                epoch=max((changes.epoch for changes in self.commits), default=0),
                series=self._latest("series", "dropped_series", lambda series: series.key),
                tracked=self._tracked(),
                unnamed=self._latest("unnamed", "settled", lambda event: event.number),
                workers=self._latest("workers", "dropped_workers", lambda worker: worker.hostname),
                incidents=self._incidents(),
                counters=self.commits[-1].counters if self.commits else {},
                fingerprints=self._fingerprints(),
            )

    def start(self) -> Restored:
        return self.lead("")

    def renew(self) -> None:
        """No other process can lead."""

    def resign(self) -> None:
        """No other process can lead."""

    def lease(self) -> LeaseState:
        return LeaseState(self._holder, self._term, self.lease_ttl if self.running else 0.0)

    def position(self) -> str | None:
        found = [changes.position for changes in self.commits if changes.position is not None]
        return found[-1] if found else None

    def commit(self, changes: Changes) -> None:
        with self._lock:
            if not self.running:
                raise StoreUnavailableError("the store is closed")
            if self.failures:
                raise self.failures.popleft()
            if changes.sequence == len(self.commits) + 1:
                self.commits.append(changes)
            elif changes.sequence != len(self.commits):
                raise StoreUnusableError("another writer has used the store")
            if self.lost_answers:
                raise self.lost_answers.popleft()

    def prune(self, now: float) -> None:
        with self._lock:
            self.pruned.append(now)

    def space(self) -> StoreSpace:
        return self.room

    def stop(self) -> None:
        with self._lock:
            self.running = False

    def _latest(self, written: str, dropped: str, key: Callable[[Any], Any]) -> list[Any]:
        """The last value of each key that was not dropped later."""
        found: dict[Any, Any] = {}
        for changes in self.commits:
            for gone in getattr(changes, dropped):
                found.pop(gone, None)
            found |= {key(value): value for value in getattr(changes, written)}
        return [
            msgspec.structs.replace(value, exemplar=None) if isinstance(value, Series) else value
            for value in found.values()
        ]

    def _tracked(self) -> list[tuple[str, TaskRef]]:
        found: dict[tuple[str, int], TaskRef] = {}
        for changes in self.commits:
            for gone in changes.forgotten:
                found.pop(gone, None)
            for uuid, ref in changes.tracked:
                saved = ref.saved or changes.sequence
                found[uuid, saved] = msgspec.structs.replace(ref, saved=saved)
        return [(uuid, ref) for (uuid, _), ref in found.items()]

    def _incidents(self) -> list[Incident]:
        known: dict[str, Incident] = {}
        for changes in self.commits:
            known |= {incident.key: incident for incident in changes.incidents}
        return [i for i in known.values() if i.state is not IncidentState.EXPIRED]

    def _fingerprints(self) -> list[tuple[int, bytes]]:
        found: dict[int, bytes] = {}
        for changes in self.commits:
            if changes.fingerprints:
                found[changes.epoch] = found.get(changes.epoch, b"") + changes.fingerprints
        return [(epoch, blob[-8 * self._fingerprint_window :]) for epoch, blob in found.items()]


class InlineCommitter(Committer):
    """A committer without a thread, which commits immediately."""

    def _submit(self, changes: Changes) -> Future[float]:
        done: Future[float] = Future()
        self._commit(changes, done)
        return done


class FakeMarks:
    """Marks of a process that may be killed: ``killed`` simulates its death."""

    def __init__(self) -> None:
        self.marked: bytes | None = None
        self.counted: dict[bytes, int] = {}
        self.marks = 0

    def deaths(self, fingerprint: bytes) -> int:
        """See Marks."""
        return self.counted.get(fingerprint, 0)

    def begin(self, fingerprint: bytes) -> None:
        """See Marks."""
        self.marked = fingerprint
        self.marks += 1

    def end(self, fingerprint: bytes) -> None:
        """See Marks."""
        self.marked = None
        self.counted.pop(fingerprint, None)

    def killed(self) -> None:
        """The process died."""
        if self.marked is not None:
            self.counted[self.marked] = self.deaths(self.marked) + 1
            self.marked = None
