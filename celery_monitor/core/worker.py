"""One worker, and the audit that detects tasks whose events were not received.

A heartbeat contains ``processed``, the number of tasks that this run of the worker has started. The monitor counts the
worker's task-started events. The difference, minus the difference when the worker was first seen (the baseline), is the
number of tasks that were started but never observed. Heartbeats can overtake buffered task events, so only the smallest
difference of three consecutive heartbeats counts. A counted loss is added to the baseline, so that it counts only once.

A run ends when the same hostname appears with another process ID, when ``processed`` restarts, or when the worker falls
silent. Buffered events died with it, so its last difference counts. If several processes share a hostname (containers
with a fixed one), their heartbeats alternate: heartbeats with a lower ``processed`` than before are strays, and while
there are strays, nothing counts as unobserved.
"""

import math
from enum import Enum, auto
from typing import Final, NamedTuple

from celery_monitor.core.clock_skew import ClockSkew
from celery_monitor.core.model import Event, Worker

HEARTBEATS_COMPARED: Final = 3
STRAYS_BEFORE_NEW_RUN: Final = 10
"""Consecutive strays after which they count as a new run."""
MAX_PIDS: Final = 8
SHARED_FOR: Final = 600.0
"""Watched seconds after a stray for which the worker's name counts as shared."""
BETWEEN: Final = 1.0
"""Seconds before a heartbeat's timestamp in which a task that it does not count may have started: in a threaded worker,
a task can start while the heartbeat is created."""
_TIMES: Final = ("began_at", "goodbye_at", "goodbye_sign", "idle_at", "idle_before")
"""Fields of a WorkerState in Unix seconds."""
SETTLING_TIME: Final = 60.0
"""Watched seconds within which the tasks of the previous process may not have been judged yet."""
MAX_TEXT_LENGTH: Final = 64

ONLINE: Final = "worker-online"
HEARTBEAT: Final = "worker-heartbeat"
OFFLINE: Final = "worker-offline"
KINDS: Final = frozenset({ONLINE, HEARTBEAT, OFFLINE})


class Run(Enum):
    """Which run of the worker an event belongs to."""

    SAME = auto()
    NEW = auto()
    STRAY = auto()
    """Another process with the same name, or a late event."""


class Liveness(NamedTuple):
    """The signs of life of a worker. Watched time: seconds in which the stream was watched."""

    last_seen: float
    """Watched time of its last event."""
    last_sign: float
    """Unix time of its last event, by the monitor's clock."""
    began: float
    """Watched time of the first event of its present process; 0 if it was known before the start."""
    began_at: float
    """Earliest Unix time at which that process may have begun; 0 if unknown."""
    stray_at: float
    """Watched time of the last event of another process under this name."""
    no_heartbeats: bool
    """Whether it sends no heartbeats."""
    goodbye: float
    """Watched time of its last worker-offline, also of an earlier process; negative if it was before the start, minus
    infinity without one."""
    goodbye_sign: float
    """Unix time of its last event before that worker-offline."""
    idle_at: float
    """Unix time of the present process's last heartbeat or worker-offline without active tasks: none of its tasks
    started before; 0 without one."""
    idle_before: float
    """The same for earlier processes."""

    def is_shared(self, watched: float) -> bool:
        """Whether several processes share this name, so that runs cannot be attributed to one."""
        return watched - self.stray_at < SHARED_FOR


class WorkerState:
    """One worker, mutable."""

    __slots__ = (
        "baseline",
        "before",
        "began",
        "began_at",
        "differences",
        "dirty",
        "event",
        "frozen",
        "goodbye",
        "goodbye_at",
        "goodbye_sign",
        "idle_at",
        "idle_before",
        "interrupted",
        "last_received_at",
        "no_heartbeats",
        "pids",
        "settled",
        "skew",
        "started_lately",
        "started_seen",
        "stray_at",
        "strays",
        "unfinished",
        "unobserved",
        "up",
    )  # fmt: skip

    def __init__(self, event: Event, now: float, baseline: int) -> None:
        """``event``: the first event of the worker."""
        self.event = _shown_fields(event)
        self.last_received_at = now
        self.up = True
        self.pids: tuple[int | None, ...] = (event.pid,)
        """Process IDs of its newest runs, the present one last."""
        self.strays = 0
        self.stray_at = -SHARED_FOR
        self.began = self.began_at = 0.0
        self.goodbye = self.goodbye_sign = -math.inf
        self.goodbye_at = 0.0
        self.unfinished = 0
        """Tasks that were active at its worker-offline and have not ended yet."""
        self.idle_at = self.idle_before = 0.0
        self.interrupted = False
        """The stream was interrupted since its last event, so the beginning of a run may be missing."""
        self.started_seen = 0
        self.started_lately = 0
        """Those since the last heartbeat: they may belong to the next run already."""
        self.baseline = baseline
        self.no_heartbeats = False
        """No heartbeat has been received."""
        self.skew = ClockSkew()
        self.unobserved = 0
        self.before = 0
        self.settled = False
        self.differences: tuple[int, ...] = ()
        """Differences of the newest heartbeats; a deque would take 750 bytes per worker."""
        self.frozen: Worker | None = None
        self.dirty = True

    @property
    def processed(self) -> int:
        """Tasks that its present process has started."""
        return self.event.processed or 0

    def changed(self) -> None:
        """Mark the worker as changed, so that it is stored and its copy is renewed."""
        self.dirty, self.frozen = True, None

    def correct(self, difference: float, *, begins: bool) -> None:
        """Correct the worker's times after its clock offset changed by ``difference`` (< 0: its clock is ahead).

        Tasks that it started before have uncorrected times. So unless this is the first event (``begins``), the times
        may become earlier but not later: later times would make its running tasks count as ended or lost.
        """
        if difference < 0 or begins:
            self.began_at += difference if self.began_at else 0.0
            self.idle_at += difference if self.idle_at else 0.0

    def clock_set_back(self, seconds: float, now: float) -> None:
        """The monitor's clock was set back by ``seconds`` to ``now``.

        Times that the clock showed before are not in the future: its new tasks would count as lost or ended until then.
        """
        for name in _TIMES:
            at = getattr(self, name)
            if at > now:
                setattr(self, name, at - seconds)
        self.skew.clock_set_back(seconds)

    def classify_run(self, event: Event) -> Run:
        """The run that an event belongs to. In a container every run has the same process ID."""
        processed = event.processed or 0
        if event.type == ONLINE and not processed:
            return Run.NEW  # after a mere reconnect, ``processed`` continues
        if event.pid and self.event.pid and event.pid != self.event.pid:
            if event.type == OFFLINE:
                return Run.STRAY  # worker-offline of a run that has a successor
            return Run.STRAY if self.up and event.pid in self.pids else Run.NEW
        if event.type == OFFLINE or processed >= self.processed:
            return Run.SAME
        return Run.NEW if self.interrupted or not self.up or self.strays >= STRAYS_BEFORE_NEW_RUN else Run.STRAY

    def liveness(self) -> Liveness:
        """Its signs of life."""
        return Liveness(
            self.last_received_at, self.event.timestamp + self.skew.offset, self.began, self.began_at, self.stray_at,
            self.no_heartbeats, self.goodbye, self.goodbye_sign, self.idle_at, self.idle_before,
        )  # fmt: skip

    def notice(self, now: float, unix_now: float) -> None:
        """Record a sign of life other than a heartbeat."""
        self.last_received_at, self.event.timestamp, self.up = now, unix_now, True
        self.changed()

    def record_stray(self, now: float) -> None:
        """Record a heartbeat of another process with this name."""
        self.last_received_at = self.stray_at = now
        self.strays += 1
        self.differences = ()

    def begin_run(self, event: Event, now: float) -> int:
        """A new process has this name. Returns how many tasks of the previous one were not observed."""
        if now - self.began >= SETTLING_TIME:
            self.idle_before = self.idle_at
        self.idle_at = 0.0
        self.began = now
        self.began_at = self.skew.offset + (event if event.type == ONLINE else self.event).timestamp
        lost = self.end_run()
        self.before += self.processed
        if event.pid != self.event.pid:
            self.pids = (*self.pids, event.pid)[-MAX_PIDS:]
        self.started_seen = 0 if event.type == ONLINE else self.started_lately
        self.baseline, self.settled = 0, True
        self.differences = ()
        self.skew = ClockSkew(self.skew.offset)  # another process, perhaps on another machine
        return lost

    def end_run(self) -> int:
        """The run has ended and sends no more events. Returns how many of its tasks were not observed."""
        return self._lose(self.processed - self.started_seen) if len(self.differences) == HEARTBEATS_COMPARED else 0

    def say_goodbye(self, event: Event) -> None:
        """Record its worker-offline."""
        self.goodbye = self.last_received_at
        self.goodbye_sign = self.event.timestamp + self.skew.offset
        self.goodbye_at, self.unfinished = event.timestamp + self.skew.offset, event.active or 0
        if event.active == 0:
            self.idle_at = self.goodbye_at - BETWEEN
        self.up = False
        self.event.active = 0

    def beat(self, event: Event) -> int:
        """Record its heartbeat or worker-online. Returns how many tasks are newly known not to have been observed."""
        self.up, self.event, self.started_lately = True, _shown_fields(event), 0
        if event.active == 0:
            self.idle_at = event.timestamp + self.skew.offset - BETWEEN
        difference = self.processed - self.started_seen
        if not self.settled:
            # Events of tasks started before the worker was first seen may still be buffered.
            self.baseline = min(self.baseline, difference)
            self.settled = len(self.differences) == HEARTBEATS_COMPARED - 1
        self.differences = (*self.differences, difference)[-HEARTBEATS_COMPARED:]
        return self._lose(min(self.differences)) if len(self.differences) == HEARTBEATS_COMPARED else 0

    def freeze(self, hostname: str) -> Worker:
        """The immutable value that is stored and shown."""
        event = self.event
        self.frozen = Worker(
            hostname=hostname,
            up=self.up,
            last_heartbeat=event.timestamp + self.skew.offset,
            active=event.active or 0,
            processed=event.processed or 0,
            pid=event.pid or 0,
            sw_ident=event.sw_ident or "",
            sw_ver=event.sw_ver or "",
            sw_sys=event.sw_sys or "",
            started_seen=self.started_seen,
            baseline=self.baseline,
            unobserved=self.unobserved,
            processed_before=self.before,
            clock_offset=self.skew.offset,
            heartbeats=not self.no_heartbeats,
            began_at=self.began_at,
            goodbye_at=self.goodbye_at,
            goodbye_sign=self.goodbye_sign if self.goodbye_at else 0.0,
            unfinished=self.unfinished,
        )
        return self.frozen

    def _lose(self, difference: int) -> int:
        """Count the tasks beyond the baseline as unobserved."""
        lost = difference - self.baseline
        if lost <= 0:
            return 0
        self.unobserved += lost
        self.baseline += lost
        self.changed()
        return lost


def restored_state(worker: Worker, timeout: float, unix_now: float) -> WorkerState:
    """The state of a stored worker. If it was seen recently, it is up until it has been silent for too long."""
    event = Event(
        type=HEARTBEAT,
        timestamp=worker.last_heartbeat - worker.clock_offset,
        hostname=worker.hostname,
        active=worker.active,
        processed=worker.processed,
        pid=worker.pid,
        sw_ident=worker.sw_ident,
        sw_ver=worker.sw_ver,
        sw_sys=worker.sw_sys,
    )
    state = WorkerState(event, 0.0, worker.baseline)
    state.up = worker.up and unix_now - worker.last_heartbeat <= timeout
    state.started_seen, state.unobserved = worker.started_seen, worker.unobserved
    state.before = worker.processed_before
    state.settled, state.dirty = True, False
    state.no_heartbeats = not worker.heartbeats
    state.began_at = worker.began_at
    if worker.up and worker.active == 0:
        state.idle_at = worker.last_heartbeat - BETWEEN
    if worker.goodbye_at:
        state.goodbye = min(0.0, worker.goodbye_at - unix_now)
        state.goodbye_at, state.goodbye_sign = worker.goodbye_at, worker.goodbye_sign
        state.unfinished = worker.unfinished
    state.skew = ClockSkew(worker.clock_offset, known=True)
    return state


def _shown_fields(event: Event) -> Event:
    """The fields that are shown. An event may contain other fields of any size."""
    return Event(
        type=event.type,
        timestamp=event.timestamp,
        active=event.active,
        processed=event.processed,
        pid=event.pid,
        loadavg=event.loadavg,
        sw_ident=(event.sw_ident or "")[:MAX_TEXT_LENGTH],
        sw_ver=(event.sw_ver or "")[:MAX_TEXT_LENGTH],
        sw_sys=(event.sw_sys or "")[:MAX_TEXT_LENGTH],
    )
