"""The event stream, and what is needed to count it exactly."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from celery_monitor.core.model import Delivery
from celery_monitor.core.replay import Resumption


@dataclass(frozen=True, slots=True)
class Batch:
    """The result of one poll. ``tag`` acknowledges it and everything before it on this connection.

    Without deliveries: a part of a long message has arrived, so the stream is alive.
    """

    deliveries: Sequence[Delivery]
    tag: int


class EventSource(Protocol):
    """The event stream. Used by one thread, except ``abandon``.

    ``connect`` may be called again after SourceLostError or ``abandon``. If ``acknowledges``, unacknowledged messages
    of the old connection are then delivered again, flagged ``redelivered``.
    """

    @property
    def acknowledges(self) -> bool:
        """Whether messages stay with the broker until ``ack``; if not, those published while disconnected are lost."""

    @property
    def standby(self) -> str | None:
        """Why nothing arrives although connected: another monitor is the active consumer until it ends. Else None."""

    @property
    def queue_created(self) -> bool:
        """Whether the queue was created since the connection before, so that earlier events are lost.

        Only if ``acknowledges``.
        """

    def connect(self) -> None:
        """Open the stream. Raises SourceLostError, with a remedy if somebody has to act. Bounded in time."""

    def poll(self, timeout: float) -> Batch | None:
        """Wait at most ``timeout`` seconds for messages; return at most half of the prefetch. Checks heartbeats.

        Returns None if nothing arrived. Raises SourceLostError.
        """

    def ack(self, tag: int) -> None:
        """Acknowledge everything up to ``tag``. No-op unless ``acknowledges``. Raises SourceLostError."""

    def abandon(self) -> None:
        """Drop the connection without notifying the broker. Never blocks long; safe from any thread."""

    def close(self) -> None:
        """Close the connection gracefully within 2 seconds, or else as ``abandon``."""


class Replay(EventSource, Protocol):
    """A stream without acknowledgements, buffered in memory while another process counts it.

    ``listen`` and ``trim`` may be called from different threads. After ``resume`` it is only an EventSource, whose
    first ``connect`` continues with the existing connection.
    """

    @property
    def subscribed(self) -> bool:
        """Whether events published now are buffered."""

    def subscribe(self) -> None:
        """Open the stream. Raises SourceLostError. Bounded in time."""

    def listen(self, timeout: float) -> None:
        """Buffer arriving events, waiting at most ``timeout`` seconds for them. Raises SourceLostError."""

    def trim(self, position: str | None) -> bool:
        """Drop what is committed up to ``position`` (see Store); whether a take-over now would miss no event."""

    def resume(self, position: str | None, alive_at: float | None) -> Resumption:
        """Let ``poll`` first return what was buffered after ``position``.

        ``alive_at``: when a leader is last known to have read the stream, in this process's monotonic seconds.
        """


class Probe(Protocol):
    """Publishes the monitor's own events on a second connection, in a thread of its own."""

    def send(self, body: bytes, timeout: float) -> None:
        """Publish one JSON body with routing key ``monitor.probe``. Raises SourceLostError; reconnects by itself."""

    def close(self) -> None:
        """Drop the connection; never blocks long."""


class CrashMarks(Protocol):
    """Marks, stored on disk, of the message that is being applied. Raises nothing."""

    def deaths(self, fingerprint: bytes) -> int:
        """How often the process has died while this message was marked."""

    def begin(self, fingerprint: bytes) -> None:
        """Mark the message, which is about to be applied."""

    def end(self, fingerprint: bytes) -> None:
        """The message was applied without killing the process: remove the mark and its deaths."""
