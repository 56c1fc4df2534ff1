"""Tracks how far the stream has been read and for how long it was watched."""

import math
from typing import Final

LIVE_LAG: Final = 10.0
"""Maximum round-trip time, in seconds, of the monitor's own probe on a stream that is up to date."""
LIVE_FOR: Final = 30.0
"""Seconds for which one such probe proves that the stream is up to date."""
MAX_TICK_GAP: Final = 5.0
"""Longest normal time between two ticks, in seconds; anything above is a stall of broker, store or process."""
MIN_SKIP: Final = 180.0
"""Smallest difference, in seconds, by which the machine's clock counts as set forward."""
_EDGE: Final = 60.0
"""Seconds at both ends of a skipped period in which an event proves nothing: clocks may differ by as much."""


class StreamClock:
    """Not thread-safe: it belongs to the monitor. ``now``: Unix seconds; it jumps if a clock is set."""

    __slots__ = (
        "_jumped_at", "_probed_at", "_read_at", "_received", "_skipped", "_ticked", "lag", "now", "watched",
        "watched_for",
    )  # fmt: skip

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
        self._skipped: tuple[float, float] | None = None
        """The last period without ticks, if the clock may have been set forward."""
        self._jumped_at = -math.inf
        """The beginning of the last period without ticks, or of one that a lost connection explains."""

    def connected(self) -> None:
        """A new connection was made: the backlog is read first."""
        self._jumped_at, self._skipped = self._ticked, None
        self._probed_at, self._read_at = -LIVE_FOR, 0.0

    def message_read(self, now: float) -> None:
        """Messages were received."""
        self._notice_jump(now)
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
        self._ticked, self._skipped = now, None
        return back

    def _notice_jump(self, now: float) -> None:
        if now - self._ticked >= MIN_SKIP and self._jumped_at != self._ticked:
            self._jumped_at, self._skipped = self._ticked, (self._ticked, now)

    def heard(self, timestamp: float) -> None:
        """A worker has sent an event at this time."""
        if self._skipped is not None and self._skipped[0] + _EDGE < timestamp < self._skipped[1] - _EDGE:
            self._skipped = None

    def take_skipped(self, now: float) -> tuple[float, float] | None:
        """The period that the machine's clock has skipped because it was set forward; None if it was not.

        Time jumps also if this process or its machine stood still. Then the connection was lost, or the events that the
        workers sent meanwhile are read first. So the stream must be read up to date, without any of that period.
        """
        if self._skipped is None or not self.is_current(now):
            return None
        skipped, self._skipped = self._skipped, None
        return skipped

    def tick(self, now: float) -> tuple[float, float]:
        """Let time pass. Returns the seconds since the last call, and how many of them had no messages."""
        self._notice_jump(now)
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
