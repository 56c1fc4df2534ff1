"""Running tasks and tasks by ID, for readers in other threads: from the monitor's memory, or from the store.

The pump waits for the monitor's lock, so it is held only while the IDs are copied (some milliseconds with hundreds of
thousands of tasks), and again for the details of the rows of one page.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from msgspec import structs

from celery_monitor.core.lookup import RunFilter, RunPage, children, select_runs, to_task_run, waiting_since
from celery_monitor.core.model import Stage, TaskRun
from celery_monitor.core.monitor import Monitor
from celery_monitor.core.runs import all_runs
from celery_monitor.core.text import Pattern, redacted
from celery_monitor.core.track import MAX_ARGUMENTS_LENGTH
from celery_monitor.ports import Clock, Reader

MAX_STORED: Final = 20_000
"""Unfinished tasks that a standby reads for a list at most."""


class MemoryTaskView:
    """The TaskView of a leader: always current. ``lock`` is held during each use of the monitor."""

    live = True

    def __init__(self, monitor: Monitor, lock: threading.Lock, clock: Clock, redact: Sequence[Pattern]) -> None:
        """Does no I/O. ``redact``: patterns that are replaced in arguments."""
        self._monitor = monitor
        self._lock = lock
        self._clock = clock
        self._redact = redact

    def page(self, criteria: RunFilter) -> RunPage:
        """See TaskView."""
        with self._lock:
            uuids = self._monitor.lookup.uuids()
        page = select_runs(self._monitor.lookup.entries(uuids), criteria, self._clock.now(), self._likely_queue)
        with self._lock:
            runs = self._monitor.lookup.complete(page.runs)
        return replace(page, runs=self._redacted(runs))

    def waiting_since(self) -> dict[str, float]:
        """See TaskView."""
        with self._lock:
            uuids = self._monitor.lookup.uuids()
        return waiting_since(self._monitor.lookup.entries(uuids), self._clock.now(), self._likely_queue)

    def find(self, uuid: str) -> list[TaskRun]:
        """See TaskView."""
        with self._lock:
            task_runs = self._monitor.lookup.find(uuid)
        return self._redacted(task_runs)

    def children(self, uuid: str) -> list[TaskRun]:
        """See TaskView."""
        with self._lock:
            uuids, ended = self._monitor.lookup.uuids(), self._monitor.lookup.ended_children(uuid)
        return [*children(self._monitor.lookup.entries(uuids), uuid), *ended]

    def _likely_queue(self, task: str, hostname: str) -> str:
        with self._lock:
            return self._monitor.lookup.likely_queue(task, hostname)

    def _redacted(self, runs: Iterable[TaskRun]) -> list[TaskRun]:
        return [
            run
            if run.args is None and run.kwargs is None
            else structs.replace(run, args=self._fit(run.args), kwargs=self._fit(run.kwargs))
            for run in runs
        ]

    def _fit(self, text: str | None) -> str | None:
        return text and redacted(text, self._redact)[:MAX_ARGUMENTS_LENGTH]


class StoredTaskView:
    """The TaskView of a standby: what the leader has committed. Raises as a Reader."""

    live = False

    def __init__(self, reader: Reader, clock: Clock) -> None:
        """Does no I/O."""
        self._reader = reader
        self._clock = clock

    def page(self, criteria: RunFilter) -> RunPage:
        """See TaskView. Covers the MAX_STORED tasks whose last event is the oldest."""
        rows = self._reader.tracked(MAX_STORED)
        return select_runs(([uuid for uuid, _ in rows], [ref for _, ref in rows]), criteria, self._clock.now())

    def waiting_since(self) -> dict[str, float]:
        """See TaskView. Covers the same tasks as ``page``."""
        rows = self._reader.tracked(MAX_STORED)
        return waiting_since(([uuid for uuid, _ in rows], [ref for _, ref in rows]), self._clock.now())

    def find(self, uuid: str) -> list[TaskRun]:
        """See TaskView. Only unfinished runs; ended ones are read from the store."""
        rows = self._reader.tracked(1, uuid=uuid)
        return [
            to_task_run(uuid, run) for _, ref in rows for run in reversed(all_runs(ref)) if run.stage < Stage.SUCCEEDED
        ]

    def children(self, uuid: str) -> list[TaskRun]:
        """See TaskView. Always empty: the store has no index of children."""
        del uuid
        return []
