"""Tracks whether a task has recovered, which resolves its incidents of any hour."""

from collections.abc import Container, Iterable
from typing import Final

from celery_monitor.core.text import OTHER

MAX_TASKS: Final = 10_000


class RecoveryTracker:
    """When each task last failed and last succeeded, by the events' timestamps. Not thread-safe."""

    def __init__(self) -> None:
        """Start empty."""
        self._failed: dict[str, float] = {}
        self._succeeded: dict[str, float] = {}
        self._others = 0.0
        """The newest failure of the tasks that did not fit into ``_failed``."""

    def restore(self, tasks: Iterable[str], failed_at: float, succeeded_at: float) -> None:
        """Load the times of a stored incident. If it has several tasks, it is unknown which of them succeeded."""
        names = list(tasks)
        for task in names:
            self.failed(task, failed_at)
        if len(names) == 1 and succeeded_at:
            self.succeeded(names[0], succeeded_at)

    def failed(self, task: str, at: float) -> None:
        """Record a failure of the task."""
        if task in self._failed or len(self._failed) < MAX_TASKS:
            self._failed[task] = max(at, self._failed.get(task, at))
        else:
            self._others = max(at, self._others)

    def succeeded(self, task: str, at: float) -> None:
        """Record a success of the task."""
        self._succeeded[task] = max(at, self._succeeded.get(task, at))

    def clock_set_back(self, seconds: float, now: float) -> None:
        """As OpenIncident.clock_set_back."""
        for task in {*self._failed, *self._succeeded}:
            if max(self._failed.get(task, 0.0), self._succeeded.get(task, 0.0)) > now:
                for times in (self._failed, self._succeeded):
                    if task in times:
                        times[task] -= seconds
        self._others -= seconds if self._others > now else 0.0

    def is_quiet(self, task: str, since: float) -> bool:
        """Whether the task has not failed after ``since``."""
        return self._failed.get(task, self._others) <= since

    def recovered(self, tasks: Iterable[str], since: float) -> bool:
        """Whether no task has failed after ``since`` and each has succeeded after its last failure."""
        return all(
            self.is_quiet(task, since) and self._succeeded.get(task, 0.0) > self._failed.get(task, self._others)
            for task in tasks
            if task != OTHER
        )

    def forget(self, before: float, awaited: Container[str]) -> None:
        """Drop tasks that have not failed since ``before`` and whose success is not awaited."""
        forgotten = [task for task, at in self._failed.items() if at < before and task not in awaited]
        for task in forgotten:
            del self._failed[task]
            self._succeeded.pop(task, None)
