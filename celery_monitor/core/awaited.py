"""Tasks whose next success matters: an open incident may resolve by it, or a muted one need not page."""

from collections.abc import Collection
from typing import Final

from celery_monitor.core.incident import OpenIncident
from celery_monitor.core.incident_registry import IncidentRegistry
from celery_monitor.core.muted import MutedIncidents

_NO_KEYS: Final = frozenset[str]()


class AwaitedTasks:
    """Not thread-safe: it belongs to the decider."""

    def __init__(self, registry: IncidentRegistry, *, resolve_on_success: bool) -> None:
        """Start without any. ``resolve_on_success``: open incidents resolve by it."""
        self.tasks: dict[str, bool] = {}
        """Their names. It is the same object for ever: each success looks into it."""
        self.muted = MutedIncidents(registry)
        self._resolve = resolve_on_success
        self.open_by_task: dict[str, set[str]] = {}
        """Task → keys of its open incidents."""
        registry.listen(self.unmute)

    def open_keys(self, task: str) -> Collection[str]:
        """Of the open incidents of a task."""
        return self.open_by_task.get(task, _NO_KEYS)

    def keys(self, task: str) -> tuple[str, ...]:
        """Of all incidents that a success of the task matters for."""
        return *self.open_keys(task), *self.muted.keys_by_task.get(task, _NO_KEYS)

    def add(self, task: str, key: str) -> None:
        """An open incident is about the task."""
        self.open_by_task.setdefault(task, set()).add(key)
        if self._resolve:
            self.tasks[task] = True

    def opened(self, entry: OpenIncident) -> None:
        """An incident is open. That of a storm is known by its name, not by its tasks."""
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
        """It no longer waits; no-op if it did not."""
        if entry.key in self.muted:
            self.muted.discard(entry)
            for task in entry.tasks:
                self._forget(task)

    def _forget(self, task: str) -> None:
        """Its success does not matter, unless another incident of it waits for one."""
        if task not in self.muted.keys_by_task and not (self._resolve and task in self.open_by_task):
            self.tasks.pop(task, None)
