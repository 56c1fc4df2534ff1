"""Measures, from its heartbeats, how far a worker's clock is from the monitor's.

A heartbeat that is read as soon as it is sent appears to be as old as the clocks differ. So only heartbeats that are
read while the stream is known to be up to date count, and of several the smallest age: a heartbeat that was delayed
looks older. Differences below a minute may be network delay, and no clock is corrected for them.
"""

from typing import Final

SIGNIFICANT: Final = 60.0
"""Smallest difference, in seconds, for which a clock counts as wrong."""
_COMPARED: Final = 3
_APART: Final = 2.0
"""Minimum seconds between the first and the last heartbeat compared: a burst adds no information."""
_AGREE: Final = 30.0
"""Seconds by which they may differ for a correction to be changed."""


class ClockSkew:
    """The clock of one worker. ``offset``: seconds to add to its timestamps, 0 for a correct clock."""

    __slots__ = ("_ages", "_known", "offset")

    def __init__(self, offset: float = 0.0, *, known: bool = False) -> None:
        """``known``: the offset was measured before the monitor was restarted."""
        self.offset = offset
        self._known = known
        self._ages: tuple[tuple[float, float], ...] = ()
        """(time read, age) of the newest heartbeats; a deque would take 750 bytes per worker."""

    def clock_set_back(self, seconds: float) -> None:
        """The monitor's clock was set back by ``seconds``.

        A worker that shared the monitor's clock has no offset, and keeps none: its clock was probably set back as well.
        """
        if self.offset:
            self._ages = ()
            self.offset = _significant(self.offset - seconds)

    def observe(self, age: float, now: float) -> bool:
        """Record a heartbeat that was ``age`` seconds old when read at ``now``. Returns whether the offset has changed.

        A worker's first heartbeat counts at once, because its first failure may be the next event.
        """
        self._ages = (*self._ages, (now, age))[-_COMPARED:]
        ages = [age for _, age in self._ages]
        settled = len(ages) == _COMPARED and now - self._ages[0][0] >= _APART and max(ages) - min(ages) <= _AGREE
        if self._known and not settled:
            return False
        self._known = True
        least = min(ages)
        offset = _significant(float(round(least)))
        if abs(offset - self.offset) <= (_AGREE if offset else 0.0):
            return False
        self.offset = offset
        return True


def _significant(difference: float) -> float:
    return difference if abs(difference) >= SIGNIFICANT else 0.0
