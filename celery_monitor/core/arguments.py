"""The arguments of tasks under way, if the settings allow keeping them: bounded, and only in memory."""

from typing import Final

from celery_monitor.core.model import Event
from celery_monitor.core.text import size_of, storable_text

MAX_ARGUMENTS_LENGTH: Final = 2000
_ENTRY: Final = 200
"""Bytes that an entry takes in addition to its texts."""


class TaskArguments(dict[str, tuple[str | None, str | None]]):
    """Task ID → args and kwargs as text. Not thread-safe: it belongs to the tracker.

    ``max_bytes`` bounds their memory; beyond it the oldest are dropped.
    """

    def __init__(self, max_bytes: int) -> None:
        """Start empty: arguments do not survive a restart."""
        super().__init__()
        self.bytes = self.cut = 0
        """Their size in memory, and how many were dropped because of the bound."""
        self._max_bytes = max_bytes

    def capture(self, event: Event) -> None:
        """Keep the arguments of a task-sent or task-received event."""
        if event.args or event.kwargs:
            self.drop(event.uuid)
            texts = self[event.uuid] = _cut(event.args), _cut(event.kwargs)
            self.bytes += _size(texts)
            while self.bytes > self._max_bytes:
                self.cut += 1
                self.drop(next(iter(self)))

    def drop(self, uuid: str) -> None:
        """Drop the arguments of a task that has ended."""
        texts = self.pop(uuid, None)
        if texts is not None:
            self.bytes -= _size(texts)


def _size(texts: tuple[str | None, str | None]) -> int:
    """Bytes in memory, including the entry itself."""
    return _ENTRY + sum(size_of(text) for text in texts if text is not None)


def _cut(text: str | None) -> str | None:
    # Twice the length that is shown, so that a secret cut in half here does not escape redaction.
    return None if text is None else storable_text(text[: MAX_ARGUMENTS_LENGTH * 2])
