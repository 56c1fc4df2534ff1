"""The arguments of the tasks under way, where settings allow to keep them: bounded, in memory alone."""

from typing import Final

from celery_monitor.core.model import Event
from celery_monitor.core.text import size_of, storable_text

MAX_ARGUMENTS_LENGTH: Final = 2000
_ENTRY: Final = 200
"""Bytes of a task's arguments beside their texts."""


class TaskArguments(dict[str, tuple[str | None, str | None]]):
    """Task ID → args and kwargs as text. Not thread-safe: it belongs to the tracker.

    ``max_bytes`` bounds what they take in memory; beyond it the oldest are forgotten.
    """

    def __init__(self, max_bytes: int) -> None:
        """Start without any: they are not kept over a restart."""
        super().__init__()
        self.bytes = self.cut = 0
        """What they take in memory, and how many were forgotten for that."""
        self._max_bytes = max_bytes

    def capture(self, event: Event) -> None:
        """Keep those of a task-sent or task-received."""
        if event.args or event.kwargs:
            self.drop(event.uuid)
            texts = self[event.uuid] = _cut(event.args), _cut(event.kwargs)
            self.bytes += _size(texts)
            while self.bytes > self._max_bytes:
                self.cut += 1
                self.drop(next(iter(self)))

    def drop(self, uuid: str) -> None:
        """The task is over."""
        texts = self.pop(uuid, None)
        if texts is not None:
            self.bytes -= _size(texts)


def _size(texts: tuple[str | None, str | None]) -> int:
    """Bytes in memory, with the entry's own."""
    return _ENTRY + sum(size_of(text) for text in texts if text is not None)


def _cut(text: str | None) -> str | None:
    # Twice of what is shown, so that a secret cut in half here does not escape the redaction.
    return None if text is None else storable_text(text[: MAX_ARGUMENTS_LENGTH * 2])
