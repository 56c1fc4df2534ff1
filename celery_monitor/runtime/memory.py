"""Notices when the process has nearly used up its memory, whatever it is used for.

Each thing in memory has a bound, and the bounds fit into the limit together as fleets are. This is for what they do not
foresee, such as names that are as long as they may be and never repeat.
"""

from collections.abc import Callable
from typing import Final

HIGH: Final = 0.85
"""Fraction of the limit above which load is shed; the rest has to last until the next check, a second later."""
_GROWN: Final = 1.02


class MemoryWatch:
    """``resident`` returns the bytes of memory in use; ``max_bytes`` is the limit."""

    def __init__(self, max_bytes: int, resident: Callable[[], int]) -> None:
        """Does no I/O."""
        self._resident = resident
        self._high = self._mark = max_bytes * HIGH

    def under_pressure(self) -> bool:
        """Whether load has to be shed now.

        Freed memory stays with the process and is reused, so after shedding this is True again only once memory has
        grown further.
        """
        now = self._resident()
        if now > self._mark:
            self._mark = now * _GROWN
            return True
        self._mark = max(self._high, min(self._mark, now * _GROWN))
        return False
