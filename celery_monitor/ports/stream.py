"""The event stream, and what keeps its reading exact."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from celery_monitor.core.model import Delivery
from celery_monitor.core.replay import Resumption


@dataclass(frozen=True, slots=True)
class Batch:
    """What one poll brought. ``tag`` acknowledges it and everything before it on this connection.

    Without deliveries: part of a long message has come, so the stream is alive.
    """

    deliveries: Sequence[Delivery]
    tag: int


class EventSource(Protocol):
    """The event stream. Used by one thread, but for ``probe`` and ``abandon``.

    ``connect`` may be called again after SourceLostError or ``abandon``. Unacknowledged messages of the old
    connection come again then, flagged ``redelivered`` (where ``acknowledges``).
    """

    @property
    def acknowledges(self) -> bool:
        """Messages stay with the broker until ``ack``; without it what comes while disconnected is lost."""

    @property
    def standby(self) -> str | None:
        """Why nothing comes although it is connected: another monitor is served, and this one when that one ends."""

    def connect(self) -> None:
        """Open the stream. Raises SourceLostError (with a remedy where a person must act). Bounded in time."""

    def poll(self, timeout: float) -> Batch | None:
        """Wait at most ``timeout`` seconds; give what is there, at most half of the prefetch. Checks heartbeats.

        Returns None when nothing came. Raises SourceLostError.
        """

    def ack(self, tag: int) -> None:
        """Acknowledge everything up to ``tag``. No-op where not ``acknowledges``. Raises SourceLostError."""

    def abandon(self) -> None:
        """Drop the connection without a word to the broker; never blocks long; safe from any thread."""

    def close(self) -> None:
        """Close politely, at most 2 seconds, else as ``abandon``."""


class Replay(EventSource, Protocol):
    """A stream without acknowledgements, kept in memory while another process counts it.

    ``listen`` and ``trim`` may be called from different threads; after ``resume`` it is an EventSource only, whose
    first ``connect`` goes on with the connection that there is.
    """

    @property
    def subscribed(self) -> bool:
        """Whether what is published now is kept."""

    def subscribe(self) -> None:
        """Open the stream. Raises SourceLostError. Bounded in time."""

    def listen(self, timeout: float) -> None:
        """Keep what comes, waiting at most ``timeout`` seconds for it. Raises SourceLostError."""

    def trim(self, position: str | None) -> bool:
        """Forget what is committed (``Store.position``); whether taking over now would miss nothing."""

    def resume(self, position: str | None, alive_at: float | None) -> Resumption:
        """Let ``poll`` give what was kept after ``position``, before anything else.

        ``alive_at``: when the stream is last known to have been read for the store, monotonic seconds of this process.
        """


class Probe(Protocol):
    """Publishes the monitor's own events on a second connection, in a thread of its own."""

    def send(self, body: bytes, timeout: float) -> None:
        """Publish one JSON body with routing key ``monitor.probe``. Raises SourceLostError; reconnects itself."""

    def close(self) -> None:
        """Drop the connection; never blocks long."""


class CrashMarks(Protocol):
    """Which message is being applied, kept where it outlives the process. Nothing here raises."""

    def deaths(self, fingerprint: bytes) -> int:
        """How often the process ended while this message alone was marked."""

    def begin(self, fingerprint: bytes) -> None:
        """Mark it: it is applied from now on."""

    def end(self, fingerprint: bytes) -> None:
        """It has been applied, and the process lives."""
