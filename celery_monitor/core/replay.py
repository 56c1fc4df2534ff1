"""What a standby keeps of a stream without acknowledgements, until the leader has committed it.

All subscribers of one server are given the same messages in the same order, and each message has a name: its position.
The leader stores the position of the last message that a flush holds the effect of. What comes after it has to be
applied by the process that takes over; what comes before it must not. A message is never treated as both.

The stream is kept in segments: one for each connection. Between two segments messages may be missing. When the
position is in no segment, the present connection began after it, or the ring has let go of it: then the messages of
the present connection are applied, and the time before them is a gap.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from celery_monitor.core.fingerprint import fingerprint_of
from celery_monitor.core.model import Delivery

OVERHEAD = 500
"""Bytes of an entry beside its body, about."""


def position_of(delivery: Delivery) -> str:
    """What names a message to all subscribers.

    The sender's tag alone does not where it is not kombu's, which is a UUID: other libraries send a constant one.
    """
    return f"{delivery.tag}/{fingerprint_of(delivery.body).hex()}"


@dataclass(frozen=True, slots=True)
class Resumption:
    """What a process that takes over goes on with."""

    deliveries: Sequence[Delivery] = ()
    """To be applied before anything that comes from now on."""
    gap: float = 0.0
    """Seconds before or between them of which messages may be missing."""
    watched_until: float | None = None
    """Since when nothing is received; None while connected, or where nothing was ever received."""


@dataclass(slots=True)
class _Segment:
    """Of one connection. ``since``: no message after this time is missing, but for those before ``covered``."""

    since: float
    end: float | None = None
    covered: str | None = None
    """Position of the message before the first entry, where there was one."""
    entries: deque[tuple[Delivery, float, str]] = field(default_factory=deque)
    """Messages, when they came, and their positions."""
    positions: set[str] = field(default_factory=set)

    def knows(self, position: str) -> bool:
        return position == self.covered or position in self.positions


class ReplayRing:
    """Bounded by ``max_bytes`` and by ``max_age`` seconds: the oldest messages go first. Not thread-safe.

    Times are monotonic seconds: nobody sets that clock.
    """

    def __init__(self, max_bytes: int, max_age: float) -> None:
        self.bytes = 0
        """What it takes in memory, about."""
        self.dropped = 0
        """Messages that were let go of for a bound."""
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._segments: deque[_Segment] = deque()

    def __len__(self) -> int:
        return sum(len(segment.entries) for segment in self._segments)

    @property
    def connected(self) -> bool:
        """Whether the newest segment goes on."""
        return bool(self._segments) and self._segments[-1].end is None

    def subscribed(self, now: float) -> None:
        """A connection has begun: what is published from now on comes in."""
        self._segments.append(_Segment(now))

    def lost(self, now: float) -> None:
        """The connection is gone."""
        if self.connected:
            self._segments[-1].end = now
            if len(self._segments) > 1 and not self._segments[-1].entries:
                self._segments.pop()

    def add(self, deliveries: Iterable[Delivery], now: float) -> None:
        """Keep what came in on the present connection."""
        segment = self._segments[-1]
        for delivery in deliveries:
            position = position_of(delivery)
            segment.entries.append((delivery, now, position))
            segment.positions.add(position)
            self.bytes += _weight(delivery)
        self.bound(now)

    def bound(self, now: float) -> None:
        """Let go of what the ring has no room for, and of what is too old."""
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
        """Let go of what the leader has committed; whether the position is known here."""
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
        """Empty the ring for the process that takes over.

        ``alive_at``: when the leader is last known to have read the stream; None where there was none. All that was
        published before the position was read has to be in the ring by now, if it is connected.
        """
        self.trim(position)
        connected = self.connected
        segments, self._segments, self.bytes = self._segments, deque(), 0
        if not segments:
            return Resumption(watched_until=alive_at)
        gap = 0.0
        if position is not None and not segments[0].knows(position):
            if not connected:
                # The position may be after all that is here, or before it.
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
        """Which segment knows it, the newest first."""
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
