r"""The patterns of ``tracking.redact``, with an engine that can be stopped.

The patterns are the operator's, the texts are anybody's who can make a task fail. Python's own ``re`` cannot be
stopped, and keeps the interpreter's lock meanwhile: ``(a|aa)+$`` on some 60 letters is the end of every thread. The
engine of ``regex`` reads the same patterns, gives up after a time, and leaves the lock to the others. RE2, which needs
no limit, knows no lookbehind, and ``(?<=password=)\S+`` is what people write.
"""

from collections.abc import Sequence
from time import monotonic
from typing import Final

import regex
import structlog

from celery_monitor.core.text import Pattern

LIMIT: Final = 0.1
"""Seconds of processor time for one text."""
SHORT_LIMIT: Final = 0.002
"""The same when too much was lost lately: enough for what is harmless."""
LOST_BEFORE_SHORT: Final = 0.4
LOST_BEFORE_NONE: Final = 2.0
"""Seconds lost within a WINDOW before the limit is short, and before no text is read at all."""
WINDOW: Final = 60.0

_log = structlog.get_logger()


class Redaction:
    """The compiled patterns. What they lose to texts that take too long is bounded, in one text and in a minute."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises regex.error for what is no pattern; the settings have checked that."""
        self.timeouts = 0
        """Texts that took too long."""
        self.patterns: Sequence[Pattern] = [_Limited(self, number, pattern) for number, pattern in enumerate(patterns)]
        self._warned: set[int] = set()
        self._lost = 0.0
        self._window_ends = 0.0

    def limit(self) -> float:
        """Seconds that the next text may take; 0: it is not to be read."""
        if monotonic() >= self._window_ends:
            self._lost = 0.0
        if self._lost >= LOST_BEFORE_NONE:
            return 0.0
        return LIMIT if self._lost < LOST_BEFORE_SHORT else SHORT_LIMIT

    def note_timeout(self, seconds: float, number: int) -> None:
        """A text took too long for a pattern."""
        self.timeouts += 1
        if not self._lost:
            self._window_ends = monotonic() + WINDOW
        self._lost += seconds
        if number not in self._warned:
            self._warned.add(number)
            _log.warning(
                "Redaction timed out and the whole text was replaced; simplify the pattern",
                pattern=f"tracking.redact[{number}]",
            )


class _Limited(Pattern):
    """One pattern."""

    def __init__(self, redaction: Redaction, number: int, pattern: str) -> None:
        self._redaction = redaction
        self._number = number
        self._compiled = regex.compile(pattern, regex.VERSION0)

    def sub(self, repl: str, string: str, /) -> str:
        """As in ``re``. Raises TimeoutError."""
        limit = self._redaction.limit()
        if not limit:
            self._redaction.note_timeout(0.0, self._number)
            raise TimeoutError
        try:
            # The repl is a text of the core's own, without backslashes.
            return str(self._compiled.sub(repl, string, timeout=limit, concurrent=True))
        except (TimeoutError, MemoryError):
            self._redaction.note_timeout(limit, self._number)
            raise TimeoutError from None
