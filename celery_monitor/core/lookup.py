"""What runs and waits now, and a task by its ID, out of memory.

Hundreds of thousands of tasks can be under way, and the pump waits while somebody holds the monitor. So only their IDs
are copied meanwhile (``TaskLookup.uuids``: some milliseconds), and what is known of them is looked up and sifted
afterwards (``entries``, ``sift``): what a task does between the two may or may not be seen.
"""

import enum
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
"""``due_at`` of a run that is known to have ended, though no event has told of it."""
_T, _Y, _OK = map(int, (Stage.STARTED, Stage.RETRYING, Stage.SUCCEEDED))
_ONE: Final = (None,)
CHILDREN: Final = 50
"""The most tasks listed among those that one task has sent."""

Tasks = tuple[Sequence[str], Sequence[TaskRef]]
"""Task IDs, and the entry of each."""


class RunState(enum.StrEnum):
    """What a task that has not ended does."""

    RUNNING = "running"
    WAITING = "waiting"
    """In a queue, or fetched by a worker and not begun."""
    SCHEDULED = "scheduled"
    """Its ETA has not come."""
    RETRYING = "retrying"
    """It failed and waits for its next attempt."""
    LOST = "lost"
    """Its worker is gone; no event will tell of its end."""
    UNSEEN = "unseen_end"
    """It has ended, as its worker says, and no event has told how. It is not listed."""


LISTED: Final = (RunState.RUNNING, RunState.WAITING, RunState.SCHEDULED, RunState.RETRYING, RunState.LOST)
"""States of what has not ended."""
OUTCOMES: Final[Mapping[str, Stage | None]] = {
    "ended": None,
    "succeeded": Stage.SUCCEEDED,
    "failed": Stage.FAILED,
    "revoked": Stage.REVOKED,
    "rejected": Stage.REJECTED,
}
"""How tasks have ended, by name; ``ended`` is any of these."""
_RUNNING, _WAITING, _SCHEDULED, _RETRYING, _LOST = range(len(LISTED))
"""Plain ints: counting members of an enumeration costs as much as all else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which tasks to list. None means any."""

    state: RunState | None = None
    matches_name: Callable[[str], bool] | None = None
    """Of a task's name."""
    queue: str | None = None
    """Of the event that told it, else the most likely one, as it is shown."""
    hostname: str | None = None
    """Of the worker, whole."""
    offset: int = 0
    limit: int = 50


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some of the tasks under way."""

    runs: Sequence[TaskRun] = ()
    """Running ones by when they began, all others in the order in which they were first seen: the oldest first."""
    total: int = 0
    """How many the filter lets through."""
    counts: dict[RunState, int] = field(default_factory=dict)
    """The same of each state, whatever state the filter asks for."""
    newest: int = 0
    """Of runs that have ended: the number of the newest one that was looked at; 0 when there is none."""


class TaskLookup:
    """Questions to the tracker's memory; each is bounded in time. Not thread-safe: it belongs to the monitor."""

    def __init__(self, tracker: Tracker, ended: EndedTasks, queue_of: Callable[[str, str], str]) -> None:
        """``queue_of``: the most likely queue of a task's name on a worker."""
        self._tracker = tracker
        self._ended = ended
        self._queue_of = queue_of

    def uuids(self) -> list[str]:
        """Of all tasks that are tracked, those that were first seen first."""
        return list(self._tracker.tasks)

    def entries(self, uuids: Iterable[str]) -> Tasks:
        """What is tracked of these IDs; those that have gone meanwhile are left out.

        The one method that needs no lock: it looks up one after the other, and reads what may change meanwhile.
        """
        get = self._tracker.tasks.get
        pairs = [(uuid, entry) for uuid in uuids if (entry := get(uuid)) is not None]
        return [uuid for uuid, _ in pairs], [entry for _, entry in pairs]

    def find(self, uuid: str) -> list[TaskRun]:
        """The runs of a task ID: those under way, then those that have ended, the newest first."""
        entry = self._tracker.tasks.get(uuid)
        live = [] if entry is None else [run for run in runs.all_runs(entry) if run.stage < _OK]
        return [
            *self.complete(to_task_run(uuid, run) for run in reversed(live)),
            *self._ended.find(uuid, self._queue_of),
        ]

    def ended_children(self, uuid: str) -> list[TaskRun]:
        """Runs that have ended of tasks that this one has sent, the newest first."""
        return list(islice((run for run in self._ended.all(self._queue_of) if run.parent == uuid), CHILDREN))

    def likely_queue(self, task: str, hostname: str) -> str:
        """The most likely queue of a task's run where no event has told it."""
        return self._queue_of(task, hostname)

    def complete(self, task_runs: Iterable[TaskRun]) -> list[TaskRun]:
        """The same with arguments, not redacted yet, and with the most likely queue where no event has told it."""
        return [self._complete(run) for run in task_runs]

    def _complete(self, run: TaskRun) -> TaskRun:
        args, kwargs = self._tracker.arguments.get(run.uuid, (None, None))
        queue = run.queue or (self._queue_of(run.name, run.hostname) if run.name else None)
        return structs.replace(run, args=args, kwargs=kwargs, queue=queue)


def state_of(run: TaskRef, now: float) -> RunState:
    """Of a run that has not ended."""
    if run.stage == _T:
        if run.due_at == _OVER:
            return RunState.UNSEEN
        return RunState.LOST if run.due_at < 0 else RunState.RUNNING
    if run.stage == _Y:
        return RunState.RETRYING
    return RunState.SCHEDULED if run.details is not None and run.details.eta > now else RunState.WAITING


def state_of_run(run: TaskRun, now: float) -> str:
    """A RunState, or the name of the Stage at which the run has ended."""
    if run.stage >= _OK:
        return Stage(run.stage).name.lower()
    due_at = _OVER if run.unseen_end else -run.lost_at if run.lost_at else 0.0
    return state_of(TaskRef(stage=run.stage, due_at=due_at, details=TaskDetails(eta=run.eta)), now)


def sift(
    tasks: Tasks, criteria: RunFilter, now: float, likely_queue: Callable[[str, str], str | None] = lambda *_: None
) -> RunPage:
    """The page that a filter asks for. Takes some 0.1 s of a million tasks.

    ``likely_queue``: see TaskLookup; asked once for each task and worker, and only where the filter names a queue.
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
            if stage == _T:
                if run.due_at == _OVER:
                    continue
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
    """Tasks under way that a task has sent, the oldest first."""
    children_runs = (
        to_task_run(child_uuid, ref)
        for child_uuid, ref in zip(*tasks, strict=True)
        if ref.details is not None and ref.details.parent == uuid and ref.stage < _OK and ref.due_at != _OVER
    )
    return list(islice(children_runs, CHILDREN))


def to_task_run(uuid: str, ref: TaskRef) -> TaskRun:
    """A run under way as a value."""
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
        unseen_end=began and ref.due_at == _OVER,
    )
