"""The event stream of a replica on Redis: buffered while on standby, replayed at a take-over, then read as usual.

The leader continues to use the connection of the standby, so that it misses no message.
"""

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from celery_monitor.adapters.broker.addresses import KnownAddress
from celery_monitor.adapters.broker.source import BrokerSource
from celery_monitor.core.replay import ReplayRing, Resumption
from celery_monitor.errors import SourceLostError
from celery_monitor.ports import Batch, Clock
from celery_monitor.settings.broker import BrokerSettings

if TYPE_CHECKING:
    from celery_monitor.core.model import Delivery

DRAIN_TIMEOUT: Final = 1.0
"""Seconds to wait for the server's answer at a take-over. Usually, it takes a millisecond."""


class ReplaySource:
    """A Replay until ``resume`` is called, then an EventSource."""

    def __init__(self, settings: BrokerSettings, clock: Clock, known: KnownAddress | None = None) -> None:
        """Does no I/O. ``known``: see Dialer."""
        self._source = BrokerSource(settings, known)
        self._clock = clock
        self._limit = settings.prefetch // 2
        self._ring = ReplayRing(settings.replay.max_bytes, settings.replay.max_age)
        self._lock = threading.Lock()
        self._last_received_at = 0.0
        """Monotonic time of the last message. A lost connection may be noticed only some time later."""
        self._adopted = False
        """Whether the standby's connection is open, so that the next ``connect`` uses it."""
        self._backlog: deque[Delivery] = deque()

    # --- while it stands by ---
    @property
    def subscribed(self) -> bool:
        """See Replay."""
        return self._ring.connected

    def subscribe(self) -> None:
        """See Replay."""
        self._source.connect()
        with self._lock:
            self._last_received_at = self._clock.monotonic()
            self._ring.subscribed(self._last_received_at)

    def listen(self, timeout: float) -> None:
        """See Replay."""
        try:
            batch = self._source.poll(timeout)
        except SourceLostError:
            with self._lock:
                self._ring.lost(self._last_received_at)
            raise
        with self._lock:
            now = self._clock.monotonic()
            if batch is None:
                self._ring.bound(now)
            else:
                self._last_received_at = now
                self._ring.add(batch.deliveries, now)

    def trim(self, position: str | None) -> bool:
        """See Replay."""
        with self._lock:
            return self._ring.trim(position) and self._ring.connected

    def resume(self, position: str | None, alive_at: float | None) -> Resumption:
        """See Replay. ``poll`` returns the deliveries."""
        if self._ring.connected:
            try:
                # The message at the position may still be on its way to this process.
                self._ring.add(self._source.drain(DRAIN_TIMEOUT), self._clock.monotonic())
            except SourceLostError:
                self._ring.lost(self._last_received_at)
        self._adopted = self._ring.connected
        resumption = self._ring.resume(position, alive_at)
        self._backlog.extend(resumption.deliveries)
        return resumption

    # --- EventSource, while it leads ---
    @property
    def acknowledges(self) -> bool:
        """As EventSource.acknowledges."""
        return self._source.acknowledges

    @property
    def standby(self) -> str | None:
        """As EventSource.standby."""
        return self._source.standby

    @property
    def queue_created(self) -> bool:
        """As EventSource.queue_created."""
        return self._source.queue_created

    def connect(self) -> None:
        """As EventSource.connect. The first call uses the connection of the standby if it is open."""
        if self._adopted:
            self._adopted = False
            return
        self._source.connect()

    def poll(self, timeout: float) -> Batch | None:
        """As EventSource.poll. Appends new messages to the backlog while it is not empty."""
        if not self._backlog:
            return self._source.poll(timeout)
        try:
            batch = self._source.poll(0)
        except SourceLostError:
            # Return the backlog first. A later poll raises the same error.
            batch = None
        if batch is not None:
            self._backlog.extend(batch.deliveries)
        return Batch([self._backlog.popleft() for _ in range(min(self._limit, len(self._backlog)))], 0)

    def ack(self, tag: int) -> None:
        """As EventSource.ack."""
        self._source.ack(tag)

    def abandon(self) -> None:
        """As EventSource.abandon."""
        self._source.abandon()

    def close(self) -> None:
        """As EventSource.close."""
        self._source.close()
