"""Tracks unfinished tasks by task ID.

Only task-sent and task-received contain a task's name; a failure has only a uuid. So every task is tracked from its
first event to its end. The table of transitions below defines what each event does to a run at each stage. It tolerates
events that are out of order or missing: a retry's task-received may arrive before task-retried, task-sent may arrive
last, and a lost event skips a stage.

**A run is identified by (task ID, worker).** One ID can be run by several workers, or several times by one worker: from
a Broadcast queue, after Redis' visibility_timeout, with acks_late after a lost worker, or because the application chose
the ID. Each run has its own stage, name and end. "Open" means received or started, "in the queue" means retried or
rejected with requeue, "ended" is the rest. The effect of an event depends on this worker's newest run of the ID and on
the runs of other workers:

    event          worker's own run     other workers' runs   result
    task-sent      any                  any                   no run. It names runs without a name; an entry that ended
                                                              a minute before it was sent starts again
    received       none                 none                  the entry's first run (after task-sent), or a new entry
                   none                 one in the queue      that run continues here: same run, other worker
                   none                 open or ended         another run
                   in the queue         any                   that run continues
                   open                 any                   another run: redelivered, replaced, or a retry whose
                                                              task-retried arrives later
                   failed               any                   another run; the failure is kept to detect a duplicate
                   ended otherwise      any                   that run starts again: the ID is reused
                   ended after it       any                   no run: the event arrived late. It names a run without
                                                              a name
    started        received             any                   a received run starts: the newest of the same name as
                                                              the first one that its worker has not returned
                                                              (``conditions/watch``)
                   none                 one in the queue      that run continues here
                   none                 open or ended         another run, named like the entry: its received was lost
                   started, ended       any                   that run (a received was lost)
    retried,       started              any                   its first run of that name goes into the queue; if a
    rejected with                                             later run of that name is open, that is its continuation
    requeue
    failed,        started              any                   its newest started run ends
    succeeded,     only received        any                   its first received run ends
    rejected,      in the queue         any                   that run ends
    revoked        ended                any                   failed, succeeded: duplicate of an end within a minute
                                                              (not counted), else another end; others: see the table
                   none                 one in the queue      that run ends here
                   none                 open or ended         another run, which has already ended

A run gets its name from its own worker's task-received; another worker's event, or a task-sent with another name, never
changes it. ``Task.replace`` sends the ID again under another name: the worker's new run has the new name, and replaces
the old one when it ends. A failure by a hard time limit right after a failure of that worker is a duplicate even if the
ID was received again in between.

When the last run has ended, the entry is no longer tracked. Exceptions are entries for which a further event may
follow: the duplicate of a failure (Celery 5.7 sends a hard time limit's task-failed twice, and a rejection after the
failure), a second task-revoked, or a missing task-sent in a fleet that sends them. Such entries linger for a minute,
which counts only while events arrive. If only some runs of an ID have ended, the others may never end (their worker was
lost): they are kept for some hours. Finished entries are remembered for some more minutes, in memory only, in case the
ID is run again or one of its events arrives late; after a start they are read from the ended tasks in the store.
"""

from collections.abc import Iterable
from typing import Final

from celery_monitor.core import runs
from celery_monitor.core.arguments import MAX_ARGUMENTS_LENGTH
from celery_monitor.core.entries import LEFT_OPEN
from celery_monitor.core.fast_path import Advance, FastPath
from celery_monitor.core.model import (
    FAILED,
    RECEIVED,
    REJECTED,
    RETRIED,
    SENT,
    STARTED,
    SUCCEEDED,
    Event,
    FleetTask,
    Stage,
    TaskRef,
)
from celery_monitor.core.names import SHORT, shortened_name
from celery_monitor.core.task_info import announce
from celery_monitor.core.transitions import TRANSITIONS

__all__ = ["LEFT_OPEN", "MAX_ARGUMENTS_LENGTH", "Tracker"]

NEW_LIFE: Final = 60.0
"""A task-sent this many seconds after the end reuses the ID. Before that it is late, as clocks differ by less."""

_S, _R, _T, _Y, _Q, _OK, _F, _J, _V = map(int, Stage)
"""Plain ints, because comparing enum members costs as much as the rest of a step."""
_ONCE: Final = {FAILED: _F, SUCCEEDED: _OK}
"""Ends that an attempt has only once: another such event at that stage is a duplicate."""
_APART: Final = frozenset({_R, _T, _F})
"""Stages at which a task-received starts another run."""


class Tracker(FastPath):
    """The active tasks, to which it applies events of any kind. Not thread-safe: it belongs to the monitor."""

    def advance(self, event: Event, kind: int) -> Advance:
        """Apply a task event. Returns the task's run and a measured duration, or None for the duplicate of an end.

        The duration in seconds is the time in the queue (task-started) or the run time (task-succeeded), if known. The
        run's name is None if no event has contained it yet.
        """
        return self.steps[kind](event, kind)

    def advance_any(self, event: Event, kind: int) -> Advance:
        """Like ``advance``, without the shortcuts for the usual events."""
        entry = self.tasks.get(event.uuid) or self._enter(event, kind)
        uuid = event.uuid
        if kind == RECEIVED and (ended := self._ended_after(entry, event)) is not None:
            return self._receive_late(ended, event), None
        ref = entry
        if (
            entry.others is not None
            or entry.stage >= _OK
            or (event.hostname != entry.host and kind != SENT and (kind != RECEIVED or entry.host))
            or (kind == RECEIVED and entry.stage in _APART)
        ):
            run = self._run(entry, event, kind)
            if run is None:
                return None
            ref = run
        entry.seen_minute = self._minute
        measured, counted, started_at = None, ref, ref.started_at
        if kind <= RECEIVED:
            counted = self._introduce(ref, event, kind)
        elif kind <= FAILED:
            if kind > STARTED and ref.stage == _T and event.timestamp - ref.started_at > self.slow:
                self._note_slow(ref, event)
            measured = _measured(ref, event, kind)
        stage = _next_stage(ref, event, kind)
        if stage >= _OK and stage != ref.stage and self._on_ended is not None and not (stage == _J and event.requeue):
            self._on_ended((uuid, ref, stage, started_at if ref.stage == _T else 0.0, event.timestamp, measured))
        if entry.others is not None or stage > _OK:
            self._move(uuid, entry, ref, stage, event)
        elif stage < _OK:
            ref.stage = stage
            self._dirty[uuid] = None
        else:
            self._succeed(uuid, ref, ref.stage)
        return counted, measured

    def name(self, raw: str) -> str:
        """The stored form of a task's or a queue's name."""
        return self._names[raw]

    def learn(self, tasks: Iterable[FleetTask]) -> list[str]:
        """Add the tasks that the workers report, which started unobserved. Returns the IDs that got a name."""
        named_uuids = []
        for task in tasks:
            uuid = shortened_name(task.uuid)
            entry = self.tasks.get(uuid)
            if entry is None:
                ended = self._recent.get(uuid)
                if ended is not None and (task.started_at or 0.0) <= ended.started_at:
                    continue  # it has ended since the worker was queried
                stage = _T if task.started_at else _R
                entry = self.tasks[uuid] = TaskRef(stage=stage, started_at=task.started_at or 0.0)
                entry.seen_minute = self._minute
            for run in runs.all_runs(entry):
                if run.name is None:
                    run.name = self.name(task.name)
                    self._dirty[uuid] = None
                    named_uuids.append(uuid)
                if run.queue is None and task.queue is not None:
                    run.queue = self.name(task.queue)
                    self._dirty[uuid] = None
        return named_uuids

    def clock_set_back(self, seconds: float, now: float) -> None:
        """The machine's clock was set back by ``seconds`` to ``now``: tasks under way are not from the future.

        An ETA stays, because it comes from a client's clock.
        """
        for uuid, entry in self.tasks.items():
            for run in runs.all_runs(entry):
                if max(run.sent_at, run.received_at, run.started_at) > now:
                    runs.move_back(run, seconds, now)
                    self._dirty[uuid] = None

    def named_run(self, uuid: str, hostname: str) -> TaskRef | None:
        """The run of this worker if it has a name, otherwise any run of the ID with a name."""
        entry = self.tasks.get(uuid) or self._recent.get(uuid)
        return None if entry is None else runs.newest_named(entry, self._hosts[hostname])

    def _enter(self, event: Event, kind: int) -> TaskRef:
        """A new entry, or the finished entry for a task-sent or task-received that arrives after the end.

        An ID that is too long is shortened, in the event as well. Known IDs are short.
        """
        uuid = event.uuid
        if len(uuid) > SHORT:
            uuid = event.uuid = shortened_name(uuid)
            known = self.tasks.get(uuid)
            if known is not None:
                return known
        recent = self._recent
        if uuid not in recent.newer and uuid not in recent.older:
            entry = TaskRef()
        elif self._is_late(recent.get(uuid), event, kind):
            entry = recent.pop(uuid)
            entry.saved = 0
            self._others += len(entry.others or ())
            self._lingering.append((self._time + self._linger, uuid))
        else:
            entry = recent.reopen(uuid)
        self.tasks[uuid] = entry
        return entry

    def _run(self, entry: TaskRef, event: Event, kind: int) -> TaskRef | None:
        """The run of the event, which may be a new one; None for the duplicate of an end."""
        if kind == SENT:
            self._sent_again(entry, event)
            return entry
        host = self._hosts[event.hostname]
        if entry.others is None and entry.stage < _OK and not entry.host:
            entry.host = host
            return entry
        if kind == FAILED and runs.is_time_limit_duplicate(entry, host, event):
            return None
        run = runs.find(entry, host, kind)
        if run is None:
            return self._fork(entry, host, event, kind)
        if host:
            run.host = host
        return None if _is_duplicate(run, event, kind) else run

    def _introduce(self, ref: TaskRef, event: Event, kind: int) -> TaskRef:
        """Apply the contents of a task-sent or task-received. Returns the run under which to count the event."""
        if kind == SENT:
            if self._capture_arguments:
                self.arguments.capture(event)
            return announce(ref, event, self._names, self._queues, self.queue_of)
        self._receive(ref, event)
        self._describe(ref, event)
        return ref

    def _is_late(self, entry: TaskRef | None, event: Event, kind: int) -> bool:
        """Whether a task-sent or task-received belongs to the finished runs, and does not reuse the ID."""
        if entry is None or kind > RECEIVED:
            return False
        if kind == RECEIVED:
            return self._ended_after(entry, event) is not None
        return event.timestamp <= max(map(runs.last_known_at, runs.all_runs(entry))) + NEW_LIFE

    def _ended_after(self, entry: TaskRef, event: Event) -> TaskRef | None:
        return runs.ended_after(entry, self._hosts[event.hostname], event.timestamp)

    def _receive_late(self, run: TaskRef, event: Event) -> TaskRef:
        """Apply a task-received of an ended run. Returns the run under which to count the event."""
        name = event.name and self.name(event.name)
        if name and run.name is None:
            run.name = name
        return TaskRef(name=name) if name and run.name != name else run

    def _fork(self, entry: TaskRef, host: str, event: Event, kind: int) -> TaskRef:
        template = runs.newest_named(entry, host) or entry
        run = TaskRef(name=template.name, host=host, sent_at=entry.sent_at, details=entry.details)
        if kind != RECEIVED or event.name is None or self.name(event.name) == template.name:
            run.queue = template.queue
        if kind <= STARTED:
            run.due_at = max(0.0, entry.due_at)
        others = entry.others = entry.others or []
        dropped = runs.given_up(others, host)
        if dropped is not None:
            others[:] = [other for other in others if other is not dropped]
            self._others -= 1
        others.append(run)
        self._others += 1
        return run

    def _sent_again(self, entry: TaskRef, event: Event) -> None:
        """Apply a task-sent that is not the first event: it announces further runs, or reuses an ID."""
        if not runs.is_open(entry):
            if self._is_late(entry, event, SENT):
                return
            self._others -= len(entry.others or ())
            entry.others, entry.stage, entry.host, entry.started_at = None, _S, "", 0.0
            entry.received_at, entry.details = 0.0, None
            entry.name = entry.queue = None
        for run in entry.others or ():
            announce(run, event, self._names, self._queues, self.queue_of)

    def _move(self, uuid: str, entry: TaskRef, ref: TaskRef, stage: int, event: Event) -> None:
        """Move a run to its next stage, and handle the runs that ended."""
        self._dirty[uuid] = None
        stage_before = ref.stage
        if stage == _J and event.requeue:
            stage = _Q
        ref.stage = stage
        if entry.others is not None and not self._is_over(uuid, entry, ref):
            return
        if stage == _OK:
            self._succeed(uuid, ref, stage_before)
        elif stage > _OK and stage_before != stage:
            self._lingering.append((self._time + self._linger, uuid))

    def _is_over(self, uuid: str, entry: TaskRef, ref: TaskRef) -> bool:
        """Whether every run has succeeded. Otherwise, handle the runs that this step has ended."""
        if ref.stage < _OK:
            if ref.stage > _T and runs.is_continued(entry, ref):
                entry = self._remove(uuid, entry, ref)
                if not runs.is_open(entry):
                    self._lingering.append((self._time + self._linger, uuid))
            return False
        for old in runs.replaced(entry, ref):
            entry = self._remove(uuid, entry, old)
        if runs.is_open(entry):
            self._left_open.pop(uuid, None)
            self._left_open[uuid] = self._time + LEFT_OPEN
            return False
        if all(run.stage == _OK for run in runs.all_runs(entry)):
            return True
        self._lingering.append((self._time + self._linger, uuid))
        return False

    def _remove(self, uuid: str, entry: TaskRef, run: TaskRef) -> TaskRef:
        """Remove one of several runs. Returns the entry, which is a different object if the first run is removed."""
        remaining = [other for other in runs.all_runs(entry) if other is not run]
        first, others = remaining[0], remaining[1:] or None
        first.saved, first.seen_minute, first.others = entry.saved, entry.seen_minute, others
        self.tasks[uuid] = first
        self._others -= 1
        return first


def _next_stage(ref: TaskRef, event: Event, kind: int) -> int:
    """The stage after the event. A run that is retried or requeued was not lost, so its time of loss is discarded."""
    if ref.due_at < 0 and (kind == RETRIED or (kind == REJECTED and event.requeue)):
        ref.due_at = 0.0
    return TRANSITIONS[kind][ref.stage]


def _is_duplicate(ref: TaskRef, event: Event, kind: int) -> bool:
    return ref.stage == _ONCE.get(kind) and abs(event.timestamp - ref.started_at) <= runs.DUPLICATE_SECONDS


def _measured(ref: TaskRef, event: Event, kind: int) -> float | None:
    """Record when a run started or ended. Returns the seconds in the queue, or the run time in seconds."""
    measured = None
    if kind == STARTED:
        if ref.due_at > 0:
            measured = max(0.0, event.timestamp - ref.due_at)
        ref.due_at = 0.0
    elif kind == SUCCEEDED:
        measured = event.runtime
        if measured is None and ref.started_at:
            measured = max(0.0, event.timestamp - ref.started_at)
    ref.started_at = event.timestamp
    return measured
