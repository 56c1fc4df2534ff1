"""Finds the tasks that run or wait now, and tasks by ID, in memory.

Hundreds of thousands of tasks can be under way, and the pump waits while the monitor's lock is held. So only their IDs
are copied under the lock (``TaskLookup.uuids``: a few milliseconds); their entries are looked up and filtered
afterwards (``entries``, ``select_runs``). Changes between the two may or may not be visible.
"""

import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import Final

from msgspec import structs

from celery_monitor.core import runs
from celery_monitor.core.ended import EndedTasks
from celery_monitor.core.model import NO_DETAILS, Stage, TaskDetails, TaskRef, TaskRun
from celery_monitor.core.track import Tracker

_OVER: Final = -runs.ENDED_UNSEEN
"""``due_at`` of a run that its worker no longer holds although no event has reported its end."""
_R, _T, _Y, _OK = map(int, (Stage.RECEIVED, Stage.STARTED, Stage.RETRYING, Stage.SUCCEEDED))
_ONE: Final = (None,)
_NOT_WAITING: Final = (_T, _Y)
_HELD: Final = (_R, _T)
CHILDREN: Final = 50
"""Maximum number of children that are listed for one task."""

Tasks = tuple[Sequence[str], Sequence[TaskRef]]
"""Task IDs, and the entry of each one."""


class RunState(enum.StrEnum):
    """The state of a task that has not ended."""

    RUNNING = "running"
    WAITING = "waiting"
    """In a queue, or fetched by a worker but not started."""
    SCHEDULED = "scheduled"
    """Its ETA is in the future."""
    RETRYING = "retrying"
    """It failed and waits for its retry."""
    LOST = "lost"
    """Its worker is gone, so no event will report its end."""
    UNSEEN = "unseen_end"
    """Its worker no longer holds it, but no event has reported how it ended. It is not listed."""


LISTED: Final = (RunState.RUNNING, RunState.WAITING, RunState.SCHEDULED, RunState.RETRYING, RunState.LOST)
"""States of tasks that have not ended."""
OUTCOMES: Final[Mapping[str, Stage | None]] = {
    "ended": None,
    "succeeded": Stage.SUCCEEDED,
    "failed": Stage.FAILED,
    "revoked": Stage.REVOKED,
    "rejected": Stage.REJECTED,
}
"""Outcomes of ended tasks, by name; ``ended`` means any of them."""
_RUNNING, _WAITING, _SCHEDULED, _RETRYING, _LOST = range(len(LISTED))
"""Plain ints: counting enum members would double the cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which tasks to list. None means any."""

    state: RunState | None = None
    matches_name: Callable[[str], bool] | None = None
    """A predicate on the task name."""
    queue: str | None = None
    """The queue as it is shown: from an event, else the most likely one."""
    hostname: str | None = None
    """The worker's full hostname."""
    offset: int = 0
    limit: int = 50


@dataclass(frozen=True, slots=True)
class RunPage:
    """A page of the tasks under way."""

    runs: Sequence[TaskRun] = ()
    """Running ones in order of their start, others in the order in which they were first seen, oldest first."""
    total: int = 0
    """Number of runs that match the filter."""
    counts: dict[RunState, int] = field(default_factory=dict)
    """The same for each state, ignoring the filter's state."""
    newest: int = 0
    """For ended runs: the number of the newest one that was checked; 0 if there is none."""


class TaskLookup:
    """Queries on the tracker's memory, each bounded in time. Not thread-safe: it belongs to the monitor."""

    def __init__(self, tracker: Tracker, ended: EndedTasks, queue_of: Callable[[str, str], str]) -> None:
        """``queue_of``: (task name, worker) → the most likely queue."""
        self._tracker = tracker
        self._ended = ended
        self._queue_of = queue_of

    def uuids(self) -> list[str]:
        """IDs of all tracked tasks, in the order in which they were first seen."""
        return list(self._tracker.tasks)

    def entries(self, uuids: Iterable[str]) -> Tasks:
        """The entries of these IDs, without tasks that were dropped meanwhile.

        The only method that needs no lock: it looks up one ID at a time, and entries may change meanwhile.
        """
        get = self._tracker.tasks.get
        pairs = [(uuid, entry) for uuid in uuids if (entry := get(uuid)) is not None]
        return [uuid for uuid, _ in pairs], [entry for _, entry in pairs]

    def find(self, uuid: str) -> list[TaskRun]:
        """The runs of a task ID: those under way, then those that have ended, newest first."""
        entry = self._tracker.tasks.get(uuid)
        live = [] if entry is None else [run for run in runs.all_runs(entry) if run.stage < _OK]
        return [
            *self.complete(to_task_run(uuid, run) for run in reversed(live)),
            *self._ended.find(uuid, self._queue_of),
        ]

    def ended_children(self, uuid: str) -> list[TaskRun]:
        """Ended runs of the tasks that this task has sent, newest first."""
        return list(islice((run for run in self._ended.all(self._queue_of) if run.parent == uuid), CHILDREN))

    def likely_queue(self, task: str, hostname: str) -> str:
        """The most likely queue of a run for which no event names it."""
        return self._queue_of(task, hostname)

    def complete(self, task_runs: Iterable[TaskRun]) -> list[TaskRun]:
        """The runs with arguments, not redacted yet, and with the most likely queue if no event names it."""
        return [self._complete(run) for run in task_runs]

    def _complete(self, run: TaskRun) -> TaskRun:
        args, kwargs = self._tracker.arguments.get(run.uuid, (None, None))
        queue = run.queue or (self._queue_of(run.name, run.hostname) if run.name else None)
        return structs.replace(run, args=args, kwargs=kwargs, queue=queue)


def state_of(run: TaskRef, now: float) -> RunState:
    """The state of a run that has not ended."""
    if run.due_at == _OVER and run.stage in _HELD:
        return RunState.UNSEEN
    if run.stage == _T:
        return RunState.LOST if run.due_at < 0 else RunState.RUNNING
    if run.stage == _Y:
        return RunState.RETRYING
    return RunState.SCHEDULED if run.details is not None and run.details.eta > now else RunState.WAITING


def state_of_run(run: TaskRun, now: float) -> str:
    """A RunState, or for an ended run the name of its Stage."""
    if run.stage >= _OK:
        return Stage(run.stage).name.lower()
    due_at = _OVER if run.unseen_end else -run.lost_at if run.lost_at else 0.0
    return state_of(TaskRef(stage=run.stage, due_at=due_at, details=TaskDetails(eta=run.eta)), now)


def select_runs(
    tasks: Tasks, criteria: RunFilter, now: float, likely_queue: Callable[[str, str], str | None] = lambda *_: None
) -> RunPage:
    """The page of runs that match a filter. Takes about 0.1 s for a million tasks.

    ``likely_queue``: see TaskLookup; called once for each task and worker, and only if the filter names a queue.
    """
    counts = [0] * len(LISTED)
    matches: list[tuple[str, TaskRef]] = []
    fits = _fits(criteria, likely_queue)
    only = None if criteria.state is None else LISTED.index(criteria.state)
    for uuid, entry in zip(*tasks, strict=True):
        for run in _ONE if entry.others is None else runs.all_runs(entry):
            run = run or entry  # noqa: PLW2901 - nearly every task has one run
            stage = run.stage
            if stage >= _OK or (fits is not None and not fits(run)):
                continue
            if run.due_at == _OVER:
                continue
            if stage == _T:
                state = _LOST if run.due_at < 0 else _RUNNING
            elif stage == _Y:
                state = _RETRYING
            else:
                state = _WAITING if run.details is None or run.details.eta <= now else _SCHEDULED
            counts[state] += 1
            if only is None or state == only:
                matches.append((uuid, run))
    if criteria.state is RunState.RUNNING:
        matches.sort(key=lambda match: match[1].started_at)
    part = matches[criteria.offset : criteria.offset + criteria.limit]
    by_state = {state: count for state, count in zip(LISTED, counts, strict=True) if count}
    return RunPage([to_task_run(uuid, run) for uuid, run in part], len(matches), by_state)


def waiting_since(
    tasks: Tasks, now: float, likely_queue: Callable[[str, str], str | None] = lambda *_: None
) -> dict[str, float]:
    """Queue → Unix seconds since when its oldest waiting run waits. Takes about 0.1 s for a million tasks.

    A run waits from when it was sent (or received, if that is unknown), but not before its ETA. ``likely_queue``: see
    TaskLookup; called once for each task and worker.
    """
    oldest: dict[str, float] = {}
    likely = cache(likely_queue)
    for entry in tasks[1]:
        for run in _ONE if entry.others is None else runs.all_runs(entry):
            run = run or entry  # noqa: PLW2901 - nearly every task has one run
            if run.stage >= _OK or run.stage in _NOT_WAITING or run.due_at == _OVER:
                continue
            since = run.sent_at or run.received_at
            if run.details is not None and run.details.eta > since:
                since = run.details.eta
            queue = run.queue or (likely(run.name, run.host) if run.name else None)
            if queue is not None and 0 < since <= now and since < oldest.get(queue, math.inf):
                oldest[queue] = since
    return oldest


def _fits(criteria: RunFilter, likely_queue: Callable[[str, str], str | None]) -> Callable[[TaskRef], bool] | None:
    matches_name, queue, hostname = criteria.matches_name, criteria.queue, criteria.hostname
    if matches_name is None and queue is None and hostname is None:
        return None
    matches_by_name: dict[str | None, bool] = {None: matches_name is None}
    likely = cache(likely_queue)

    def fits(run: TaskRef) -> bool:
        name = run.name
        if name not in matches_by_name:
            matches_by_name[name] = matches_name is None or matches_name(name or "")
        if not matches_by_name[name] or hostname not in {None, run.host}:
            return False
        return queue is None or queue == (run.queue or (likely(name, run.host) if name else None))

    return fits


def children(tasks: Tasks, uuid: str) -> list[TaskRun]:
    """Tasks under way that this task has sent, oldest first."""
    children_runs = (
        to_task_run(child_uuid, ref)
        for child_uuid, ref in zip(*tasks, strict=True)
        if ref.details is not None and ref.details.parent == uuid and ref.stage < _OK and ref.due_at != _OVER
    )
    return list(islice(children_runs, CHILDREN))


def to_task_run(uuid: str, ref: TaskRef) -> TaskRun:
    """A run under way as an immutable value."""
    began, details = ref.stage == _T, ref.details or NO_DETAILS
    return TaskRun(
        uuid=uuid,
        name=ref.name,
        queue=ref.queue,
        hostname=ref.host,
        stage=ref.stage,
        sent_at=ref.sent_at,
        received_at=ref.received_at,
        started_at=ref.started_at if began else 0.0,
        eta=details.eta,
        retries=details.retries,
        root=details.root,
        parent=details.parent,
        lost_at=runs.lost_at(ref) if began else 0.0,
        unseen_end=ref.stage in _HELD and ref.due_at == _OVER,
    )
