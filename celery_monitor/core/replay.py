"""The messages of a stream without acknowledgements that a standby keeps until the leader has committed them.

All subscribers of one server receive the same messages in the same order, and each message has an identifier, its
position. With each flush the leader stores the position of the last message that the flush includes. The process that
takes over must apply the messages after it and must not apply those before it.

The ring consists of segments, one for each connection. Messages may be missing between two segments. If no segment
contains the position, either the present connection began after it or the ring has dropped it: then the messages of
the present connection are applied, and the time before them is a gap.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from celery_monitor.core.fingerprint import fingerprint_of
from celery_monitor.core.model import Delivery

OVERHEAD = 500
"""Approximate bytes of an entry without its body."""


def position_of(delivery: Delivery) -> str:
    """An identifier of the message that is the same for all subscribers.

    The sender's tag alone is not enough: kombu's is a UUID, but other libraries send a constant.
    """
    return f"{delivery.tag}/{fingerprint_of(delivery.body).hex()}"


@dataclass(frozen=True, slots=True)
class Resumption:
    """The state from which a process that takes over continues."""

    deliveries: Sequence[Delivery] = ()
    """Messages to apply before any that arrive from now on."""
    gap: float = 0.0
    """Seconds before or between them for which messages may be missing."""
    watched_until: float | None = None
    """Time since which nothing is received; None while connected, or if nothing was ever received."""


@dataclass(slots=True)
class _Segment:
    """The messages of one connection. ``since``: none after this time is missing, except up to ``covered``."""

    since: float
    end: float | None = None
    covered: str | None = None
    """Position of the message before the first entry, if there was one."""
    entries: deque[tuple[Delivery, float, str]] = field(default_factory=deque)
    """(message, time of arrival, position)."""
    positions: set[str] = field(default_factory=set)

    def knows(self, position: str) -> bool:
        return position == self.covered or position in self.positions


class ReplayRing:
    """Bounded by ``max_bytes`` and by ``max_age`` seconds: the oldest messages are dropped first. Not thread-safe.

    Times are monotonic seconds.
    """

    def __init__(self, max_bytes: int, max_age: float) -> None:
        self.bytes = 0
        """Approximate size in memory."""
        self.dropped = 0
        """Messages that were dropped because of a bound."""
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._segments: deque[_Segment] = deque()

    def __len__(self) -> int:
        return sum(len(segment.entries) for segment in self._segments)

    @property
    def connected(self) -> bool:
        """Whether the newest segment's connection is still open."""
        return bool(self._segments) and self._segments[-1].end is None

    def subscribed(self, now: float) -> None:
        """A connection was made: messages published from now on are received."""
        self._segments.append(_Segment(now))

    def lost(self, now: float) -> None:
        """The connection was lost."""
        if self.connected:
            self._segments[-1].end = now
            if len(self._segments) > 1 and not self._segments[-1].entries:
                self._segments.pop()

    def add(self, deliveries: Iterable[Delivery], now: float) -> None:
        """Keep messages that were received on the present connection."""
        segment = self._segments[-1]
        for delivery in deliveries:
            position = position_of(delivery)
            segment.entries.append((delivery, now, position))
            segment.positions.add(position)
            self.bytes += _weight(delivery)
        self.bound(now)

    def bound(self, now: float) -> None:
        """Drop messages that exceed ``max_bytes`` or ``max_age``."""
        oldest = now - self._max_age
        while self._segments:
            segment = self._segments[0]
            while segment.entries and (self.bytes > self._max_bytes or segment.entries[0][1] < oldest):
                segment.since = max(segment.since, segment.entries[0][1])
                segment.covered = self._pop(segment)
                self.dropped += 1
            if segment.entries or segment.end is None:
                return
            if segment.end >= oldest and self.bytes <= self._max_bytes:
                return
            self._segments.popleft()

    def trim(self, position: str | None) -> bool:
        """Drop the messages that the leader has committed. Returns whether the position is known."""
        at = self._find(position)
        if position is None or at is None:
            return position is None and self.connected
        for _ in range(at):
            for delivery, _, _ in self._segments.popleft().entries:
                self.bytes -= _weight(delivery)
        segment = self._segments[0]
        while segment.covered != position:
            segment.covered = self._pop(segment)
        return True

    def resume(self, position: str | None, alive_at: float | None) -> Resumption:
        """Empty the ring into a Resumption, for a takeover.

        ``alive_at``: when the leader is last known to have read the stream; None if there was no leader. If connected,
        every message published before ``position`` was read must be in the ring by now.
        """
        self.trim(position)
        connected = self.connected
        segments, self._segments, self.bytes = self._segments, deque(), 0
        if not segments:
            return Resumption(watched_until=alive_at)
        gap = 0.0
        if position is not None and not segments[0].knows(position):
            if not connected:
                # The position may be after all entries, or before them.
                return Resumption(watched_until=alive_at)
            segments = deque([segments[-1]])
        if (position is None or not segments[0].knows(position)) and alive_at is not None:
            gap = max(0.0, segments[0].since - alive_at)
        gap += sum(
            max(0.0, following.since - (previous.end or following.since)) for previous, following in pairwise(segments)
        )
        deliveries = [delivery for segment in segments for delivery, _, _ in segment.entries]
        return Resumption(deliveries, gap, segments[-1].end)

    def _find(self, position: str | None) -> int | None:
        """Index of the newest segment that contains the position."""
        if position is None:
            return None
        return next((at for at in reversed(range(len(self._segments))) if self._segments[at].knows(position)), None)

    def _pop(self, segment: _Segment) -> str:
        delivery, _, position = segment.entries.popleft()
        segment.positions.discard(position)
        self.bytes -= _weight(delivery)
        return position


def _weight(delivery: Delivery) -> int:
    return OVERHEAD + len(delivery.body)
