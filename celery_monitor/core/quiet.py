"""Since when a task has been well: what resolves its incidents, whichever hour they are of."""

from collections.abc import Container, Iterable

from celery_monitor.core.text import OTHER


class Quiet:
    """When each task failed and succeeded last, by the events' own times. Not thread-safe."""

    def __init__(self) -> None:
        """Start without any."""
        self._failed: dict[str, float] = {}
        self._succeeded: dict[str, float] = {}

    def restore(self, tasks: Iterable[str], failed_at: float, succeeded_at: float) -> None:
        """Take over what an incident from before a restart tells. Of several tasks nobody knows which succeeded."""
        names = list(tasks)
        for task in names:
            self.failed(task, failed_at)
        if len(names) == 1 and succeeded_at:
            self.succeeded(names[0], succeeded_at)

    def failed(self, task: str, at: float) -> None:
        """A failure of the task."""
        self._failed[task] = max(at, self._failed.get(task, at))

    def succeeded(self, task: str, at: float) -> None:
        """A success of the task."""
        self._succeeded[task] = max(at, self._succeeded.get(task, at))

    def quiet(self, task: str, since: float) -> bool:
        """Whether it has had no failure after ``since``."""
        return self._failed.get(task, 0.0) <= since

    def well(self, tasks: Iterable[str], since: float) -> bool:
        """Whether each has had no failure after ``since``, and a success after its last failure."""
        return all(
            self.quiet(task, since) and self._succeeded.get(task, 0.0) > self._failed.get(task, 0.0)
            for task in tasks
            if task != OTHER
        )

    def forget(self, before: float, awaited: Container[str]) -> None:
        """Let go of tasks that have not failed since ``before`` and whose success nobody waits for."""
        gone = [task for task, at in self._failed.items() if at < before and task not in awaited]
        for task in gone:
            del self._failed[task]
            self._succeeded.pop(task, None)
