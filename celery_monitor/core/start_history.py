"""The recent start times of each task, in which regular tasks are found (``core/regular``).

It is needed only on request, so it is bounded and rarely written; a kill may lose the last minutes.
"""

from array import array
from collections.abc import Iterable
from typing import Final

from celery_monitor.core.model import TaskStarts

STARTS_PER_TASK: Final = 100
"""Number of starts that are kept for each task: more than three months for a daily task."""
MAX_TASKS: Final = 2_000
TASKS_PER_FLUSH: Final = 50
"""Maximum number of tasks that one flush writes."""
WRITTEN_EVERY: Final = 300.0
"""Seconds between two writes."""


class StartHistory:
    """The starts of all tasks. Not thread-safe: it belongs to the monitor."""

    def __init__(self, stored: Iterable[TaskStarts], now: float) -> None:
        """Continue from the stored starts."""
        self._starts = {starts.name: array("d", starts.starts[-STARTS_PER_TASK:]) for starts in stored}
        self._changed: set[str] = set()
        self._waiting: list[str] = []
        self._write_at = now + WRITTEN_EVERY

    def note(self, name: str, at: float) -> None:
        """Record the start of a task."""
        starts = self._starts.get(name)
        if starts is None:
            if len(self._starts) >= MAX_TASKS:
                return
            starts = self._starts[name] = array("d")
        starts.append(at)
        if len(starts) >= 2 * STARTS_PER_TASK:
            del starts[:-STARTS_PER_TASK]
        self._changed.add(name)

    def take(self, now: float, *, force: bool) -> list[TaskStarts]:
        """The changes to write, in portions at intervals; all changes with ``force``."""
        if force or (not self._waiting and now >= self._write_at):
            self._write_at = now + WRITTEN_EVERY
            self._waiting = sorted(self._changed.union(self._waiting))
            self._changed.clear()
        limit = len(self._waiting) if force else TASKS_PER_FLUSH
        names, self._waiting = self._waiting[:limit], self._waiting[limit:]
        return [TaskStarts(name, tuple(self._starts[name][-STARTS_PER_TASK:])) for name in names]
