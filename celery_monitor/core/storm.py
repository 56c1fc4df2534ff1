"""When too many tasks fail at once, for each routing key and severity.

A severity has a storm when more than ``tasks`` distinct tasks of that severity or a more severe one have failed within
``window`` seconds. Less severe tasks do not count, however many they are: they must never keep a more severe one from
paging.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from celery_monitor.core.model import Severity

_SEVERITIES: Final = tuple(Severity)
"""The most severe first."""
_MORE: Final = 1_000
"""Tasks that are remembered beyond those that make a storm."""
_PRUNE_INTERVAL: Final = 1.0
"""Seconds."""


class RecentFailures(msgspec.Struct, gc=False):
    """A task that has failed lately: when, how often, and an example."""

    at: float
    """Latest failure."""
    since: float
    """The first of those in ``count``."""
    slot: int
    slot_count: int
    slot_before: int
    exception: str
    hostname: str
    queue: str
    uuid: str

    @property
    def count(self) -> int:
        """Failures within the last two windows."""
        return self.slot_count + self.slot_before


class _Level:
    """The tasks that count towards the storm of one routing key and severity."""

    __slots__ = ("pruned_at", "tasks")

    def __init__(self) -> None:
        self.tasks: dict[str, RecentFailures] = {}
        self.pruned_at = 0.0


class StormDetector:
    """Which tasks have failed lately. Not thread-safe. ``window`` in seconds."""

    def __init__(self, *, tasks: int, window: float) -> None:
        """Start without any."""
        self._max_tasks = tasks
        self._window = window
        self._levels: dict[str, tuple[_Level, ...]] = {}
        """Routing key → one for each severity."""

    def note(self, route: str, severity: Severity, task: str, recent: RecentFailures) -> bool:
        """A task has failed. Whether that makes, or is part of, a storm of its severity.

        ``recent.at`` must not be in the future: else the task would count for longer than the window.
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
            if old is not previous:  # most often they have one value in common
                previous, joined = old, recent if old is None else self._joined(old, recent)
            if old is not None or len(level.tasks) < self._max_tasks + _MORE:
                level.tasks[task] = joined
            self._prune(level, recent.at)
        return len(levels[0].tasks) > self._max_tasks

    def tasks(self, route: str, severity: Severity) -> Mapping[str, RecentFailures]:
        """The tasks that count towards it, by name."""
        return self._levels_of(route)[_SEVERITIES.index(severity)].tasks

    def recent(self, at: float, count: int, *, exception: str, hostname: str, queue: str, uuid: str) -> RecentFailures:
        """One that has failed ``count`` times, each at ``at``."""
        return RecentFailures(at, at, int(at // self._window), count, 0, exception, hostname, queue, uuid)

    def _repeated(self, levels_by_severity: Sequence[_Level], index: int, task: str, recent: RecentFailures) -> bool:
        """Add to the record of a task that failed before, where its levels share one and no other level does."""
        old = levels_by_severity[index].tasks.get(task)
        if old is None or recent.slot > old.slot:
            return False
        for position, level in enumerate(levels_by_severity):
            if (level.tasks.get(task) is old) is not (position >= index):
                return False
        old.slot_count += recent.slot_count
        old.since = min(old.since, recent.since)
        if recent.at >= old.at:
            old.at, old.exception, old.hostname = recent.at, recent.exception, recent.hostname
            old.queue, old.uuid = recent.queue, recent.uuid
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
    """Of a storm in any hour, and of no task: their names are printable."""
    return f"\0{severity}/{route}"
