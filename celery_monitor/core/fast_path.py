"""The usual sequence of a task's events: sent, received, started and its end, from one worker, in this order.

Nearly every event belongs to it: it is the next one of its task's only run, on its only worker. For these, the table of
transitions and the checks of ``Tracker.advance_any``, which handles all events, reduce to a few lines for each kind. An
attribute is assigned only if its value changes: assigning one of a msgspec struct takes five times as long as reading
it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from celery_monitor.core.arguments import TaskArguments
from celery_monitor.core.entries import Entries
from celery_monitor.core.model import Event, Stage, TaskRef
from celery_monitor.core.names import SHORT, Names, fitted_queue
from celery_monitor.core.task_info import delay, limit, relate

MAX_KNOWN_NAMES: Final = 20_000
"""Maximum number of cached names. All entries of a task share one string."""
MAX_KNOWN_HOSTS: Final = 10_000
"""The same for workers."""
MAX_SLOW: Final = 1_000
"""Maximum number of slow runs that are kept until they are taken."""
Advance = tuple[TaskRef, float | None] | None
"""The result of ``Tracker.advance``."""
SlowEnd = tuple[str, str, str | None, str, float, float]
"""Task ID, name, queue if known, worker, start time, and run time in seconds."""
End = tuple[str, TaskRef, int, float, float, float | None]
"""Task ID, run, its stage at the end, start time (0: unknown), end time, and run time in seconds."""

_S, _R, _T = map(int, list(Stage)[:3])
_OK: Final = int(Stage.SUCCEEDED)
_F: Final = int(Stage.FAILED)
_WAITING: Final = (_S, int(Stage.RETRYING), int(Stage.REQUEUED))
"""Stages at which the only run waits for its task-received."""


class FastPath(Entries, ABC):
    """The entries, and the steps of the usual sequence. Not thread-safe: it belongs to the monitor."""

    def __init__(
        self,
        *,
        max_tasks: int,
        max_age: float,
        linger: float,
        capture_arguments: bool = False,
        max_argument_bytes: int = 32 * 1024 * 1024,
        on_ended: Callable[[End], None] | None = None,
    ) -> None:
        """Start empty; ``restore`` fills it. ``on_ended`` is called for each ended run. Others: see ``Entries``."""
        super().__init__(
            max_tasks=max_tasks, max_age=max_age, linger=linger, arguments=TaskArguments(max_argument_bytes)
        )
        self.slow = math.inf
        """Run time in seconds above which an ended run is added to ``slow_runs``."""
        self.slow_runs: list[SlowEnd] = []
        self._on_ended = on_ended
        self._capture_arguments = capture_arguments
        self.queue_of: dict[str, str] = {}
        """Task name → queue of its newest task-sent: probably also the queue of a task-received without task-sent."""
        self._names = Names(MAX_KNOWN_NAMES, on_clear=self.queue_of.clear)
        self._queues = Names(MAX_KNOWN_NAMES, normalize=fitted_queue)
        self._hosts = Names(MAX_KNOWN_HOSTS)
        self.steps = (
            self._sent, self._received, self._started, self._succeeded, self._failed, *[self.advance_any] * 4,
        )  # fmt: skip
        """``Tracker.advance`` for each kind. The hot path calls these directly, which saves a call for each event."""

    @property
    def arguments_bytes(self) -> int:
        """Memory used by the arguments, in bytes."""
        return self.arguments.bytes

    @property
    def arguments_cut(self) -> int:
        """The number of tasks whose arguments were dropped because of the limit."""
        return self.arguments.cut

    def shed_load(self) -> None:
        """Like ``Entries``, and forget all cached names."""
        super().shed_load()
        self._names.clear()
        self._queues.clear()
        self._hosts.clear()
        self.queue_of.clear()

    @abstractmethod
    def advance_any(self, event: Event, kind: int) -> Advance:
        """Apply a task event of any kind in any order."""

    def _sent(self, event: Event, kind: int) -> Advance:
        """Usually the task-sent is the first event of its task: enter it."""
        uuid, recent = event.uuid, self._recent
        if uuid in self.tasks or len(uuid) > SHORT or uuid in recent.newer or uuid in recent.older:
            return self.advance_any(event, kind)
        at, name, queue = event.timestamp, event.name, event.queue
        name = self._names[name] if name else None
        if queue:
            queue = self._queues[queue]
            if name is not None:
                self.queue_of[name] = queue
        ref = self.tasks[uuid] = TaskRef(name, queue or None, _S, at, 0.0, self._minute, 0, "", None, at)
        self._dirty[uuid] = None
        if event.root_id != uuid or event.parent_id is not None or event.retries:
            relate(ref, event)
        if event.expires is not None:
            limit(ref, event.expires)
        if event.eta is not None and at > 0.0:
            delay(ref, event.eta)
        if self._capture_arguments:
            self.arguments.capture(event)
        return ref, None

    def _received(self, event: Event, kind: int) -> Advance:
        """Usually the task-received follows the task-sent or a retry, or is the first event of its task."""
        uuid, name = event.uuid, event.name
        ref, recent = self.tasks.get(uuid), self._recent
        if ref is None:
            if len(uuid) > SHORT or uuid in recent.newer or uuid in recent.older:
                return self.advance_any(event, kind)
            host, name = self._hosts[event.hostname], self._names[name] if name else None
            ref = TaskRef(name, None, _R, 0.0, 0.0, self._minute, 0, host, None, 0.0, event.timestamp)
            self.tasks[uuid] = ref
        elif ref.others is None and ref.stage in _WAITING and (not ref.host or event.hostname == ref.host):
            self._receive(ref, event)
        else:
            return self.advance_any(event, kind)
        self._dirty[uuid] = None
        # Inlined from ``_describe``.
        if event.root_id != uuid or event.parent_id is not None or event.retries:
            relate(ref, event)
        if event.eta is not None:
            delay(ref, event.eta)
        if event.expires is not None:
            limit(ref, event.expires)
        if self._capture_arguments:
            self.arguments.capture(event)
        return ref, None

    def _receive(self, ref: TaskRef, event: Event) -> None:
        """A run that was known before was received."""
        ref.stage, ref.received_at = _R, event.timestamp
        if ref.seen_minute != self._minute:
            ref.seen_minute = self._minute
        if event.name and (name := self._names[event.name]) != ref.name:
            ref.name = name
        if not ref.host:
            ref.host = self._hosts[event.hostname]

    def _describe(self, ref: TaskRef, event: Event) -> None:
        """Apply the contents of a task-received, beside names."""
        if event.root_id != event.uuid or event.parent_id is not None or event.retries:
            relate(ref, event)
        if event.eta is not None:
            delay(ref, event.eta)
        if event.expires is not None:
            limit(ref, event.expires)
        if self._capture_arguments:
            self.arguments.capture(event)

    def _started(self, event: Event, kind: int) -> Advance:
        """Usually the only run has started. Measures the seconds in the queue, if known."""
        uuid = event.uuid
        ref = self.tasks.get(uuid)
        if ref is None or ref.others is not None or ref.stage >= _OK or event.hostname != ref.host:
            return self.advance_any(event, kind)
        at, due_at = event.timestamp, ref.due_at
        ref.stage, ref.started_at = _T, at
        if ref.seen_minute != self._minute:
            ref.seen_minute = self._minute
        self._dirty[uuid] = None
        if not due_at:
            return ref, None
        ref.due_at = 0.0
        if due_at < 0.0:
            return ref, None
        return ref, at - due_at if at > due_at else 0.0

    def _succeeded(self, event: Event, kind: int) -> Advance:
        """Usually the only run, which had started, has succeeded. Measures the run time in seconds, if known."""
        uuid = event.uuid
        ref = self.tasks.get(uuid)
        if ref is None or ref.stage != _T or ref.others is not None or event.hostname != ref.host:
            return self.advance_any(event, kind)
        at, started_at, measured = event.timestamp, ref.started_at, event.runtime
        if at - started_at > self.slow:
            self._note_slow(ref, event)
        if measured is None and started_at:
            measured = max(0.0, at - started_at)
        ref.started_at = at
        if ref.seen_minute != self._minute:
            ref.seen_minute = self._minute
        if (on_ended := self._on_ended) is not None:
            on_ended((uuid, ref, _OK, started_at, at, measured))
        name = ref.name
        if name is None or self.arguments or (ref.queue is None and name in self.queue_of):
            self._succeed(uuid, ref, _T)
            return ref, measured
        # Inlined from ``_succeed`` and ``_forget``.
        ref.stage = _OK
        del self.tasks[uuid]
        self._dirty.pop(uuid, None)
        if ref.saved:
            self._gone.append((uuid, ref.saved))
        self._recent.add(uuid, ref)
        return ref, measured

    def _failed(self, event: Event, kind: int) -> Advance:
        """Usually the only run, which had started, has failed. A repetition of the event may follow."""
        uuid = event.uuid
        ref = self.tasks.get(uuid)
        if ref is None or ref.stage != _T or ref.others is not None or event.hostname != ref.host:
            return self.advance_any(event, kind)
        at, started_at = event.timestamp, ref.started_at
        if at - started_at > self.slow:
            self._note_slow(ref, event)
        ref.started_at = at
        if ref.seen_minute != self._minute:
            ref.seen_minute = self._minute
        if (on_ended := self._on_ended) is not None:
            on_ended((uuid, ref, _F, started_at, at, None))
        ref.stage = _F
        self._dirty[uuid] = None
        self._lingering.append((self._time + self._linger, uuid))
        return ref, None

    def _note_slow(self, ref: TaskRef, event: Event) -> None:
        if len(self.slow_runs) < MAX_SLOW and ref.started_at and ref.name is not None:
            runtime = event.timestamp - ref.started_at
            self.slow_runs.append((event.uuid, ref.name, ref.queue, event.hostname, ref.started_at, runtime))

    def _succeed(self, uuid: str, ref: TaskRef, stage_before: int) -> None:
        """The only run, or the last of several, has succeeded. Only a task-sent can follow."""
        ref.stage = _OK
        if ref.name is not None and (ref.queue is not None or ref.name not in self.queue_of):
            self._recent.add(uuid, self._forget(uuid))
            return
        self._dirty[uuid] = None
        if stage_before != _OK:
            self._lingering.append((self._time + self._linger, uuid))
