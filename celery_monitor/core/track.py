"""uuid → what is known of a task whose end has not come.

Only task-sent and task-received carry a task's name; a failure has nothing but a uuid. So every task is remembered
from its first event to its end. The table below says what each event does to a task at each stage. Its rows are
written for a stream out of order: a retry's task-received may come before task-retried, task-sent may come after
everything else, and a lost event leaves a stage out.

An ended task is forgotten at once, but where something can still follow that needs its name: the twin of a failure
(Celery 5.7 sends a hard time limit's task-failed twice, and a rejection after the failure), a second task-revoked, or
a task-sent that has not been seen in a fleet that sends them. Such entries linger for a minute in which events come:
while the broker stands still, what they wait for cannot come either.
"""

from collections import deque
from collections.abc import Iterable
from copy import copy
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from celery_monitor.core.model import (
    FAILED,
    RECEIVED,
    REJECTED,
    RETRIED,
    REVOKED,
    SENT,
    STARTED,
    SUCCEEDED,
    Event,
    FleetTask,
    Stage,
    TaskRef,
)
from celery_monitor.core.text import clean, printable

CANCELLED: Final = 8
"""task-cancelled ends a task and is counted nowhere else in Celery."""

KINDS: Final = {
    "task-sent": SENT,
    "task-received": RECEIVED,
    "task-started": STARTED,
    "task-succeeded": SUCCEEDED,
    "task-failed": FAILED,
    "task-retried": RETRIED,
    "task-rejected": REJECTED,
    "task-revoked": REVOKED,
    "task-cancelled": CANCELLED,
}
LONGEST_NAME: Final = 1000
LONGEST_ARGUMENTS: Final = 2000
EXPIRED_PER_TICK: Final = 1000
KNOWN_NAMES: Final = 50_000
"""Cleaned names kept for sharing one string among all of a task's entries."""

_S, _R, _T, _Y, _Q, _OK, _F, _J, _V = map(int, Stage)
"""Plain ints: comparing enum members costs as much as the rest of a step."""
_TRANSITIONS: Final[dict[int, tuple[int, ...]]] = {
    # at:         SENT RECEIVED STARTED RETRYING REQUEUED SUCCEEDED FAILED REJECTED REVOKED
    SENT:        (_S,  _R,      _T,     _Y,      _Q,      _OK,      _F,    _J,      _V),
    RECEIVED:    (_R,  _R,      _R,     _R,      _R,      _R,       _R,    _R,      _R),
    STARTED:     (_T,  _T,      _T,     _T,      _T,      _T,       _T,    _T,      _T),
    SUCCEEDED:   (_OK, _OK,     _OK,    _OK,     _OK,     _OK,      _OK,   _OK,     _OK),
    FAILED:      (_F,  _F,      _F,     _F,      _F,      _F,       _F,    _F,      _F),
    RETRIED:     (_Y,  _R,      _Y,     _Y,      _Y,      _OK,      _F,    _J,      _V),
    REJECTED:    (_J,  _R,      _J,     _J,      _J,      _OK,      _F,    _J,      _V),
    REVOKED:     (_V,  _V,      _V,     _V,      _V,      _OK,      _F,    _J,      _V),
    CANCELLED:   (_V,  _V,      _V,     _V,      _V,      _OK,      _F,    _J,      _V),
}  # fmt: skip
_ONCE: Final = {FAILED: _F, SUCCEEDED: _OK}
"""Ends that an attempt has but once: another one of these at that stage is a twin."""


class Tracker:
    """The tasks under way. Not thread-safe: it belongs to the monitor.

    ``max_tasks`` bounds it (the oldest go first), ``max_age`` and ``linger`` are in seconds.
    """

    def __init__(self, *, max_tasks: int, max_age: float, linger: float, capture_arguments: bool = False) -> None:
        """Start empty; ``restore`` fills it."""
        self.tasks: dict[str, TaskRef] = {}
        self.evicted = 0
        self.arguments: dict[str, tuple[str | None, str | None]] = {}
        """args and kwargs as text, only with ``capture_arguments``; not kept over a restart."""
        self._capture_arguments = capture_arguments
        self._max_tasks = max_tasks
        self._max_age_minutes = max(1, int(max_age // 60))
        self._linger = linger
        self._lingering: deque[tuple[float, str]] = deque()
        self._time = 0.0
        """Seconds in which the stream brought something: the clock of what lingers. It never goes back."""
        self._ticked: float | None = None
        self._dirty: dict[str, None] = {}
        self._gone: list[str] = []
        self._names: dict[str, str] = {}
        self._minute = 0
        self.queue_of: dict[str, str] = {}
        """Task name → queue of its newest task-sent: most likely also that of a task-received that came first."""

    def restore(self, tracked: Iterable[tuple[str, TaskRef]]) -> None:
        """Take over what the store kept. Ended ones linger again: their twin may be the next message."""
        for uuid, ref in sorted(tracked, key=_seen):  # the oldest first, as they came
            self.tasks[uuid] = ref
            if ref.stage >= _OK:
                self._lingering.append((self._time + self._linger, uuid))

    def advance(self, event: Event, kind: int) -> tuple[TaskRef, float | None] | None:
        """Apply a task event. Returns the task and what the event measured, or None for the twin of an end.

        Measured are the seconds in the queue (task-started) or of work (task-succeeded), where known. The task's
        name is None when no event has told it yet.
        """
        uuid = event.uuid
        ref = self.tasks.get(uuid)
        if ref is None:
            ref = self.tasks[uuid] = TaskRef()
        elif ref.stage >= _OK and ref.stage == _ONCE.get(kind):
            return None
        self._dirty[uuid] = None
        ref.seen = self._minute
        measured = None
        if kind <= RECEIVED:
            self._introduce(ref, event, kind)
        elif kind == STARTED:
            if ref.due_at:
                measured = max(0.0, event.timestamp - ref.due_at)
                ref.due_at = 0.0
            ref.started_at = event.timestamp
        elif kind == SUCCEEDED:
            measured = event.runtime
            if measured is None and ref.started_at:
                measured = max(0.0, event.timestamp - ref.started_at)
        stage = _TRANSITIONS[kind][ref.stage]
        if kind == REJECTED and event.requeue and stage == _J:
            stage = _Q
        if stage >= _OK:
            self._end(uuid, ref, stage)
        ref.stage = stage
        return ref, measured

    def name(self, raw: str) -> str:
        """A task's name or a queue's as it is kept: one shared string, printable, at most LONGEST_NAME characters."""
        raw = raw[:LONGEST_NAME]
        known = self._names.get(raw)
        if known is None:
            known = printable(raw, LONGEST_NAME)
            if len(self._names) >= KNOWN_NAMES:
                self._names.clear()
                self.queue_of.clear()
            self._names[raw] = known
        return known

    def learn(self, tasks: Iterable[FleetTask]) -> None:
        """Take in what the workers say they hold: it began while nobody was watching."""
        for task in tasks:
            ref = self.tasks.get(task.uuid)
            if ref is None:
                stage = _T if task.started_at else _R
                ref = self.tasks[task.uuid] = TaskRef(stage=stage, started_at=task.started_at or 0.0)
                ref.seen = self._minute
            if ref.name is None:
                ref.name = self.name(task.name)
                self._dirty[task.uuid] = None
            if ref.queue is None and task.queue is not None:
                ref.queue = self.name(task.queue)
                self._dirty[task.uuid] = None

    def tick(self, now: float, *, quiet: float = 0.0) -> None:
        """Forget what lingered long enough, what is too old, and the oldest above the bound.

        ``quiet``: seconds since the last call in which the stream brought nothing.
        """
        self._minute = int(now // 60)
        if self._ticked is not None:
            self._time += max(0.0, now - self._ticked - quiet)
        self._ticked = now
        while self._lingering and self._lingering[0][0] <= self._time:
            uuid = self._lingering.popleft()[1]
            ref = self.tasks.get(uuid)
            if ref is not None and ref.stage >= _OK:
                self._forget(uuid)
        self._expire()
        if len(self.tasks) > self._max_tasks:
            self._evict(len(self.tasks) - self._max_tasks + self._max_tasks // 100)

    def take(self) -> tuple[list[tuple[str, TaskRef]], list[str]]:
        """What to save and what to delete since the last call. The saved entries are copies."""
        saved, gone = [], self._gone
        for uuid in self._dirty:
            ref = self.tasks[uuid]
            ref.saved = True
            saved.append((uuid, copy(ref)))
        self._dirty = {}
        self._gone = []
        return saved, gone

    def _introduce(self, ref: TaskRef, event: Event, kind: int) -> None:
        if event.name:
            ref.name = self._names.get(event.name) or self.name(event.name)
        if self._capture_arguments and (event.args or event.kwargs):
            self.arguments[event.uuid] = _cut(event.args), _cut(event.kwargs)
        if kind == SENT:
            if event.queue:
                ref.queue = self._names.get(event.queue) or self.name(event.queue)
                if ref.name is not None:
                    self.queue_of[ref.name] = ref.queue
            if event.timestamp <= ref.started_at:
                return  # it comes late, the wait is over
            ref.due_at = max(ref.due_at, event.timestamp)
        if event.eta is not None:
            eta = _unix_time(event.eta)
            if eta is not None and eta > ref.due_at:
                ref.due_at = eta

    def _end(self, uuid: str, ref: TaskRef, stage: int) -> None:
        if stage == _OK and (ref.queue is not None or ref.name not in self.queue_of):
            self._forget(uuid)
        elif ref.stage != stage:
            self._lingering.append((self._time + self._linger, uuid))

    def _forget(self, uuid: str) -> None:
        if self.tasks.pop(uuid).saved:
            self._gone.append(uuid)
        self._dirty.pop(uuid, None)  # else a store that is away for hours fills the memory with what is over
        if self.arguments:
            self.arguments.pop(uuid, None)

    def _expire(self) -> None:
        """Of the oldest; one that is still in use, such as an endless retry, does not hold up those behind it."""
        oldest = self._minute - self._max_age_minutes
        for uuid in list(islice(self.tasks, EXPIRED_PER_TICK)):
            if self.tasks[uuid].seen <= oldest:
                self._forget(uuid)

    def _evict(self, number: int) -> None:
        """At once and more than needed: finding a dict's first key costs all the deleted slots before it."""
        for uuid in list(islice(self.tasks, number)):
            self._forget(uuid)
        self.evicted += number


def _seen(entry: tuple[str, TaskRef]) -> int:
    return entry[1].seen


def _cut(text: str | None) -> str | None:
    # Twice of what is shown, so that a secret cut in half here does not escape the redaction.
    return None if text is None else clean(text[: LONGEST_ARGUMENTS * 2])


def _unix_time(iso: str) -> float | None:
    """Unix time of Celery's ISO 8601 eta; one without an offset is UTC (Celery's default)."""
    try:
        moment = datetime.fromisoformat(iso)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
