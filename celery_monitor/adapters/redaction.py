r"""The patterns of ``tracking.redact``, applied by an engine with a timeout.

The patterns come from the operator, the texts from anybody who can make a task fail. Python's ``re`` has no timeout and
holds the interpreter lock: ``(a|aa)+$`` on 60 letters would block every thread. The engine of ``regex`` supports the
same patterns, a timeout, and releases the lock. RE2 needs no timeout but does not support lookbehind, and people write
``(?<=password=)\S+``.
"""

from collections.abc import Sequence
from time import monotonic
from typing import Final

import regex
import structlog

from celery_monitor.core.text import Pattern

LIMIT: Final = 0.1
"""Timeout for one text, in seconds of CPU time."""
SHORT_LIMIT: Final = 0.002
"""The timeout after too many recent timeouts: enough for harmless texts."""
LOST_BEFORE_SHORT: Final = 0.4
LOST_BEFORE_NONE: Final = 2.0
"""Seconds spent on timeouts within a WINDOW before the timeout is reduced, and before no text is processed at all."""
WINDOW: Final = 60.0

_log = structlog.get_logger()


class Redaction:
    """The compiled patterns. The time spent on slow texts is bounded per text and per minute."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises regex.error for an invalid pattern, which the settings have already rejected."""
        self.timeouts = 0
        """Texts that took too long."""
        self.patterns: Sequence[Pattern] = [_Limited(self, number, pattern) for number, pattern in enumerate(patterns)]
        self._warned: set[int] = set()
        self._lost = 0.0
        self._window_ends = 0.0

    def limit(self) -> float:
        """The timeout for the next text, in seconds; 0: do not process it."""
        if monotonic() >= self._window_ends:
            self._lost = 0.0
        if self._lost >= LOST_BEFORE_NONE:
            return 0.0
        return LIMIT if self._lost < LOST_BEFORE_SHORT else SHORT_LIMIT

    def note_timeout(self, seconds: float, number: int) -> None:
        """Record a timeout."""
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
        """Like ``re``'s. Raises TimeoutError."""
        limit = self._redaction.limit()
        if not limit:
            self._redaction.note_timeout(0.0, self._number)
            raise TimeoutError
        try:
            # The replacement is a constant of the core, without backslashes.
            return str(self._compiled.sub(repl, string, timeout=limit, concurrent=True))
        except (TimeoutError, MemoryError):
            self._redaction.note_timeout(limit, self._number)
            raise TimeoutError from None
