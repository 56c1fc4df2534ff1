"""The clock, and the deadline of a caller."""

import math
from contextvars import ContextVar
from typing import Final, Protocol

DEADLINE: Final[ContextVar[float]] = ContextVar("answer_by", default=math.inf)
"""``time.monotonic()`` after which the caller no longer waits for a read of the store.

Set by a caller with a timeout, around its calls. A read that exceeds it is cancelled in the database and raises
QueryTimeoutError, so that it keeps neither the thread nor the disk busy.
"""


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> float:
        """Unix seconds."""

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back, for timeouts."""
