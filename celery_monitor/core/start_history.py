"""When each task started lately: out of it, regular tasks are found (``core/regular``).

It is for a person who asks: bounded, written seldom, and a kill may lose its last minutes.
"""

from array import array
from collections.abc import Iterable
from typing import Final

from celery_monitor.core.model import TaskStarts

KEPT: Final = 100
"""Starts of each task: of a daily one, more than three months."""
MAX_TASKS: Final = 2_000
PORTION: Final = 50
"""Tasks that one flush writes."""
WRITTEN_EVERY: Final = 300.0
"""Seconds from one writing to the next."""


class StartHistory:
    """Not thread-safe: it belongs to the monitor."""

    def __init__(self, stored: Iterable[TaskStarts], now: float) -> None:
        """Go on from what was stored."""
        self._starts = {starts.name: array("d", starts.starts[-KEPT:]) for starts in stored}
        self._changed: set[str] = set()
        self._waiting: list[str] = []
        self._write_at = now + WRITTEN_EVERY

    def note(self, name: str, at: float) -> None:
        """A task has started."""
        starts = self._starts.get(name)
        if starts is None:
            if len(self._starts) >= MAX_TASKS:
                return
            starts = self._starts[name] = array("d")
        starts.append(at)
        if len(starts) >= 2 * KEPT:
            del starts[:-KEPT]
        self._changed.add(name)

    def take(self, now: float, *, force: bool) -> list[TaskStarts]:
        """What has changed since it was written, from time to time, in portions; all of it with ``force``."""
        if force or (not self._waiting and now >= self._write_at):
            self._write_at = now + WRITTEN_EVERY
            self._waiting = sorted(self._changed.union(self._waiting))
            self._changed.clear()
        limit = len(self._waiting) if force else PORTION
        names, self._waiting = self._waiting[:limit], self._waiting[limit:]
        return [TaskStarts(name, tuple(self._starts[name][-KEPT:])) for name in names]
