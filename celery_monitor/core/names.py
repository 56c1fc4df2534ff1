"""Names from outside as they are kept: printable, bounded, and one string object for all who have the same."""

from collections.abc import Callable
from hashlib import sha256
from typing import Final

from celery_monitor.core.text import printable, shared, size_of

MAX_NAME_LENGTH: Final = 255
"""Characters; of those that take more than a byte in memory accordingly less."""
_DIGITS: Final = 16
SHORT: Final = 64
"""Characters that fit, however wide they are."""


class Names(dict[str, str]):
    """Raw name → the shared one: ``names[raw]`` has an answer for every text.

    ``max_names`` are remembered; then all are forgotten at once, and ``on_clear`` is called.
    """

    def __init__(
        self,
        max_names: int,
        *,
        on_clear: Callable[[], None] = lambda: None,
        normalize: Callable[[str], str] | None = None,
    ) -> None:
        """Start without any. ``normalize`` gives a name as it is kept; by default it is ``shortened_name``."""
        super().__init__()
        self._max_names = max_names
        self._on_clear = on_clear
        self._normalize = normalize or shortened_name

    def __missing__(self, raw: str) -> str:
        name = self._normalize(raw)
        shared_name = self.get(name)
        if shared_name is None:
            if len(self) >= self._max_names:
                self.clear()
                self._on_clear()
            shared_name = self[name] = name
        if name is not raw and len(raw) <= SHORT:
            self[raw] = shared_name
        return shared_name


def shortened_name(raw: str) -> str:
    """The text, printable. What is too long ends in ``~`` and 16 hex digits of its sha256: two names stay two."""
    if len(raw) <= SHORT:
        return printable(raw, SHORT)
    # A character takes 1, 2 or 4 bytes, by the widest of the text.
    limit = MAX_NAME_LENGTH // max(1, size_of(raw) // len(raw))
    if len(raw) <= limit:
        return printable(raw, limit)
    digest = sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return f"{printable(raw, limit - _DIGITS - 1)}~{digest}"


def fitted_queue(raw: str) -> str:
    """The same of a queue's name; the random end of a queue that every process has for itself becomes ``*``."""
    return shared(shortened_name(raw))
