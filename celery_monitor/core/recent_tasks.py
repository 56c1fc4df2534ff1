"""Remembers the names of ended tasks for some minutes: an ID may be run again, or one of its events may arrive late."""

from collections.abc import Container, Iterable
from typing import Final

from celery_monitor.core.model import TaskRef
from celery_monitor.core.runs import all_runs, last_known_at, newest_named

RECENT: Final = 25_000
"""Maximum number of tasks in each of two generations, 300 bytes per task."""
RECENT_SECONDS: Final = 300.0
"""The maximum age at which the newer generation becomes the older one."""


class RecentTasks:
    """The recently ended tasks. In memory only: a task that starts and ends within a flush costs the store nothing."""

    def __init__(self, max_tasks: int = RECENT) -> None:
        """Start empty."""
        self._limit = max_tasks
        # Read directly by the hot path.
        self.newer: dict[str, TaskRef] = {}
        self.older: dict[str, TaskRef] = {}
        self._since = 0.0

    def __contains__(self, uuid: object) -> bool:
        return uuid in self.newer or uuid in self.older

    def add(self, uuid: str, ref: TaskRef) -> None:
        """Remember an ended task."""
        if ref.others is not None:
            ref = _as_one(ref)
        newer = self.newer
        newer[uuid] = ref
        if len(newer) >= self._limit:
            self.newer, self.older = {}, newer

    def restore(self, ended: Iterable[tuple[str, TaskRef]], tracked: Container[str]) -> None:
        """Restore the tasks that ended last before a start, the newest last, except those that are ``tracked``."""
        for uuid, ref in ended:
            if uuid not in tracked:
                self.add(uuid, ref)

    def get(self, uuid: str) -> TaskRef | None:
        """The remembered entry, or None."""
        return self.newer.get(uuid) or self.older.get(uuid)

    def pop(self, uuid: str) -> TaskRef:
        """Remove and return the entry. Raises KeyError if there is none."""
        old = self.older.pop(uuid, None)
        return self.newer.pop(uuid) if old is None else self.newer.pop(uuid, old)

    def reopen(self, uuid: str) -> TaskRef:
        """A new entry for this ID, with its previous name and queue."""
        named_run = newest_named(self.pop(uuid), "")
        return TaskRef() if named_run is None else TaskRef(name=named_run.name, queue=named_run.queue)

    def tick(self, time: float) -> None:
        """Rotate the generations. ``time`` is in seconds, by a clock that never goes back."""
        if time - self._since >= RECENT_SECONDS:
            self.newer, self.older, self._since = {}, self.newer, time


def _as_one(ref: TaskRef) -> TaskRef:
    """One entry with the essential data of several runs, of which there may be many."""
    named_run = newest_named(ref, "") or ref
    ended_at = max(map(last_known_at, all_runs(ref)))
    return TaskRef(
        name=named_run.name, queue=named_run.queue, stage=named_run.stage, started_at=ended_at, host=named_run.host
    )
