"""Silences: who asked for quiet, about what, and until when."""

from typing import Final

import msgspec

MAX_SILENCE: Final = 30 * 86_400.0
"""Seconds that a silence may last: a forgotten one must not hide failures for ever."""
MAX_SILENCES: Final = 500
"""Silences that have not ended."""
MAX_REASON: Final = 500
"""Characters."""


class Silence(msgspec.Struct, frozen=True, gc=False):
    """Failures of the tasks that it matches do not page from ``starts_at`` until ``ends_at`` (unix seconds)."""

    id: str
    match: tuple[str, ...]
    """Globs on the task name; at least one must match."""
    reason: str
    starts_at: float
    ends_at: float
    queues: tuple[str, ...] = ()
    """Globs on the queue; an empty list matches all."""
    created_by: str = ""
    """The user, or "" when it is not known."""

    def active(self, at: float) -> bool:
        """Whether it is in effect at this time."""
        return self.starts_at <= at < self.ends_at
