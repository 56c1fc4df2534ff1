"""How far the stream has been read, and for how long it was watched."""

from typing import Final

LIVE_LAG: Final = 10.0
"""Seconds that a probe of our own may be under way on a stream that is up to date."""
LIVE_FOR: Final = 30.0
"""Seconds for which that holds."""
MAX_TICK_GAP: Final = 5.0
"""Seconds between two ticks; what is above it was a standstill, of the broker, of the store or of this process."""


class StreamClock:
    """Not thread-safe: it belongs to the monitor. ``now`` is unix seconds; a clock may be set."""

    __slots__ = ("_probed_at", "_read_at", "_received", "_ticked", "lag", "now", "watched", "watched_for")

    def __init__(self, now: float) -> None:
        """Start without having heard anything."""
        self.now = self._ticked = now
        self._received = self.watched = False
        self.watched_for = 0.0
        """Seconds in which something could be heard: a clock that nobody sets, and that stands with the process."""
        self.lag: float | None = None
        """Seconds from the newest event to its reading."""
        self._read_at = 0.0
        """When the event was read that ``lag`` is of."""
        self._probed_at = -LIVE_FOR
        """When a probe of our own was read that had just been sent."""

    def connected(self) -> None:
        """A new connection has been made: what waited for us comes first."""
        self._probed_at, self._read_at = -LIVE_FOR, 0.0

    def message_read(self, now: float) -> None:
        """Messages came."""
        self.now, self._received = now, True

    def read(self, timestamp: float) -> None:
        """The newest event was read now."""
        self.lag, self._read_at = max(0.0, self.now - timestamp), self.now

    def probed(self, timestamp: float) -> None:
        """A probe of our own was read now."""
        if abs(self.now - timestamp) < LIVE_LAG:
            self._probed_at = self.now

    def tick(self, now: float) -> tuple[float, float]:
        """Time has passed. Seconds since the last call, and those of them in which the stream brought nothing."""
        self.now = now
        elapsed = max(0.0, now - self._ticked)
        quiet = max(0.0, elapsed - MAX_TICK_GAP) if self._received else elapsed
        self._ticked, self._received = now, False
        return elapsed, quiet

    def watch(self, elapsed: float) -> None:
        """The stream was watched for so long, but for a standstill."""
        self.watched_for += min(elapsed, MAX_TICK_GAP)

    def is_live(self, now: float) -> bool:
        """Whether what is read now was sent now, as our own probes tell."""
        return 0.0 <= now - self._probed_at < LIVE_FOR

    def is_current(self, now: float) -> bool:
        """As ``is_live``; where we may publish no probes, other events that have just been sent tell."""
        if self._probed_at > -LIVE_FOR:
            return self.is_live(now)
        return self.watched and self.lag is not None and self.lag < LIVE_LAG and now - self._read_at < LIVE_FOR

    def read_until(self, now: float) -> float | None:
        """Where no probe tells: a time before which all was read, as the newest event tells. None: not known."""
        return now - LIVE_FOR if self.watched and (self.lag is None or self.lag < LIVE_LAG) else None
