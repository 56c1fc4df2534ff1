"""The incidents that wait for the end of a silence.

When no silence covers an incident any more, it is judged once: it pages if its condition still holds, that is, if the
task has not succeeded since the incident's last failure. If a task has incidents of several hours, only the newest
pages, because one page is enough to report that the task fails.
"""

from typing import Final

from celery_monitor.core.incident import OpenIncident
from celery_monitor.core.incident_registry import IncidentRegistry

MAX_CATCH_UP: Final = 300.0
"""Maximum seconds that an incident waits, after its silence, for the stream to be read up to that time."""


class MutedIncidents:
    """Keeps the keys of muted incidents. Not thread-safe: it belongs to the Decider."""

    def __init__(self, registry: IncidentRegistry) -> None:
        """Start empty."""
        self._registry = registry
        self.keys_by_task: dict[str, set[str]] = {}
        """Task → keys of its waiting incidents."""
        self._keys: set[str] = set()

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def add(self, entry: OpenIncident) -> None:
        """The incident waits from now on."""
        self._keys.add(entry.key)
        for task in entry.tasks:
            self.keys_by_task.setdefault(task, set()).add(entry.key)

    def discard(self, entry: OpenIncident) -> None:
        """The incident no longer waits. Does nothing if it was not waiting."""
        if entry.key not in self._keys:
            return
        self._keys.remove(entry.key)
        for task in entry.tasks:
            keys = self.keys_by_task.get(task, set())
            keys.discard(entry.key)
            if not keys:
                self.keys_by_task.pop(task, None)

    def unmuted(self, now: float, read_until: float | None) -> list[tuple[OpenIncident, bool]]:
        """Incidents that no silence covers any more, each with whether it pages; newest first.

        ``read_until``: as in Decider.tick.
        """
        waiting = map(self._registry.entries.__getitem__, self._keys)
        ended = [entry for entry in waiting if not self._registry.covers(entry, _caught_up(entry, now, read_until))]
        ended.sort(key=lambda entry: -entry.last_at)
        seen: set[tuple[str, str]] = set()
        result = []
        for entry in ended:
            name = entry.task, entry.rule.name
            result.append((entry, name not in seen and entry.succeeded_at <= entry.last_at))
            seen.add(name)
        return result


def _caught_up(entry: OpenIncident, now: float, read_until: float | None) -> float:
    """Time up to which the task's events are known. A recently opened incident may come from a backlog."""
    if read_until is None:
        return now
    known_until = min(now, read_until)
    return known_until if now - entry.opened_at < MAX_CATCH_UP else max(known_until, now - MAX_CATCH_UP)
