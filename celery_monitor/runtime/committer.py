"""Commits flushes to the store in a thread of its own, so that the pump keeps reading the stream during a commit.

The pump submits flushes and polls which ones have been committed. Flushes are committed in order, one at a time. A
flush that cannot be written is retried unchanged, with backoff, until it succeeds; later flushes wait for it.
"""

import queue
import random
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Final

import structlog

from celery_monitor.core import backoff
from celery_monitor.core.model import Changes, Incident, OutboxRequest
from celery_monitor.errors import MonitorError, StoreUnavailableError
from celery_monitor.ports import Clock, Store
from celery_monitor.runtime.priority import ScrapePriority

COMMIT_POLL: Final = 0.005
"""Seconds after which the pump checks whether a commit has finished; most take less."""
RETRY_CAP: Final = 5.0
STALLED_AFTER: Final = 5.0
"""Seconds after which a running commit is reported as a problem, and not merely slow."""
MAX_WAIT: Final = 5.0
"""Seconds between two heartbeats while there is nothing to commit."""
BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PendingFlush:
    """Changes that wait for the store, and what to acknowledge once they are committed."""

    changes: Changes
    tag: int
    connection: int


@dataclass(slots=True)
class CommitStats:
    """Results of the commits so far. Written by the pump's thread, read by others."""

    error: str | None = None
    """Why the store cannot be written; None when it can."""
    failures: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    sum: float = 0.0


class Committer:
    """``add`` and ``run_once`` belong to the pump's thread, ``run`` is the thread that commits."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        priority: ScrapePriority,
        stored: Callable[[Changes], None] = lambda _: None,
    ) -> None:
        """Does no I/O.

        ``stored`` is called by the committing thread after each commit, because the pump's thread may be blocked for
        seconds in a connection to the broker. It must not raise or block.
        """
        self.stats = CommitStats()
        self.written_at = 0.0
        """Monotonic time of the last commit."""
        self._store = store
        self._clock = clock
        self._priority = priority
        self._stored = stored
        self._flushes: deque[PendingFlush] = deque()
        self._submitted: queue.SimpleQueue[tuple[Changes, Future[float]] | None] = queue.SimpleQueue()
        self._in_flight: Future[float] | None = None
        self._began_at = 0.0
        self._try_at = 0.0
        self._waits_since = 0.0
        self._failures_in_row = 0

    @property
    def waiting(self) -> int:
        """Number of flushes that are not committed yet."""
        return len(self._flushes)

    @property
    def waited(self) -> float:
        """Seconds for which the oldest uncommitted flush has waited."""
        return self._clock.monotonic() - self._waits_since if self._flushes else 0.0

    def trouble(self) -> str | None:
        """Why nothing is written to the store; None when all is well."""
        elapsed = self._clock.monotonic() - self._began_at if self._in_flight is not None else 0.0
        if self.stats.error is None and elapsed > STALLED_AFTER:
            return f"The store has not answered for {elapsed:.0f} s"
        return self.stats.error

    def unsent(self) -> list[tuple[OutboxRequest, Incident]]:
        """Notifications in the uncommitted flushes, each with its incident."""
        pairs = []
        for flush in self._flushes:
            incidents = {incident.key: incident for incident in flush.changes.incidents}
            pairs += [(row, incidents[row.key]) for row in flush.changes.outbox if row.key in incidents]
        return pairs

    @property
    def waiting_bytes(self) -> int:
        """Approximate bytes of memory that the uncommitted flushes take."""
        return sum(flush.changes.weight for flush in self._flushes)

    @property
    def due_at(self) -> float:
        """Monotonic time at which ``run_once`` next has something to do, while flushes wait."""
        return self._try_at if self._in_flight is None else self._clock.monotonic() + COMMIT_POLL

    def add(self, flush: PendingFlush) -> None:
        """Queue a flush behind those that wait already."""
        if not self._flushes:
            self._waits_since = self._clock.monotonic()
        self._flushes.append(flush)

    def run_once(self, timeout: float = 0.0) -> list[PendingFlush]:
        """Submit what is due; return what was committed since the last call, waiting up to ``timeout`` s for it.

        Raises what a commit raises, such as StoreUnusableError, except StoreUnavailableError: that is retried.
        """
        written: list[PendingFlush] = []
        while self._flushes:
            if self._in_flight is None:
                if self._clock.monotonic() < self._try_at:
                    break
                self._began_at = self._clock.monotonic()
                self._in_flight = self._submit(self._flushes[0].changes)
            if not wait([self._in_flight], timeout).done:
                break
            done, self._in_flight = self._in_flight, None
            try:
                duration = done.result()
            except StoreUnavailableError as exc:
                self._failed(exc)
                break
            self._succeeded(duration)
            written.append(self._flushes.popleft())
        return written

    def finish(self, deadline: float) -> list[PendingFlush]:
        """Commit what waits, retrying until this monotonic time; return what was committed."""
        written: list[PendingFlush] = []
        while self._flushes and self._clock.monotonic() < deadline:
            self._try_at = 0.0
            written += self.run_once(0.1)
            if self._flushes and self._in_flight is None:
                threading.Event().wait(0.1)
        return written

    def close(self) -> None:
        """No more flushes follow: ``run`` ends once it has committed what was submitted."""
        self._submitted.put(None)

    def run(self, stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        """Commit until ``close``. ``stop`` does not end it: what is already applied still has to be committed."""
        del stop
        while True:
            heartbeat()
            try:
                submitted = self._submitted.get(timeout=MAX_WAIT)
            except queue.Empty:
                continue
            if submitted is None:
                return
            self._commit(*submitted)

    def _submit(self, changes: Changes) -> Future[float]:
        done: Future[float] = Future()
        self._submitted.put((changes, done))
        return done

    def _commit(self, changes: Changes, done: Future[float]) -> None:
        began_at = self._clock.monotonic()
        self._priority.begin_commit()
        try:
            self._store.commit(changes)
        except MonitorError as exc:
            done.set_exception(exc)
        else:
            duration = (
                self._clock.monotonic() - began_at
            )  # measured here: the pump notices the end only in its next turn
            self._stored(changes)
            done.set_result(duration)

    def _failed(self, exc: StoreUnavailableError) -> None:
        self._failures_in_row += 1
        self.stats.failures += 1
        pause = backoff.delay(self._failures_in_row, random.random(), base=0.2, cap=RETRY_CAP)  # noqa: S311  # jitter
        self._try_at = self._clock.monotonic() + pause
        if self.stats.error is None:
            _log.error("Cannot write to the store; nothing is acknowledged until it recovers", error=str(exc))
        self.stats.error = str(exc)

    def _succeeded(self, duration: float) -> None:
        self.written_at = self._waits_since = self._clock.monotonic()
        self._failures_in_row = 0
        if self.stats.error is not None:
            _log.info("The store is writable again")
            self.stats.error = None
        self.stats.sum += duration
        self.stats.counts[next((i for i, bound in enumerate(BOUNDS) if duration <= bound), len(BOUNDS))] += 1
