"""Decides when the monitor's changes are committed, and acknowledges the messages afterwards.

A flush is taken every ``flush_interval``, or earlier when it contains a page or half of the prefetch is unacknowledged.
While the store is unavailable, flushes wait in order and nothing is acknowledged, so the broker stops delivering when
the prefetch is exhausted. Pages are then offered to the notifiers from memory.
"""

import threading
from collections.abc import Callable
from typing import Final

import structlog

from celery_monitor.core.model import Changes, Incident, OutboxRequest
from celery_monitor.core.monitor import Monitor
from celery_monitor.errors import SourceLostError
from celery_monitor.ports import Clock
from celery_monitor.runtime.committer import Committer, PendingFlush
from celery_monitor.runtime.priority import ScrapePriority
from celery_monitor.runtime.stream import Stream
from celery_monitor.runtime.uncommitted import GRACE_PERIOD

IDLE_FLUSH_INTERVAL: Final = 10.0
"""Seconds after which a flush is written even without changes, to record until when the stream was monitored."""
PAGE_FLUSH_DELAY: Final = 0.05
"""Seconds for which a page waits for its commit, so that simultaneous failures are part of the same flush."""
OFFER_INTERVAL: Final = 0.25
"""Seconds between two offers of pages to the notifiers while the store is unavailable."""
STOP_TIMEOUT: Final = 4.0
"""Seconds for which commits are retried at shutdown."""
MAX_UNCOMMITTED_BYTES: Final = 64 * 1024 * 1024
"""Total bytes of the changes that wait for the store."""
MAX_UNCOMMITTED: Final = 20
"""Flushes that may wait for the store. Each lost connection adds one, which the prefetch does not limit."""

_log = structlog.get_logger()


class Flusher:
    """Belongs to the pump's thread. ``lock`` is held during each use of the monitor."""

    def __init__(
        self,
        stream: Stream,
        committer: Committer,
        monitor: Monitor,
        lock: threading.Lock,
        clock: Clock,
        *,
        priority: ScrapePriority,
        flush_interval: float,
        prefetch: int,
        committed: Callable[[Changes], None] = lambda _: None,
        uncommitted: Callable[[list[tuple[OutboxRequest, Incident]]], None] = lambda _: None,
    ) -> None:
        """Does no I/O.

        ``committed`` is called after each commit and must not block. ``uncommitted`` is called with the notifications
        that wait to be committed, while the store is unavailable.
        """
        self._stream = stream
        self._committer = committer
        self._monitor = monitor
        self._lock = lock
        self._clock = clock
        self._priority = priority
        self._flush_interval = flush_interval
        self._max_unacked = prefetch // 2
        self._committed = committed
        self._uncommitted = uncommitted
        self._flush_at = 0.0
        self._offer_at = 0.0

    @property
    def full(self) -> bool:
        """Whether too many changes wait for the store to reconnect the stream: losing it again would add a flush."""
        waiting = self._committer.waiting
        # A single waiting flush is no obstacle: new changes join the next one.
        return waiting >= MAX_UNCOMMITTED or (waiting > 1 and self._committer.waiting_bytes >= MAX_UNCOMMITTED_BYTES)

    @property
    def due_at(self) -> float:
        """Monotonic time at which ``run_once`` has something to do."""
        return self._committer.due_at if self._committer.waiting else self._priority.flush_due(self._flush_at)

    def run_once(self) -> None:
        """Take and commit what is due, and acknowledge what has been committed. Raises as ``Committer.run_once``."""
        mono = self._clock.monotonic()
        if self._committer.waiting:
            self._note_commits(self._committer.run_once())
            self._offer_unwritten(mono)
        elif mono >= self._priority.flush_due(self._flush_at) or self._stream.stats.unacked >= self._max_unacked:
            self._flush_at = mono + self._flush_interval
            if self._take(force=mono - self._committer.written_at >= IDLE_FLUSH_INTERVAL):
                self._note_commits(self._committer.run_once())

    def expedite(self) -> None:
        """There is a page to send: do not wait for the flush interval."""
        self._flush_at = min(self._flush_at, self._clock.monotonic() + PAGE_FLUSH_DELAY)

    def seal(self) -> None:
        """The connection is lost: take its changes as a flush, because their fingerprints belong to its epoch.

        Without acknowledgements this is not needed: the changes can join a later flush.
        """
        if self._stream.acknowledges or not self._committer.waiting:
            self._take(force=False)

    def finish(self) -> None:
        """Commit and acknowledge everything within STOP_TIMEOUT. What is not committed stays with the broker."""
        self._take(force=True)
        self._note_commits(self._committer.finish(self._clock.monotonic() + STOP_TIMEOUT))
        if self._committer.waiting:
            _log.error(
                "Cannot write to the store before shutdown",
                lost="nothing: the broker redelivers it" if self._stream.acknowledges else "the last flush",
            )

    def close(self) -> None:
        """Nothing more will be committed."""
        self._committer.close()

    def _take(self, *, force: bool) -> bool:
        now = self._clock.now()
        with self._lock:
            changes = self._monitor.take(now, force=force)
        if changes is None:
            return False
        self._committer.add(PendingFlush(changes, self._stream.tag, self._stream.connection))
        return True

    def _note_commits(self, flushes: list[PendingFlush]) -> None:
        for flush in flushes:
            self._committed(flush.changes)
            try:
                self._stream.ack(flush.connection, flush.tag, len(flush.changes.fingerprints) // 8)
            except SourceLostError:
                self.seal()

    def _offer_unwritten(self, mono: float) -> None:
        """Offer waiting pages to the notifiers, because the store has been unavailable for GRACE_PERIOD."""
        if self._committer.waited < GRACE_PERIOD or mono < self._offer_at:
            return
        self._offer_at = mono + OFFER_INTERVAL
        with self._lock:
            unsent = self._monitor.unsent()
        self._uncommitted(self._committer.unsent() + unsent)
