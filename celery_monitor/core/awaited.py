"""Tasks whose next success matters: it may resolve an open incident, or make a muted one not page."""

from collections.abc import Collection
from typing import Final

from celery_monitor.core.incident import OpenIncident
from celery_monitor.core.incident_registry import IncidentRegistry
from celery_monitor.core.muted import MutedIncidents

_NO_KEYS: Final = frozenset[str]()


class AwaitedTasks:
    """Not thread-safe: it belongs to the decider."""

    def __init__(self, registry: IncidentRegistry, *, resolve_on_success: bool) -> None:
        """Start empty. ``resolve_on_success``: a success resolves open incidents."""
        self.tasks: dict[str, bool] = {}
        """Their names. Always the same object, because the hot path looks it up for each success."""
        self.muted = MutedIncidents(registry)
        self._resolve = resolve_on_success
        self.open_by_task: dict[str, set[str]] = {}
        """Task → keys of its open incidents."""
        registry.listen(self.unmute)

    def open_keys(self, task: str) -> Collection[str]:
        """Keys of a task's open incidents."""
        return self.open_by_task.get(task, _NO_KEYS)

    def keys(self, task: str) -> tuple[str, ...]:
        """Keys of all incidents that a success of the task affects."""
        return *self.open_keys(task), *self.muted.keys_by_task.get(task, _NO_KEYS)

    def add(self, task: str, key: str) -> None:
        """Register an open incident of the task."""
        self.open_by_task.setdefault(task, set()).add(key)
        if self._resolve:
            self.tasks[task] = True

    def opened(self, entry: OpenIncident) -> None:
        """An incident has been opened. A storm is registered by its name, not by its tasks."""
        for task in () if entry.storm else entry.tasks:
            self.add(task, entry.key)

    def closed(self, entry: OpenIncident) -> None:
        """An incident is no longer open."""
        for task in entry.tasks:
            keys = self.open_by_task.get(task)
            if keys is not None:
                keys.discard(entry.key)
                if not keys:
                    del self.open_by_task[task]
                    self._forget(task)

    def mute(self, entry: OpenIncident) -> None:
        """An incident waits for the end of its silence."""
        self.muted.add(entry)
        self.tasks |= dict.fromkeys(entry.tasks, True)

    def unmute(self, entry: OpenIncident) -> None:
        """The incident no longer waits. Does nothing if it was not waiting."""
        if entry.key in self.muted:
            self.muted.discard(entry)
            for task in entry.tasks:
                self._forget(task)

    def _forget(self, task: str) -> None:
        """Stop awaiting the task's success, unless another incident still waits for it."""
        if task not in self.muted.keys_by_task and not (self._resolve and task in self.open_by_task):
            self.tasks.pop(task, None)
