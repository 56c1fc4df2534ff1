"""Time, and how long a caller waits for an answer."""

import math
from contextvars import ContextVar
from typing import Final, Protocol

DEADLINE: Final[ContextVar[float]] = ContextVar("answer_by", default=math.inf)
"""``time.monotonic()`` after which the caller no longer waits for what it reads from the store.

Set by whoever gives up on an answer, around its call: a read that reaches it is ended in the database, with
QueryTimeoutError, so that it keeps neither its thread nor the disk busy.
"""


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> float:
        """Unix seconds."""

    def monotonic(self) -> float:
        """Seconds that never go back, for timeouts."""
