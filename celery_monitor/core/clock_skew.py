"""How far a worker's clock is from the monitor's, as its heartbeats tell.

A heartbeat that is read at once is as old as the clocks are apart. So only heartbeats count that are read while the
stream is known to be up to date, and of several the least: what was under way for some time looks older than it is.
Differences below a minute are the network's, and no clock is corrected for them.
"""

from typing import Final

SIGNIFICANT: Final = 60.0
"""Seconds from which on a clock counts as wrong."""
_COMPARED: Final = 3
_APART: Final = 2.0
"""Seconds between the first and the last of those that are compared: what was sent at once says nothing new."""
_AGREE: Final = 30.0
"""Seconds in which they must agree for a correction to be changed."""


class ClockSkew:
    """Of one worker. ``offset``: seconds to add to its timestamps, 0 for a clock that is right."""

    __slots__ = ("_ages", "_known", "offset")

    def __init__(self, offset: float = 0.0, *, known: bool = False) -> None:
        """``known``: the offset is from an earlier run of the monitor."""
        self.offset = offset
        self._known = known
        self._ages: tuple[tuple[float, float], ...] = ()
        """Of the newest heartbeats; a deque would take 750 bytes for each worker."""

    def observe(self, age: float, now: float) -> bool:
        """A heartbeat was ``age`` seconds old when it was read, at ``now``. Whether the offset has changed.

        The first one of a worker counts at once: its first failure may be the next event.
        """
        self._ages = (*self._ages, (now, age))[-_COMPARED:]
        ages = [age for _, age in self._ages]
        settled = len(ages) == _COMPARED and now - self._ages[0][0] >= _APART and max(ages) - min(ages) <= _AGREE
        if self._known and not settled:
            return False
        self._known = True
        least = min(ages)
        offset = float(round(least)) if abs(least) >= SIGNIFICANT else 0.0
        if abs(offset - self.offset) <= (_AGREE if offset else 0.0):
            return False
        self.offset = offset
        return True
