"""Silences: who created them, for which tasks, and until when."""

from typing import Final

import msgspec

MAX_SILENCE: Final = 30 * 86_400.0
"""Maximum duration in seconds, so that a forgotten silence does not hide failures for ever."""
MAX_SILENCES: Final = 500
"""Maximum number of silences that have not ended."""
MAX_REASON: Final = 500
"""Maximum length of the reason, in characters."""


class Silence(msgspec.Struct, frozen=True, gc=False):
    """Failures of matching tasks do not page from ``starts_at`` until ``ends_at`` (Unix seconds)."""

    id: str
    match: tuple[str, ...]
    """Globs on the task name; at least one must match."""
    reason: str
    starts_at: float
    ends_at: float
    queues: tuple[str, ...] = ()
    """Globs on the queue; an empty list matches all."""
    created_by: str = ""
    """The user, "" if unknown."""

    def active(self, at: float) -> bool:
        """Whether it is in effect at this time."""
        return self.starts_at <= at < self.ends_at
