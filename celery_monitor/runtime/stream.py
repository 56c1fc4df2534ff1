"""The event stream across connections: opens and checks it, and reopens it whenever it is lost.

It also notifies the monitor of states that affect the counts: a new connection may redeliver earlier messages, and
while nothing can be delivered, no worker counts as silent.
"""

import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import structlog

from celery_monitor.core import backoff
from celery_monitor.core.model import CounterName
from celery_monitor.core.monitor import Monitor
from celery_monitor.errors import SourceLostError
from celery_monitor.ports import Batch, Clock, EventSource
from celery_monitor.runtime.prober import Prober

STEADY: Final = 2.0
"""Seconds that a connection has to last; one that is lost earlier counts as a failed attempt."""
RECONNECT_CAP: Final = 5.0
"""Maximum seconds between two attempts. Without acknowledgements, events published meanwhile are lost."""
REPAIR_CAP: Final = 30.0
"""The same for faults that somebody has to repair first."""
RECHECK: Final = 0.25
"""Seconds between two checks whether this process may consume again."""
MAX_STALL: Final = 1.0
"""Seconds beyond its timeout that a read may take and still count as silence of the stream. If it takes longer, this
process was not running (a paused machine, a stopped container), and what was published meanwhile may not have arrived
yet; without acknowledgements, dropping the connection would lose it."""
NOT_RENEWED: Final = (
    "the store's lease could not be renewed in time: not consuming, because another replica may lead by now"
)

_log = structlog.get_logger()


@dataclass(slots=True)
class StreamStats:
    """State of the stream; written by the pump's thread, read by others."""

    connected: bool = False
    live: bool = False
    """A message, at least a probe, has arrived on this connection; or probes are forbidden, so none can be expected."""
    error: str | None = None
    """Why there is no connection; None if there is one."""
    standby: str | None = None
    """Why nothing arrives although the connection is healthy: another monitor is the active consumer."""
    unacked: int = 0
    """Messages delivered on this connection and not acknowledged."""


class Stream:
    """Owns the source. All methods belong to the pump's thread; ``lock`` is held during each use of the monitor."""

    def __init__(
        self,
        source: EventSource,
        monitor: Monitor,
        lock: threading.Lock,
        clock: Clock,
        *,
        prober: Prober | None,
        prefetch: int,
        alive_at: float | None = None,
        opened: Callable[[], None] = lambda: None,
        may_consume: Callable[[], bool] = lambda: True,
        repair_cap: float = REPAIR_CAP,
    ) -> None:
        """Does no I/O.

        ``alive_at``: Unix seconds at which an earlier process is last known to have read the stream. ``opened`` is
        called after each successful connection attempt and must not block. ``may_consume`` returns whether this process
        may hold messages, because no other can lead. ``repair_cap``: see REPAIR_CAP.
        """
        self.stats = StreamStats()
        self.connection = 0
        """Number of the current connection; a tag is only valid on its own connection."""
        self.tag = 0
        """Tag that acknowledges everything delivered so far on this connection."""
        self._source = source
        self._monitor = monitor
        self._lock = lock
        self._clock = clock
        self._prober = prober
        self._prefetch = prefetch
        self._opened = opened
        self._may_consume = may_consume
        self._repair_cap = repair_cap
        self._watched_until = alive_at
        self._connected_at = 0.0
        self._last_received_at = 0.0
        self._read_at = 0.0
        self._attempts = 0
        self._connect_at = 0.0

    @property
    def acknowledges(self) -> bool:
        """As ``EventSource.acknowledges``."""
        return self._source.acknowledges

    @property
    def last_received_at(self) -> float:
        """Monotonic time of the last message, or of the connection if none has arrived on it.

        While the prefetch is exhausted it is the present, because nothing can be delivered before an acknowledgement.
        """
        return self._last_received_at

    @property
    def retry_in(self) -> float:
        """Seconds until the next connection attempt is due; zero or negative if it is due now."""
        if self._withheld:
            return RECHECK
        return self._connect_at - self._clock.monotonic()

    @property
    def _withheld(self) -> bool:
        """Whether not to consume, because another process may lead and need the messages."""
        return self.acknowledges and not self._may_consume()

    def connect(self) -> None:
        """Attempt to connect. A failure is recorded in ``stats.error`` and postpones the next attempt."""
        try:
            self._source.connect()
        except SourceLostError as exc:
            self._postpone(exc)
            return
        now = self._clock.now()
        self.connection += 1
        self._connected_at = self._last_received_at = self._read_at = self._clock.monotonic()
        with self._lock:
            self._monitor.connected(acknowledges=self.acknowledges)
            self._note_absence(now)
        if self._prober is not None:
            self._prober.opened()
        self._watched_until = now
        self.stats.error = None
        self.stats.connected = True
        self._note_live()
        self._note_standby()
        _log.info("The event stream is open", acknowledges=self.acknowledges, connection=self.connection)
        self._opened()

    def poll(self, timeout: float) -> Batch | None:
        """Wait at most ``timeout`` seconds for messages; None when none arrived.

        Raises SourceLostError if the connection is lost or silent; it is already abandoned then.
        """
        if self._withheld:
            self._lose(NOT_RENEWED)
            raise SourceLostError(NOT_RENEWED)
        try:
            batch = self._source.poll(timeout)
        except SourceLostError as exc:
            self._lose(str(exc))
            raise
        previous, self._read_at = self._read_at, self._clock.monotonic()
        if batch is not None:
            self._note_batch(batch)
        elif self.stats.unacked >= self._prefetch or self.stats.standby is not None:
            self._last_received_at = self._clock.monotonic()
            with self._lock:
                self._monitor.stalled()
        else:
            self._check_silence(self._read_at - previous - timeout)
        return batch

    def ack(self, connection: int, tag: int, number: int) -> None:
        """Acknowledge everything up to ``tag`` (``number`` messages) if that connection still exists.

        Raises SourceLostError as ``poll`` does.
        """
        if not number or connection != self.connection or not self.stats.connected:
            return
        try:
            self._source.ack(tag)
        except SourceLostError as exc:
            self._lose(str(exc))
            raise
        self.stats.unacked = max(0, self.stats.unacked - number)

    def probes_returned(self, probes: Iterable[tuple[int, int]]) -> None:
        """Probes, as (instance, number), were read from the stream; also those of other monitors."""
        if self._prober is not None:
            for instance, number in probes:
                self._prober.probe_returned(instance, number)

    def tick(self, now: float) -> None:
        """Called about once a second, connected or not."""
        self._note_live()
        if not self.stats.connected:
            with self._lock:
                self._count_gap(now)

    def abandon(self) -> None:
        """Drop the connection at once, because another process needs its messages."""
        self._source.abandon()

    def close(self) -> None:
        """Close the connection gracefully."""
        self._source.close()

    def _note_batch(self, batch: Batch) -> None:
        self._last_received_at = self._clock.monotonic()
        self._watched_until = self._clock.now()
        self.stats.live = True
        if self.stats.standby is not None:
            self._note_standby()
        self.tag = batch.tag
        if self.acknowledges:
            self.stats.unacked += len(batch.deliveries)
        if self._prober is not None and batch.deliveries:
            self._prober.message_received()

    def _check_silence(self, delay: float) -> None:
        """Raise SourceLostError if the stream is silent. ``delay``: seconds that the read took beyond its timeout."""
        if self._prober is None:
            return
        if delay > MAX_STALL:
            self._prober.not_read(delay - MAX_STALL)
        silence = self._prober.overdue(self._last_received_at)
        if silence is None:
            return
        self._prober.given_up()
        reason = f"the stream is silent: no probe returned for {silence:.0f} s"
        self._lose(reason)
        raise SourceLostError(reason)

    def _note_live(self) -> None:
        """Consider an open connection live without a message if probes are forbidden: none may ever arrive."""
        forbidden = self._prober is None or self._prober.forbidden
        if self.stats.connected and not self.stats.live and self.stats.standby is None and forbidden:
            self.stats.live = True
            with self._lock:
                self._monitor.flowing()

    def _note_standby(self) -> None:
        standby = self._source.standby
        if standby is not None and self.stats.standby is None:
            _log.warning("Standing by", reason=standby)
        elif standby is None and self.stats.standby is not None:
            _log.info("The other monitor no longer consumes the queue; taking over")
        self.stats.standby = standby

    def _note_absence(self, now: float) -> None:
        """Note the time without a connection, which has just ended. The caller holds the lock."""
        since = self._watched_until
        if since is None:
            return
        if not self.acknowledges:
            self._count_gap(now)
        elif self._source.queue_created:
            _log.error("The queue no longer existed, so the events of this time are lost", seconds=round(now - since))
            self._monitor.note_gap(since, now)
        else:
            self._monitor.note_downtime(since, now)

    def _count_gap(self, now: float) -> None:
        """Count the time without a connection if its events are lost. The caller holds the lock."""
        if self._watched_until is not None and not self.acknowledges:
            self._monitor.note_gap(self._watched_until, now)
            self._watched_until = now

    def _lose(self, reason: str) -> None:
        _log.warning("Lost the event stream; reconnecting", reason=reason)
        self._source.abandon()
        if self._prober is not None:
            self._prober.closed()
        self.stats.connected = self.stats.live = False
        self.stats.error = reason
        self.stats.unacked = 0
        with self._lock:
            self._monitor.stalled()
            self._monitor.count(CounterName.RECONNECTS, 1)
        if self._clock.monotonic() - self._connected_at >= STEADY:
            self._attempts, self._connect_at = 0, 0.0
        else:
            self._back_off(RECONNECT_CAP)

    def _postpone(self, exc: SourceLostError) -> None:
        wait = self._back_off(self._repair_cap if exc.remedy else RECONNECT_CAP)
        self.stats.error = str(exc)
        log = _log.error if exc.remedy else _log.warning
        log("Cannot open the event stream; retrying", error=str(exc), wait=round(wait, 1))

    def _back_off(self, cap: float) -> float:
        self._attempts += 1
        wait = backoff.delay(self._attempts, random.random(), base=0.5, cap=cap)  # noqa: S311  # jitter
        self._connect_at = self._clock.monotonic() + wait
        return wait
