"""Names from outside as they are kept: printable, cut, and one string object for all who have the same."""

from collections.abc import Callable
from typing import Final

from celery_monitor.core.text import printable

LONGEST_NAME: Final = 1000


class Names(dict[str, str]):
    """Raw name → the shared one: ``names[raw]`` has an answer for every text.

    ``most`` are remembered; then all are forgotten at once, and ``forgotten`` is called.
    """

    def __init__(self, most: int, forgotten: Callable[[], None] = lambda: None) -> None:
        """Start without any."""
        super().__init__()
        self._most = most
        self._forgotten = forgotten

    def __missing__(self, raw: str) -> str:
        raw = raw[:LONGEST_NAME]
        known = self.get(raw)
        if known is None:
            if len(self) >= self._most:
                self.clear()
                self._forgotten()
            known = self[raw] = printable(raw, LONGEST_NAME)
        return known
