"""Detects that too many tasks fail at once, for each route and severity.

A severity has a storm when more than ``tasks`` distinct tasks of that severity or a higher one have failed within
``window`` seconds. Tasks of lower severity never count, because they must not keep a more severe one from paging.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from celery_monitor.core.model import Severity

_SEVERITIES: Final = tuple(Severity)
"""Most severe first."""
_MAX_ABOVE_THRESHOLD: Final = 1_000
"""Tasks that are tracked in addition to the threshold of a storm."""
_PRUNE_INTERVAL: Final = 1.0
"""Seconds between two prunings."""


class RecentFailures(msgspec.Struct, gc=False):
    """A task's recent failures: when, how many, and an example."""

    at: float
    """Time of the latest failure."""
    since: float
    """Time of the first failure in ``count``."""
    slot: int
    slot_count: int
    slot_before: int
    exception: str
    hostname: str
    queue: str
    uuid: str

    @property
    def count(self) -> int:
        """Number of failures within the last two windows."""
        return self.slot_count + self.slot_before


class _Level:
    """The tasks that count towards the storm of one route and severity."""

    __slots__ = ("pruned_at", "tasks")

    def __init__(self) -> None:
        self.tasks: dict[str, RecentFailures] = {}
        self.pruned_at = 0.0


class StormDetector:
    """Tracks which tasks have failed recently. Not thread-safe. ``window`` in seconds."""

    def __init__(self, *, tasks: int, window: float) -> None:
        """Start empty."""
        self._max_tasks = tasks
        self._window = window
        self._levels: dict[str, tuple[_Level, ...]] = {}
        """Route → one level for each severity."""

    def note(self, route: str, severity: Severity, task: str, recent: RecentFailures) -> bool:
        """Record a failed task. Returns whether it starts or belongs to a storm of its severity.

        ``recent.at`` must not be in the future: the task would count for longer than the window.
        """
        levels_by_severity, index = self._levels_of(route), _SEVERITIES.index(severity)
        levels = levels_by_severity[index:]
        if self._repeated(levels_by_severity, index, task, recent):
            for level in levels:
                if len(level.tasks) > self._max_tasks:
                    self._prune(level, recent.at)
            return len(levels[0].tasks) > self._max_tasks
        previous, joined = None, recent
        for level in levels:
            old = level.tasks.get(task)
            if old is not previous:  # usually all levels share one record
                previous, joined = old, recent if old is None else self._joined(old, recent)
            if old is not None or len(level.tasks) < self._max_tasks + _MAX_ABOVE_THRESHOLD:
                level.tasks[task] = joined
            self._prune(level, recent.at)
        return len(levels[0].tasks) > self._max_tasks

    def clear(self) -> None:
        """Forget all tasks."""
        self._levels.clear()

    def tasks(self, route: str, severity: Severity) -> Mapping[str, RecentFailures]:
        """The tasks that count towards the storm, by name."""
        return self._levels_of(route)[_SEVERITIES.index(severity)].tasks

    def recent(self, at: float, count: int, *, exception: str, hostname: str, queue: str, uuid: str) -> RecentFailures:
        """The record of a task that has failed ``count`` times at ``at``."""
        return RecentFailures(at, at, int(at // self._window), count, 0, exception, hostname, queue, uuid)

    def _repeated(self, levels_by_severity: Sequence[_Level], index: int, task: str, recent: RecentFailures) -> bool:
        """Add to a task's existing record and return True, if exactly the levels from ``index`` on share it."""
        old = levels_by_severity[index].tasks.get(task)
        if old is None or recent.slot > old.slot:
            return False
        for position, level in enumerate(levels_by_severity):
            if (level.tasks.get(task) is old) is not (position >= index):
                return False
        old.slot_count += recent.slot_count
        if recent.since < old.since:  # noqa: PLR1730 - assigning a struct's attribute is slow
            old.since = recent.since
        if recent.at >= old.at:
            old.at, old.hostname, old.uuid = recent.at, recent.hostname, recent.uuid
            if old.exception != recent.exception or old.queue != recent.queue:  # as only a few failures do
                old.exception, old.queue = recent.exception, recent.queue
        return True

    def _levels_of(self, route: str) -> tuple[_Level, ...]:
        levels = self._levels.get(route)
        if levels is None:
            levels = self._levels[route] = tuple(_Level() for _ in _SEVERITIES)
        return levels

    def _prune(self, level: _Level, at: float) -> None:
        if len(level.tasks) <= self._max_tasks or abs(at - level.pruned_at) < _PRUNE_INTERVAL:
            return
        level.pruned_at = at
        oldest = at - self._window
        for old_task in [task for task, recent in level.tasks.items() if recent.at < oldest]:
            del level.tasks[old_task]

    def _joined(self, old: RecentFailures, new: RecentFailures) -> RecentFailures:
        slot, count, before, since = max(old.slot, new.slot), new.slot_count, 0, min(old.since, new.since)
        if new.slot <= old.slot:
            count, before = old.slot_count + count, old.slot_before
        elif new.slot == old.slot + 1:
            before, since = old.slot_count, max(old.since, old.slot * self._window)
        else:
            since = new.since
        latest = new if new.at >= old.at else old
        return RecentFailures(
            latest.at, since, slot, count, before, latest.exception, latest.hostname, latest.queue, latest.uuid
        )


def storm_name(route: str, severity: Severity) -> str:
    """A name for the storm of any hour. No task can have it, because task names are printable."""
    return f"\0{severity}/{route}"
