"""A standby: waits for the lease, and buffers what it would need to take over.

If the broker keeps messages until they are acknowledged (RabbitMQ), nothing has to be buffered. If it does not (Redis),
the standby reads the stream all the time into a bounded ring buffer and drops from it what the leader has committed.
A process with a store of its own takes the lease at once.
"""

import math
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from celery_monitor.core import backoff
from celery_monitor.core.leadership import Candidate
from celery_monitor.core.model import CounterName, Restored, Snapshot
from celery_monitor.errors import SourceLostError, StoreUnavailableError
from celery_monitor.ports import Clock, EventSource, HealthReport, LeaseState, Replay, Store
from celery_monitor.runtime.lease import HeldLease, KeepAlive
from celery_monitor.runtime.threads import Threads

CHECK_INTERVAL: Final = 0.5
"""Seconds between two checks of the lease."""
MIN_CHECK_INTERVAL: Final = 0.02
"""Minimum seconds between two checks, when the lease is about to expire."""
STORE_RETRY: Final = 2.0
"""Seconds until another attempt after the store was unavailable."""
VIEW_INTERVAL: Final = 5.0
"""Seconds between two reads of what the leader has committed, for the page."""
VIEW_MARGIN: Final = 1.0
"""Seconds of lease that must remain for such a read, so that it never delays a take-over."""
LISTEN_TIMEOUT: Final = 0.25
"""Seconds for which one read of the stream waits."""
RECONNECT_CAP: Final = 2.0
_LISTENER: Final = "standby"
_NOT_LEADING: Final = "waiting for the lease of the store"
_TWO_REPLICAS: Final = (
    "to run this process as a standby, set store.replicas to 2 on both; if they monitor different fleets, set a "
    "different fleet on each"
)
_STUCK_AFTER: Final = 60.0
"""Seconds without a heartbeat after which the listener counts as stuck."""
_JOIN_TIMEOUT: Final = 12.0
"""Seconds that the listener may take to stop: an attempt to connect takes at most ten."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Takeover:
    """What a new leader starts from."""

    restored: Restored
    source: EventSource
    lease: HeldLease
    gap: float = 0.0
    """Seconds of the stream that no process has read."""
    alive_at: float | None = None
    """Unix seconds at which the stream was last read; None if ``source`` is connected and has missed nothing."""


class Standby:
    """The process until ``lead`` returns. A leader reads ``source``; until then ``replay`` buffers the stream."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        holder: str,
        *,
        source: EventSource,
        replay: Replay | None,
        end: Callable[[str], None],
        read_view: Callable[[], Snapshot | None] = lambda: None,
        prepare: Callable[[], None] = lambda: None,
        alone: bool = False,
    ) -> None:
        """Does no I/O. ``holder``: the name of this process. ``end`` ends the process when the listener is stuck.

        ``alone``: see HeldLease. ``read_view`` reads what the leader has committed, and may raise
        StoreUnavailableError. ``prepare`` is called once while another process leads, for work that would delay a
        take-over.
        """
        self._store = store
        self._clock = clock
        self._holder = holder
        self._source = source
        self._replay = replay
        self._end = end
        self._alone = alone
        self._done = threading.Event()
        self.threads = Threads(self._done, end)
        self._candidate = Candidate()
        self._last_lease: LeaseState | None = None
        self._store_error: str | None = "opening the store"
        self._stream_error: str | None = "not connected yet"
        self._ready = False
        self._read_view = read_view
        self._prepare = prepare
        self._prepared = False
        self._view_read_at = -math.inf
        self.view: Snapshot | None = None
        """What the leader had committed some seconds ago; None before the first read."""

    def lead(self, stopping: threading.Event) -> Takeover | None:
        """Wait for the lease and take it; None if ``stopping`` was set first. Raises StoreUnusableError."""
        if self._replay is not None:
            self.threads.start(_LISTENER, self._listen, limit=_STUCK_AFTER, fatal=True, restart=True)
            self.threads.watch()
        try:
            while not stopping.is_set():
                takeover = self._attempt()
                if isinstance(takeover, Takeover):
                    return takeover
                stopping.wait(takeover)
            return None
        finally:
            self._done.set()
            if self._replay is not None and stopping.is_set():
                self._replay.abandon()

    def health(self) -> HealthReport:
        """Whether this process could take over now."""
        if not self._store.shared:
            return HealthReport({"store": self._store_error})
        if self._alone:
            # The other leader has just ended, or should not exist: this process counts nothing until it leads.
            other = f"{self.leader} leads on this store: {_TWO_REPLICAS}" if self.leader else _NOT_LEADING
            return HealthReport({"store": self._store_error or other})
        # Otherwise two replicas that start together would both be ready before any of them counts.
        checks = {"store": self._store_error or (None if self.leader else _NOT_LEADING)}
        if self._replay is not None:
            checks["broker"] = self._stream_error or (
                None
                if self._ready
                else "catching up: it does not yet hold every event that the leader has not committed"
            )
        if not self.leader:
            return HealthReport(checks, {}, {"role": "standby, no replica leads"})
        message = f"this replica is on standby and {self.leader} leads: what is shown is as of the leader's last commit"
        return HealthReport(checks, {"standby": message}, {"role": f"standby, {self.leader} leads"})

    @property
    def leader(self) -> str:
        """Name of the leader as of the last check; empty if there is none."""
        return self._last_lease.holder if self._last_lease is not None and self._last_lease.expires_in > 0 else ""

    def _attempt(self) -> Takeover | float:
        """Take the lease if it is free; else return the seconds until the next check. Raises StoreUnusableError."""
        try:
            wait = self._wait() if self._store.shared else 0.0
            if wait > 0:
                return wait
            asked_at = self._clock.monotonic()
            with KeepAlive(self._store):
                restored = self._store.lead(self._holder)
                return CHECK_INTERVAL if restored is None else self._take_over(restored, asked_at)
        except StoreUnavailableError as exc:
            self._candidate.unavailable()
            if self._store_error != str(exc):
                _log.error("Cannot open the store; retrying", error=str(exc))
            self._store_error = str(exc)
            return STORE_RETRY

    def _wait(self) -> float:
        """Check the lease. Returns the seconds until the next check; 0 if the lease should be taken now."""
        lease, previous = self._store.lease(), self._last_lease
        # Without a term nobody has led on this store yet, so it has no position.
        position = self._store.position() if self._replay is not None and lease.term else None
        self._ready = self._replay is None or self._replay.trim(position)
        self._store_error, self._last_lease = None, lease
        if lease.expires_in > 0 and (previous is None or previous.term != lease.term):
            _log.info("Another replica leads; standing by", leader=lease.holder, term=lease.term)
            if self._alone:
                _log.warning(
                    "Another process leads on this store, so this one will not become ready", hint=_TWO_REPLICAS
                )
        if self._candidate.may_lead(lease.expires_in, self._clock.monotonic(), ready=self._ready):
            return 0.0
        if (
            lease.term
            and lease.expires_in > VIEW_MARGIN
            and self._clock.monotonic() - self._view_read_at >= VIEW_INTERVAL
        ):
            if not self._prepared:
                self._prepared = True
                self._prepare()
            self._view_read_at = self._clock.monotonic()
            self.view = self._read_view()
        return (
            max(MIN_CHECK_INTERVAL, min(CHECK_INTERVAL, lease.expires_in)) if lease.expires_in > 0 else CHECK_INTERVAL
        )

    def _take_over(self, restored: Restored, asked_at: float) -> Takeover:
        """Prepare to lead, with the lease taken. Raises StoreUnavailableError, and has resigned then."""
        self._store_error = None
        lease = HeldLease(self._store, self._clock, asked_at, alone=self._alone)
        alive_at = restored.counters.get(CounterName.ALIVE_AT)
        if self._replay is None:
            return Takeover(restored, self._source, lease, alive_at=alive_at)
        try:
            position = self._store.position()
        except StoreUnavailableError:
            self._store.resign()
            raise
        self._done.set()
        if not self.threads.join(_LISTENER, _JOIN_TIMEOUT):
            self._end(_LISTENER)
        since = self._clock.now() - self._clock.monotonic()
        resumption = self._replay.resume(position, None if alive_at is None else alive_at - since)
        _log.info("Taking over", replayed=len(resumption.deliveries), gap=round(resumption.gap, 1))
        watched = resumption.watched_until
        return Takeover(restored, self._replay, lease, resumption.gap, None if watched is None else watched + since)

    def _listen(self, stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        replay, attempts = self._replay, 0
        while replay is not None and not stop.is_set():
            heartbeat()
            try:
                if not replay.subscribed:
                    replay.subscribe()
                replay.listen(LISTEN_TIMEOUT)
            except SourceLostError as exc:
                if self._stream_error is None:
                    _log.warning("Lost the event stream; reconnecting", reason=str(exc))
                self._stream_error = str(exc)
                attempts += 1
                stop.wait(backoff.delay(attempts, random.random(), base=0.2, cap=RECONNECT_CAP))  # noqa: S311  # jitter
            else:
                self._stream_error, attempts = None, 0
