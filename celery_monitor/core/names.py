"""Normalizes and interns names from events: printable, bounded, and one string object for equal names."""

from collections.abc import Callable
from hashlib import sha256
from typing import Final

from celery_monitor.core.text import printable, shared, size_of

MAX_NAME_LENGTH: Final = 255
"""Characters; fewer if a character takes more than one byte in memory."""
_DIGITS: Final = 16
SHORT: Final = 64
"""Characters that always fit, however wide they are."""


class Names(dict[str, str]):
    """Raw name → the interned one: ``names[raw]`` works for every string.

    It keeps up to ``max_names``; then it is cleared, and ``on_clear`` is called.
    """

    def __init__(
        self,
        max_names: int,
        *,
        on_clear: Callable[[], None] = lambda: None,
        normalize: Callable[[str], str] | None = None,
    ) -> None:
        """Start empty. ``normalize``: raw name → name as it is kept; ``shortened_name`` by default."""
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
    """The printable name. A long one ends in ``~`` and 16 hex digits of its SHA-256, so that names stay distinct."""
    if len(raw) <= SHORT:
        return printable(raw, SHORT)
    # Each character takes 1, 2 or 4 bytes, depending on the widest one.
    limit = MAX_NAME_LENGTH // max(1, size_of(raw) // len(raw))
    if len(raw) <= limit:
        return printable(raw, limit)
    digest = sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return f"{printable(raw, limit - _DIGITS - 1)}~{digest}"


def fitted_queue(raw: str) -> str:
    """The same for a queue; the random end of a per-process queue name becomes ``*``."""
    return shared(shortened_name(raw))
