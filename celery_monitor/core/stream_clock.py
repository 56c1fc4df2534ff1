"""Tracks how far the stream has been read and for how long it was watched."""

from typing import Final

LIVE_LAG: Final = 10.0
"""Maximum round-trip time, in seconds, of the monitor's own probe on a stream that is up to date."""
LIVE_FOR: Final = 30.0
"""Seconds for which one such probe proves that the stream is up to date."""
MAX_TICK_GAP: Final = 5.0
"""Longest normal time between two ticks, in seconds; anything above is a stall of broker, store or process."""


class StreamClock:
    """Not thread-safe: it belongs to the monitor. ``now``: Unix seconds; it jumps if a clock is set."""

    __slots__ = ("_probed_at", "_read_at", "_received", "_ticked", "lag", "now", "watched", "watched_for")

    def __init__(self, now: float) -> None:
        """Start without having received anything."""
        self.now = self._ticked = now
        self._received = self.watched = False
        self.watched_for = 0.0
        """Seconds in which the stream was watched: a clock that never jumps and stops while the process is stalled."""
        self.lag: float | None = None
        """Seconds between the newest event's timestamp and its reading."""
        self._read_at = 0.0
        """When ``lag`` was measured."""
        self._probed_at = -LIVE_FOR
        """When the monitor last read a probe of its own that had just been sent."""

    def connected(self) -> None:
        """A new connection was made: the backlog is read first."""
        self._probed_at, self._read_at = -LIVE_FOR, 0.0

    def message_read(self, now: float) -> None:
        """Messages were received."""
        self.now, self._received = now, True

    def read(self, timestamp: float) -> None:
        """The newest event was read."""
        self.lag, self._read_at = max(0.0, self.now - timestamp), self.now

    def probed(self, timestamp: float) -> None:
        """One of the monitor's own probes was read."""
        if abs(self.now - timestamp) < LIVE_LAG:
            self._probed_at = self.now

    def set_back(self, now: float) -> float:
        """Seconds by which the machine's clock was set back since the last tick or call; 0 if it was not."""
        back = self._ticked - now
        if back <= MAX_TICK_GAP:
            return 0.0
        self._ticked = now
        return back

    def tick(self, now: float) -> tuple[float, float]:
        """Let time pass. Returns the seconds since the last call, and how many of them had no messages."""
        self.now = now
        elapsed = max(0.0, now - self._ticked)
        quiet = max(0.0, elapsed - MAX_TICK_GAP) if self._received else elapsed
        self._ticked, self._received = now, False
        return elapsed, quiet

    def watch(self, elapsed: float) -> None:
        """The stream was watched for ``elapsed`` seconds; stalls are not counted."""
        self.watched_for += min(elapsed, MAX_TICK_GAP)

    def is_live(self, now: float) -> bool:
        """Whether the monitor's own probes show that the stream is read up to date."""
        return 0.0 <= now - self._probed_at < LIVE_FOR

    def is_current(self, now: float) -> bool:
        """Like ``is_live``, but without probes (publishing may be forbidden) it relies on recent events."""
        if self._probed_at > -LIVE_FOR:
            return self.is_live(now)
        return self.watched and self.lag is not None and self.lag < LIVE_LAG and now - self._read_at < LIVE_FOR

    def read_until(self, now: float) -> float | None:
        """Without probes: a time before which everything was read, judging by the newest event; None if unknown."""
        return now - LIVE_FOR if self.watched and (self.lag is None or self.lag < LIVE_LAG) else None
