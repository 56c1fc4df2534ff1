"""uuid → what is known of a task whose end has not come.

Only task-sent and task-received carry a task's name; a failure has nothing but a uuid. So every task is remembered
from its first event to its end. The table of transitions below says what each event does to a run at each stage. Its
rows are written for a stream out of order: a retry's task-received may come before task-retried, task-sent may come
after everything else, and a lost event leaves a stage out.

**The identity of a run is (task ID, worker).** One ID is run by several workers, or several times by one: from a
Broadcast queue, after Redis' visibility_timeout, with acks_late after a lost worker, or because the application chose
the ID. Each run has its own stage, name and end. "Open" is received or started, "in the queue" is retried or rejected
with requeue, "ended" is the rest. What an event does, by the worker's own newest run of the ID, and by those of others:

    event          worker's own run     other workers' runs   result
    task-sent      any                  any                   no run. It names what has no name; an entry that ended
                                                              a minute before it was sent begins anew
    received       none                 none                  the entry's first run (after task-sent), or a new entry
                   none                 one in the queue      that run goes on here: same run, other worker
                   none                 open or ended         another run
                   in the queue         any                   that run goes on
                   open                 any                   another run: delivered again, a retry that overtook its
                                                              task-retried, or replaced
                   failed               any                   another run; the failure stays known for its twin
                   ended otherwise      any                   that run begins anew: the ID is used again
                   ended after it       any                   no run: the event is read late. It names a run without
                                                              a name
    started        received             any                   the first received one starts
                   none                 one in the queue      that run goes on here
                   none                 open or ended         another run, named as the entry: its received was lost
                   started, ended       any                   that run (a received was lost)
    retried,       started              any                   its first run of that name goes into the queue; where a
    rejected with                                             later run of the name is open, it has become that one
    requeue
    failed,        started              any                   its newest started run ends
    succeeded,     only received        any                   its first received run ends
    rejected,      in the queue         any                   that run ends
    revoked        ended                any                   failed, succeeded: twin of an end at most a minute away
                                                              (not counted), else another end; others: see the table
                   none                 one in the queue      that run ends here
                   none                 open or ended         another run that has ended at once

A run takes its name from its own worker's task-received; another worker's event, or a task-sent under another name,
never changes it. ``Task.replace`` sends the ID again under another name: the worker's new run has the new name, and
takes the place of the old one when it ends. A failure by a hard time limit right after a failure of that worker is a
twin also when the ID was received again in between.

When the last run has ended, the entry is over: it leaves what is tracked at once, but where something can still follow
that is to be seen by all: the twin of a failure (Celery 5.7 sends a hard time limit's task-failed twice, and a
rejection after the failure), a second task-revoked, or a task-sent that has not been seen in a fleet that sends them.
Such entries linger for a minute in which events come: while the broker stands still, what they wait for cannot come
either. When some runs of an ID have ended, the others may never end (their worker was lost): they are kept for some
hours. And what is over is known for some minutes more, in memory alone, in case the ID is run again or an event of it
is read late; a start takes it from the ended tasks of the store.
"""

from collections.abc import Iterable
from typing import Final

from celery_monitor.core import runs
from celery_monitor.core.arguments import MAX_ARGUMENTS_LENGTH
from celery_monitor.core.entries import LEFT_OPEN
from celery_monitor.core.fast_path import FastPath
from celery_monitor.core.model import (
    FAILED,
    RECEIVED,
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
"""Seconds from an end to a task-sent that is of another use of the ID, and not late; clocks differ by less."""

_S, _R, _T, _Y, _Q, _OK, _F, _J, _V = map(int, Stage)
"""Plain ints: comparing enum members costs as much as the rest of a step."""
_ONCE: Final = {FAILED: _F, SUCCEEDED: _OK}
"""Ends that an attempt has but once: another one of these at that stage is a twin."""
_WAITING: Final = (_S, _Y, _Q)
"""Stages at which the only run waits for its task-received."""
_APART: Final = frozenset({_R, _T, _F})
"""Stages at which a task-received begins another run."""


class Tracker(FastPath):
    """The tasks under way: what an event of any kind does to a run. Not thread-safe: it belongs to the monitor."""

    def advance(self, event: Event, kind: int) -> tuple[TaskRef, float | None] | None:
        """Apply a task event. Returns the task's run and what the event measured, or None for the twin of an end.

        Measured are the seconds in the queue (task-started) or of work (task-succeeded), where known. The task's
        name is None when no event has told it yet.
        """
        uuid = event.uuid
        entry = self.tasks.get(uuid)
        # Nearly every event is the next one of its task's only run, on its only worker. For those the table of
        # transitions, and what ``advance_any`` looks for, comes down to a few lines for each kind.
        if entry is None:
            recent = self._recent
            if kind <= RECEIVED and len(uuid) <= SHORT and uuid not in recent.newer and uuid not in recent.older:
                if kind == SENT:
                    return self._enter_sent(event), None
                entry = self.tasks[uuid] = TaskRef(None, None, _S)
                return self._receive(entry, event), None
        elif entry.others is None:
            stage = entry.stage
            if kind == STARTED:
                if stage < _OK and event.hostname == entry.host:
                    return entry, self._start(entry, event)
            elif kind == SUCCEEDED:
                if stage == _T and event.hostname == entry.host:
                    return entry, self._finish(entry, event)
            elif kind == RECEIVED and stage in _WAITING and (not entry.host or event.hostname == entry.host):
                return self._receive(entry, event), None
        return self.advance_any(event, kind)

    def advance_any(self, event: Event, kind: int) -> tuple[TaskRef, float | None] | None:
        """What ``advance`` does, for every event."""
        entry = self.tasks.get(event.uuid) or self._enter(event, kind)
        uuid = event.uuid
        if kind == RECEIVED and (ended := runs.ended_after(entry, event)) is not None:
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
        stage = TRANSITIONS[kind][ref.stage]
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
        """A task's name or a queue's as it is kept."""
        return self._names[raw]

    def learn(self, tasks: Iterable[FleetTask]) -> list[str]:
        """Take in what the workers say they hold: it began while nobody was watching. Returns the IDs named by it."""
        named_uuids = []
        for task in tasks:
            uuid = shortened_name(task.uuid)
            entry = self.tasks.get(uuid)
            if entry is None:
                ended = self._recent.get(uuid)
                if ended is not None and (task.started_at or 0.0) <= ended.started_at:
                    continue  # it has ended since the worker was asked
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

    def named_run(self, uuid: str, hostname: str) -> TaskRef | None:
        """The run of this worker, with a name; or any of the ID's that has one."""
        entry = self.tasks.get(uuid) or self._recent.get(uuid)
        return None if entry is None else runs.newest_named(entry, self._hosts[hostname])

    def _enter(self, event: Event, kind: int) -> TaskRef:
        """A new entry; for a task-sent or task-received that is read after the end, the one that is over.

        An ID that is too long is cut, in the event as well: IDs that are known are not.
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
        elif _is_late(recent.get(uuid), event, kind):
            entry = recent.pop(uuid)
            entry.saved = False
            self._others += len(entry.others or ())
            self._lingering.append((self._time + self._linger, uuid))
        else:
            entry = recent.reopen(uuid)
        self.tasks[uuid] = entry
        return entry

    def _run(self, entry: TaskRef, event: Event, kind: int) -> TaskRef | None:
        """The run that the event belongs to, a new one where it must be; None for the twin of an end."""
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
        """Take over what a task-sent or task-received tells. Returns what the event is to be counted under."""
        if kind == SENT:
            if self._capture_arguments:
                self.arguments.capture(event)
            return announce(ref, event, self._names, self._queues, self.queue_of)
        return self._receive(ref, event)

    def _receive_late(self, run: TaskRef, event: Event) -> TaskRef:
        """A task-received of a run that has ended. Returns what the event is to be counted under."""
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
        """A task-sent that is not the first event: of further runs, or of another use of an ID."""
        if not runs.is_open(entry):
            if _is_late(entry, event, SENT):
                return
            self._others -= len(entry.others or ())
            entry.others, entry.stage, entry.host, entry.started_at = None, _S, "", 0.0
            entry.received_at, entry.details = 0.0, None
            entry.name = entry.queue = None
        for run in entry.others or ():
            announce(run, event, self._names, self._queues, self.queue_of)

    def _move(self, uuid: str, entry: TaskRef, ref: TaskRef, stage: int, event: Event) -> None:
        """Bring a run to its next stage, and see to what has ended."""
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
        """Whether every run has succeeded; else sees to those that this one's step has ended."""
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
        """Take out one of several runs. Returns the entry, which is another one when the first run goes."""
        remaining = [other for other in runs.all_runs(entry) if other is not run]
        first, others = remaining[0], remaining[1:] or None
        first.saved, first.seen_minute, first.others = entry.saved, entry.seen_minute, others
        self.tasks[uuid] = first
        self._others -= 1
        return first


def _is_late(entry: TaskRef | None, event: Event, kind: int) -> bool:
    """Whether a task-sent or task-received is of the runs that are over, and not of another use of the ID."""
    if entry is None or kind > RECEIVED:
        return False
    if kind == RECEIVED:
        return runs.ended_after(entry, event) is not None
    return event.timestamp <= max(map(runs.last_known_at, runs.all_runs(entry))) + NEW_LIFE


def _is_duplicate(ref: TaskRef, event: Event, kind: int) -> bool:
    return ref.stage == _ONCE.get(kind) and abs(event.timestamp - ref.started_at) <= runs.DUPLICATE_SECONDS


def _measured(ref: TaskRef, event: Event, kind: int) -> float | None:
    """Note when a run began or ended. The seconds in the queue, or of work."""
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
