"""Which run of a task ID an event belongs to: the identity of a run is (task ID, worker), see ``track``.

A task ID has one entry with the first run, and the others in ``others``, in the order in which they were seen. Nearly
every entry has one run only; what is here is for the rest, and is not on the hot path.
"""

import re
from collections.abc import Iterable
from typing import Final

from celery_monitor.core.model import RECEIVED, REJECTED, RETRIED, STARTED, Event, Stage, TaskRef

MAX_RUNS: Final = 64
"""Runs of one task ID that are told apart, beside the first. Those beyond it have the name of the others."""
DUPLICATE_SECONDS: Final = 60.0
"""Between the two events of one end, by the worker's own clock. Celery 5.7 sends them 10 to 20 ms apart."""

_S, _R, _T, _Y, _Q, _OK, _F = map(int, list(Stage)[:7])
_IN_QUEUE: Final = frozenset({_Y, _Q})
"""The worker has given it back, so any worker may go on with it."""
_UNFINISHED: Final = frozenset({_S, _R})
_TIME_LIMIT = re.compile(r"(?<!Soft)TimeLimitExceeded\((\d{1,9}(?:\.\d{1,9})?)")
_TEXT_SEARCHED: Final = 300
_EARLY: Final = 0.9
"""Of a time limit: a run that has had less of it did not exceed it."""

ENDED_UNSEEN: Final = 1.0
"""In place of the time at which a run was lost: it has ended without an event."""
_KILLED: Final = 2.0**40
"""Added to the time at which a run was lost: its worker has killed it, and it may still be delivered again."""


def all_runs(entry: TaskRef) -> list[TaskRef]:
    """Every run of a task ID, in the order in which they were seen."""
    return [entry, *entry.others] if entry.others else [entry]


def lost_at(run: TaskRef) -> float:
    """When a started run was lost with its worker or killed by it, in Unix seconds; 0 when it was not."""
    if run.due_at >= 0 or run.due_at == -ENDED_UNSEEN:
        return 0.0
    return -run.due_at - (_KILLED if is_killed(run) else 0.0)


def killed(at: float) -> float:
    """What is noted of a run that its worker has killed at that time, in place of when it was lost."""
    return _KILLED + lost_since(at)


def lost_since(at: float) -> float:
    """``at``, as a time at which a run can be noted as lost: a worker may claim any time for its events."""
    return max(at, 2 * ENDED_UNSEEN)


def is_killed(run: TaskRef) -> bool:
    """Whether its worker has killed it, and it is not known yet if it is delivered again."""
    return run.due_at <= -_KILLED


def is_open(entry: TaskRef) -> bool:
    """Whether the end of any run has not come."""
    return any(run.stage < _OK for run in all_runs(entry))


def last_known_at(run: TaskRef) -> float:
    """When a run that is over ended; of one that was revoked or rejected, when it was started or received."""
    return max(run.started_at, run.received_at)


def ended_after(entry: TaskRef, event: Event) -> TaskRef | None:
    """The run that had ended when a worker sent this event, by the worker's own clock; None when there is none.

    Such an event is read late, or for a second time: a worker sends nothing of a run before the run's own events.
    """
    for run in all_runs(entry):
        if run.stage >= _OK and run.host == event.hostname and event.timestamp < last_known_at(run):
            return run
    return None


def newest_named(entry: TaskRef, host: str) -> TaskRef | None:
    """The worker's newest run that has a name, else the newest one of the task ID that has one."""
    runs = [run for run in all_runs(entry) if run.name is not None]
    own_runs = [run for run in runs if run.host == host]
    return own_runs[-1] if own_runs else runs[-1] if runs else None


def find(entry: TaskRef, host: str, kind: int) -> TaskRef | None:
    """The run that an event of the worker ``host`` belongs to; None when it is the first of another run.

    An event without a host belongs to any of them.
    """
    runs = all_runs(entry)
    own_runs = [run for run in runs if run.host == host] if host else runs
    if kind == RECEIVED:
        match = _received(own_runs)
        if match is not None or own_runs:
            return match
    elif kind == STARTED:
        match = _started(own_runs)
    else:
        match = _ended(own_runs, kind)
    if match is not None:
        return match
    free = [run for run in runs if not run.host] + [run for run in runs if run.stage in _IN_QUEUE]
    return free[0] if free else own_runs[-1] if own_runs else None


def is_time_limit_duplicate(entry: TaskRef, host: str, event: Event) -> bool:
    """Whether a failure is the twin of a hard time limit though the worker has received the task again since.

    With ``acks_late`` and without ``acks_on_failure_or_timeout`` the message goes back before Celery 5.7 sends the
    second event.
    """
    own_runs = [run for run in all_runs(entry) if run.host == host]
    if not any(run.stage == _F and abs(event.timestamp - run.started_at) <= DUPLICATE_SECONDS for run in own_runs):
        return False
    match = _TIME_LIMIT.search((event.traceback or "")[-_TEXT_SEARCHED:] + (event.exception or "")[:_TEXT_SEARCHED])
    if match is None:
        return False
    limit = float(match[1]) * _EARLY
    return not any(run.stage == _T and event.timestamp - run.started_at >= limit for run in own_runs)


def given_up(others: list[TaskRef], host: str) -> TaskRef | None:
    """Which of them makes room for another run of the worker: its own one that ended, else where there are too many."""
    own_runs = next((run for run in others if run.host == host and run.stage >= _OK), None)
    if own_runs is not None or len(others) < MAX_RUNS:
        return own_runs
    # A failure last, because it may have a twin.
    return min(others, key=lambda run: (run.stage == _F, run.stage < _OK))


def is_continued(entry: TaskRef, run: TaskRef) -> bool:
    """Whether a later run of the same task is what a run that was retried or queued again has become.

    The later task-received can be read before the task-retried: another process of the worker sends it.
    """
    runs = all_runs(entry)
    later = runs[[other is run for other in runs].index(True) + 1 :]
    return any(other.name == run.name for other in later)


def replaced(entry: TaskRef, run: TaskRef) -> list[TaskRef]:
    """Runs that have become ``run`` on the same worker under another name (``Task.replace``): they send no end."""
    earlier = []
    for other in all_runs(entry):
        if other is run:
            break
        if other.host == run.host and other.stage == _T and other.name != run.name:
            earlier.append(other)
    return earlier


def _received(own_runs: list[TaskRef]) -> TaskRef | None:
    last = own_runs[-1] if own_runs else None
    if last is None or last.stage in _IN_QUEUE or last.stage == _S:
        return last
    if last.stage < _OK:
        return last if last.name is None else None
    # A failure may have a twin: it is kept beside what comes after it.
    return None if last.stage == _F and last.name is not None else last


def _started(own_runs: list[TaskRef]) -> TaskRef | None:
    return (
        _first(own_runs, _UNFINISHED) or _first(reversed(own_runs), _IN_QUEUE) or (own_runs[-1] if own_runs else None)
    )


def _ended(own_runs: list[TaskRef], kind: int) -> TaskRef | None:
    newest = _first(reversed(own_runs), frozenset({_T}))
    if newest is not None and kind in {RETRIED, REJECTED}:
        # What it goes on as may have started already.
        return next(run for run in own_runs if run.stage == _T and run.name == newest.name)
    return (
        newest
        or _first(own_runs, _UNFINISHED)
        or _first(reversed(own_runs), _IN_QUEUE)
        or (own_runs[-1] if own_runs else None)
    )


def _first(runs: Iterable[TaskRef], stages: frozenset[int]) -> TaskRef | None:
    return next((run for run in runs if run.stage in stages), None)
