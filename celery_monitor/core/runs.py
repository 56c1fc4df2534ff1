"""Finds the run of a task ID that an event belongs to. A run is identified by (task ID, worker), see ``track``.

A task ID has one entry, which is its first run, with further runs in ``others`` in the order in which they were seen.
Nearly every entry has a single run; this module handles the rest and is not on the hot path.
"""

import re
from collections.abc import Iterable
from typing import Final

from celery_monitor.core.model import RECEIVED, REJECTED, RETRIED, STARTED, Event, Stage, TaskRef

MAX_RUNS: Final = 64
"""Runs of one task ID that are tracked separately, in addition to the first."""
DUPLICATE_SECONDS: Final = 60.0
"""Maximum seconds between the two failure events of one hard time limit, by the worker's clock. Celery 5.7 sends them
10 to 20 ms apart."""

_S, _R, _T, _Y, _Q, _OK, _F = map(int, list(Stage)[:7])
_IN_QUEUE: Final = frozenset({_Y, _Q})
"""The worker has returned it to the queue, so any worker may continue with it."""
_UNFINISHED: Final = frozenset({_S, _R})
_TIME_LIMIT = re.compile(r"(?<!Soft)TimeLimitExceeded\((\d{1,9}(?:\.\d{1,9})?)")
_TEXT_SEARCHED: Final = 300
_EARLY: Final = 0.9
"""Fraction of a time limit: a run that took less did not exceed it."""

ENDED_UNSEEN: Final = 1.0
"""Stands in place of the time of loss: the run has ended without an event, or its worker returned it before it
started."""
_KILLED: Final = 2.0**40
"""Added to the time of loss: the worker has killed the run, and the task may still be redelivered."""


def all_runs(entry: TaskRef) -> list[TaskRef]:
    """All runs of a task ID, in the order in which they were seen."""
    return [entry, *entry.others] if entry.others else [entry]


def move_back(run: TaskRef, seconds: float, now: float) -> None:
    """Move the times of a run that are after ``now`` back by ``seconds``, except an ETA."""
    if run.due_at == run.sent_at > now:
        run.due_at -= seconds
    run.sent_at -= seconds if run.sent_at > now else 0.0
    run.received_at -= seconds if run.received_at > now else 0.0
    run.started_at -= seconds if run.started_at > now else 0.0


def lost_at(run: TaskRef) -> float:
    """When a started run was lost with its worker or killed by it, in Unix seconds; 0 if it was not."""
    if run.due_at >= 0 or run.due_at == -ENDED_UNSEEN:
        return 0.0
    return -run.due_at - (_KILLED if is_killed(run) else 0.0)


def killed(at: float) -> float:
    """Encodes, as a time of loss, that the worker killed a run at ``at``."""
    return _KILLED + lost_since(at)


def lost_since(at: float) -> float:
    """``at`` limited to valid times of loss, because a worker may send any timestamp."""
    return max(at, 2 * ENDED_UNSEEN)


def is_killed(run: TaskRef) -> bool:
    """Whether the worker has killed the run, and it is not known yet whether the task is redelivered."""
    return run.due_at <= -_KILLED


def is_open(entry: TaskRef) -> bool:
    """Whether any run has not ended."""
    return any(run.stage < _OK for run in all_runs(entry))


def last_known_at(run: TaskRef) -> float:
    """When a run ended; if it was revoked or rejected, when it was started or received."""
    return max(run.started_at, run.received_at)


def ended_after(entry: TaskRef, host: str, at: float) -> TaskRef | None:
    """The run that ended after the worker ``host`` sent an event at ``at``, by its clock; None if there is none.

    Such an event is late or repeated, because a worker sends no event of a new run before the earlier run ends.
    """
    for run in all_runs(entry):
        if run.stage >= _OK and run.host == host and at < last_known_at(run):
            return run
    return None


def newest_named(entry: TaskRef, host: str) -> TaskRef | None:
    """The worker's newest run that has a name, else the newest named run of the task ID."""
    runs = [run for run in all_runs(entry) if run.name is not None]
    own_runs = [run for run in runs if run.host == host]
    return own_runs[-1] if own_runs else runs[-1] if runs else None


def find(entry: TaskRef, host: str, kind: int) -> TaskRef | None:
    """The run that an event of the worker ``host`` belongs to; None if it is the first event of another run.

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
    """Whether a failure repeats that of a hard time limit, although the worker has received the task again meanwhile.

    With ``acks_late`` and without ``acks_on_failure_or_timeout`` the message is requeued before Celery 5.7 sends the
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
    """The run to drop for another run of the worker: its own ended one, one returned to the queue, or one too many."""
    own_run = next((run for run in others if run.host == host and run.stage >= _OK), None)
    dropped = own_run or next((run for run in others if run.stage == _R and run.due_at == -ENDED_UNSEEN), None)
    if dropped is not None or len(others) < MAX_RUNS:
        return dropped
    # Failures last, because a repetition may follow.
    return min(others, key=lambda run: (run.stage == _F, run.stage < _OK))


def is_continued(entry: TaskRef, run: TaskRef) -> bool:
    """Whether a later run of the same task continues a run that was retried or requeued.

    The later task-received can arrive before the task-retried, because another process of the worker sends it.
    """
    runs = all_runs(entry)
    later = runs[[other is run for other in runs].index(True) + 1 :]
    return any(other.name == run.name for other in later)


def replaced(entry: TaskRef, run: TaskRef) -> list[TaskRef]:
    """Runs of other names that ``run`` replaced on the same worker (``Task.replace``): no event reports their end."""
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
    # A repetition may follow a failure, so it is kept in addition to the next run.
    return None if last.stage == _F and last.name is not None else last


def _started(own_runs: list[TaskRef]) -> TaskRef | None:
    return _next(own_runs) or _first(reversed(own_runs), _IN_QUEUE) or (own_runs[-1] if own_runs else None)


def _next(own_runs: list[TaskRef]) -> TaskRef | None:
    """The run that its worker starts next, of those that it has received.

    If a worker has received the same task again, it has probably dropped the earlier message with its connection.
    """
    unfinished = [run for run in own_runs if run.stage in _UNFINISHED]
    held = [run for run in unfinished if run.due_at != -ENDED_UNSEEN] or unfinished
    return next((run for run in reversed(held) if run.name == held[0].name), None)


def _ended(own_runs: list[TaskRef], kind: int) -> TaskRef | None:
    newest = _first(reversed(own_runs), frozenset({_T}))
    if newest is not None and kind in {RETRIED, REJECTED}:
        # The run that continues it may have started already.
        return next(run for run in own_runs if run.stage == _T and run.name == newest.name)
    return (
        newest
        or _first(own_runs, _UNFINISHED)
        or _first(reversed(own_runs), _IN_QUEUE)
        or (own_runs[-1] if own_runs else None)
    )


def _first(runs: Iterable[TaskRef], stages: frozenset[int]) -> TaskRef | None:
    return next((run for run in runs if run.stage in stages), None)
