"""Workers as their heartbeats tell of them, and the audit of what the stream did not show.

A heartbeat carries ``processed``, the number of tasks that this run of the worker has started. The monitor counts the
task-started events that it sees of it. The difference, less what it was when the worker was first seen, is what was
begun and never observed. Heartbeats can overtake buffered task events, so only the least difference of three
heartbeats in a row counts. A loss that was counted moves the baseline, so that it is counted once.

A run ends when the same name comes with another process id or begins to count anew, or by silence. What was buffered
then died with it: its last difference counts as it is. Where several processes share a name (containers with a fixed
one), their heartbeats alternate: those that tell less than was told before are strays, and where strays are nothing is
counted as lost.

What is shown for a host never falls while the host is known: a run that ends hands its tasks on to the next one, and a
worker that is dropped to another one on its host.

A worker without heartbeats (``--without-heartbeat``) is known by its task events and its answers. Nothing is known of
what it has begun, so nothing is counted as lost. Whose clock is wrong is told by ``core/clock_skew``.

Times (``now``) are seconds in which the stream was watched: without a stream nobody can be heard, and nobody is silent.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from enum import Enum, auto
from typing import Final, NamedTuple

from celery_monitor.core.clock_skew import ClockSkew
from celery_monitor.core.model import Event, Worker
from celery_monitor.core.text import host_of

HEARTBEATS_COMPARED: Final = 3
STRAYS_BEFORE_NEW_RUN: Final = 10
"""Heartbeats that tell less, with none between that does not: this is the run, whatever its beginning was."""
MAX_PIDS: Final = 8
SHARED_FOR: Final = 600.0
"""Watched seconds after an event of another process under a worker's name in which it counts as shared."""
BETWEEN: Final = 1.0
"""Seconds before a heartbeat's timestamp in which a task may have begun that it does not count: with threads, one can
begin while the heartbeat is made."""
SHORT_LIVED: Final = 60.0
"""Watched seconds within which what the process before left behind may not have been judged yet."""
MAX_TEXT_LENGTH: Final = 64
MAX_HOSTNAME_LENGTH: Final = 255
MAX_WORKERS: Final = 5_000
"""More are not kept: somebody invents them."""

ONLINE: Final = "worker-online"
HEARTBEAT: Final = "worker-heartbeat"
OFFLINE: Final = "worker-offline"
KINDS: Final = frozenset({ONLINE, HEARTBEAT, OFFLINE})


class _Run(Enum):
    """Whose event it is."""

    SAME = auto()
    NEW = auto()
    STRAY = auto()
    """Another process's of the same name, or one that comes late."""


class Life(NamedTuple):
    """The signs of life of a worker. Those by watched time are seconds in which the stream was watched."""

    heard: float
    """Watched time of its last event."""
    last_sign: float
    """Unix time of its last event, by the monitor's clock."""
    began: float
    """Watched time when its present process was first heard; 0 for one that was there before."""
    began_at: float
    """Unix time when that process began at the earliest; 0 when it is not known."""
    stray_at: float
    """Watched time of the last event of another process under this name."""
    mute: bool
    """It sends no heartbeats."""
    goodbye: float
    """Watched time of its last good-bye, also of a process before; negative for one before the start, infinitely long
    ago without one."""
    goodbye_sign: float
    """Unix time of its last event before that."""
    idle_at: float
    """Unix time before which nothing that the present process runs has begun, by its last heartbeat or good-bye that
    says that it runs nothing; 0 without one."""
    idle_before: float
    """The same of the processes before."""

    def is_shared(self, watched: float) -> bool:
        """Whether several processes have this name: nothing tells whose a run is."""
        return watched - self.stray_at < SHARED_FOR


class _WorkerState:
    """One worker, mutable."""

    __slots__ = ("baseline", "before", "began", "began_at", "differences", "dirty", "event", "frozen", "goodbye",
                 "goodbye_at", "goodbye_sign", "idle_at", "idle_before", "last_received_at", "missed", "mute", "pids",
                 "settled", "skew", "started_lately", "started_seen", "stray_at", "strays", "unfinished",
                 "unobserved", "up")  # fmt: skip

    def __init__(self, event: Event, now: float, baseline: int) -> None:
        self.event = _kept(event)
        self.last_received_at = now
        self.up = True
        self.pids: tuple[int | None, ...] = (event.pid,)
        """Of its newest runs, the present one last."""
        self.strays = 0
        self.stray_at = -SHARED_FOR
        self.began = self.began_at = 0.0
        self.goodbye = self.goodbye_sign = -math.inf
        self.goodbye_at = 0.0
        self.unfinished = 0
        """Tasks that ran when it said good-bye, and whose ends have not come."""
        self.idle_at = self.idle_before = 0.0
        self.missed = False
        """The stream was not watched since it was last heard: the beginning of a run may be missing."""
        self.started_seen = 0
        self.started_lately = 0
        """Of these, since the last heartbeat: they may be another run's already."""
        self.baseline = baseline
        self.mute = False
        """No heartbeat has come."""
        self.skew = ClockSkew()
        self.unobserved = 0
        self.before = 0
        self.settled = False
        self.differences: deque[int] = deque(maxlen=HEARTBEATS_COMPARED)
        self.frozen: Worker | None = None
        self.dirty = True

    @property
    def processed(self) -> int:
        return self.event.processed or 0

    def changed(self) -> None:
        self.dirty, self.frozen = True, None

    def correct(self, difference: float, *, begins: bool) -> None:
        """Its clock turns out to be ahead (``difference`` < 0), or behind: when it began and was idle is set right.

        What it began before that is known by uncorrected times. So unless this is its first event (``begins``), these
        times may become earlier, but not later: later ones would end, or lose, what it runs.
        """
        if difference < 0 or begins:
            self.began_at += difference if self.began_at else 0.0
            self.idle_at += difference if self.idle_at else 0.0

    def classify_run(self, event: Event) -> _Run:
        """An event of the worker: of which run. In a container every run has the same process id."""
        processed = event.processed or 0
        if event.type == ONLINE and not processed:
            return _Run.NEW  # one that has only connected again counts on
        if event.pid and self.event.pid and event.pid != self.event.pid:
            if event.type == OFFLINE:
                return _Run.STRAY  # the farewell of a run that has a successor
            return _Run.STRAY if self.up and event.pid in self.pids else _Run.NEW
        if event.type == OFFLINE or processed >= self.processed:
            return _Run.SAME
        return _Run.NEW if self.missed or not self.up or self.strays >= STRAYS_BEFORE_NEW_RUN else _Run.STRAY


class Workers:
    """All workers of the fleet. Not thread-safe: it belongs to the monitor. ``timeout`` ≤ ``purge``, in seconds.

    ``most`` bounds them: more are not kept, because somebody invents them. ``overflows`` counts the events of those.
    """

    def __init__(
        self, *, timeout: float, purge: float, most: int = MAX_WORKERS, overflows: Counter[str] | None = None
    ) -> None:
        """Start empty; ``restore`` fills it."""
        self._most = most
        self._overflows = overflows if overflows is not None else Counter()
        self.unobserved = 0
        self.offsets: dict[str, float] = {}
        """Worker → seconds to add to its timestamps, of those whose clocks are wrong."""
        self.finishing: dict[str, _WorkerState] = {}
        """Workers that have said good-bye while they ran tasks. Nearly always empty."""
        self._timeout = timeout
        self._purge = purge
        self._states: dict[str, _WorkerState] = {}
        self._dropped: list[str] = []
        self._full = False
        """At the last look none could be dropped."""

    def __len__(self) -> int:
        """How many are known."""
        return len(self._states)

    def __contains__(self, hostname: object) -> bool:
        return hostname in self._states

    def __iter__(self) -> Iterator[str]:
        """Their hostnames."""
        return iter(self._states)

    def down(self) -> set[str]:
        """Hostnames of those that went offline, or are not heard of any more."""
        return {hostname for hostname, state in self._states.items() if not state.up}

    def up(self) -> set[str]:
        """Hostnames of those that are heard of."""
        return {hostname for hostname, state in self._states.items() if state.up}

    def restore(self, workers: Iterable[Worker], unix_now: float) -> None:
        """Take over what the store kept. Those who were heard of lately are up until they are silent for too long."""
        for worker in workers:
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
            state = self._states[worker.hostname] = _WorkerState(event, 0.0, worker.baseline)
            state.up = worker.up and unix_now - worker.last_heartbeat <= self._timeout
            state.started_seen, state.unobserved = worker.started_seen, worker.unobserved
            state.before = worker.processed_before
            state.settled, state.dirty = True, False
            state.mute = not worker.heartbeats
            state.began_at = worker.began_at
            if worker.up and worker.active == 0:
                state.idle_at = worker.last_heartbeat - BETWEEN
            if worker.goodbye_at:
                state.goodbye = min(0.0, worker.goodbye_at - unix_now)
                state.goodbye_at, state.goodbye_sign = worker.goodbye_at, worker.goodbye_sign
                state.unfinished = worker.unfinished
                if not worker.up and worker.unfinished:
                    self.finishing[worker.hostname] = state
            state.skew = ClockSkew(worker.clock_offset, known=True)
            if worker.clock_offset:
                self.offsets[worker.hostname] = worker.clock_offset

    def life(self, hostname: str) -> Life | None:
        """Its signs of life; None for one that is not known, or not any more."""
        one = self._states.get(hostname)
        if one is None:
            return None
        last_sign = one.event.timestamp + one.skew.offset
        return Life(
            one.last_received_at, last_sign, one.began, one.began_at, one.stray_at, one.mute,
            one.goodbye, one.goodbye_sign, one.idle_at, one.idle_before,
        )  # fmt: skip

    def started(self, hostname: str) -> bool:
        """Count a task-started event of a worker. Whether no heartbeats come of it: see ``notice``."""
        state = self._states.get(hostname)
        if state is None:
            return True
        state.started_seen += 1
        state.started_lately += 1
        state.dirty, state.frozen = True, None
        return state.mute

    def finish(self, hostname: str, at: float, *, started: bool) -> None:
        """A task of one of ``finishing`` has started, or ended; ``at``: its event's timestamp.

        When as many have ended since its good-bye as ran then, none is left.
        """
        state = self.finishing[hostname]
        if at > state.goodbye_at:
            state.unfinished += 1 if started else -1
            state.changed()
        if state.unfinished <= 0:
            state.idle_at = state.goodbye_at
            del self.finishing[hostname]

    def notice(self, hostname: str, now: float, unix_now: float) -> bool:
        """A sign of life that is no heartbeat: a task event or an answer. True when the worker is new or back.

        Of a worker with heartbeats it says nothing: what comes may have been sent before its end.
        """
        state = self._states.get(hostname)
        if state is None:
            if not 0 < len(hostname) <= MAX_HOSTNAME_LENGTH or not self._has_room():
                return False
            event = Event(type=HEARTBEAT, timestamp=unix_now, hostname=hostname)
            state = self._states[hostname] = _WorkerState(event, now, baseline=0)
            state.mute = True
            return True
        came = state.mute and not state.up
        if state.mute:
            _noticed(state, now, unix_now)
        return came

    def observe_clock(self, event: Event, now: float) -> None:
        """An event of the worker itself was read at ``now``, at once: its age tells of the worker's clock."""
        hostname = event.hostname[:MAX_HOSTNAME_LENGTH]
        state = self._states.get(hostname)
        if state is None:
            return
        before = state.skew.offset
        if not state.skew.observe(now - event.timestamp, now):
            return
        state.correct(state.skew.offset - before, begins=event.type == ONLINE and not event.processed)
        state.changed()
        if state.skew.offset:
            self.offsets[hostname] = state.skew.offset
        else:
            self.offsets.pop(hostname, None)

    def hear(self, event: Event, now: float) -> bool:
        """Take in an event of the worker itself. True when the worker is new or back."""
        hostname = event.hostname[:MAX_HOSTNAME_LENGTH]
        if not hostname:
            return False
        state = self._states.get(hostname)
        if state is None or state.mute:
            if state is None and not self._has_room():
                return False
            state = self._states[hostname] = _WorkerState(event, now, baseline=event.processed or 0)
            if event.type == ONLINE and not event.processed:
                state.began, state.began_at = now, event.timestamp
            return self._settle(state, event, came=event.type != OFFLINE)
        run = state.classify_run(event)
        if run is _Run.STRAY:
            if event.type != OFFLINE:
                state.last_received_at = now
                state.strays += 1
                state.stray_at = now
                state.differences.clear()
            return False
        came = run is _Run.NEW or (not state.up and event.type != OFFLINE)
        if run is _Run.NEW:
            if now - state.began >= SHORT_LIVED:
                state.idle_before = state.idle_at
            state.idle_at = 0.0
            state.began = now
            state.began_at = state.skew.offset + (event if event.type == ONLINE else state.event).timestamp
            self._begin_run(state, event)
            state.skew = ClockSkew(state.skew.offset)  # another process, perhaps on another machine
        state.last_received_at, state.strays, state.missed = now, 0, False
        self.finishing.pop(hostname, None)
        state.changed()
        return self._settle(state, event, came=came)

    def missed(self) -> None:
        """The stream has not been watched for some time: events of any worker may be missing."""
        for state in self._states.values():
            state.missed = True

    def tick(self, now: float) -> list[str]:
        """Mark who was not heard of as down; drop and return those whose silence was long enough to purge."""
        purged = []
        self._full = False
        for hostname, state in self._states.items():
            silence = now - state.last_received_at
            if silence <= self._timeout:
                continue
            if state.up:
                state.up, state.event.active = False, 0
                state.changed()
            self._end_run(state)
            if silence > self._purge:
                purged.append(hostname)
        if purged:
            self._drop(purged)
        return purged

    def _has_room(self) -> bool:
        if len(self._states) < self._most or self._make_room():
            return True
        self._overflows["workers"] += 1
        return False

    def _make_room(self) -> bool:
        """Whether some that are not there any more were dropped before their time. Looks once between two ticks."""
        if self._full:
            return False
        gone = [hostname for hostname, state in self._states.items() if not state.up][: self._most // 20 + 1]
        self._drop(gone)
        self._full = not gone
        return bool(gone)

    def _drop(self, hostnames: list[str]) -> None:
        """What they have in total goes to another worker of the same host, if there is one."""
        gone = [(host_of(hostname), self._states.pop(hostname)) for hostname in hostnames]
        self._dropped += hostnames
        for hostname in hostnames:
            self.offsets.pop(hostname, None)
            self.finishing.pop(hostname, None)
        heirs = {host_of(hostname): state for hostname, state in self._states.items()}
        for host, state in gone:
            heir = heirs.get(host)
            if heir is not None:
                heir.before += state.before + state.processed
                heir.unobserved += state.unobserved
                heir.changed()

    def take(self) -> tuple[list[Worker], list[str]]:
        """Workers that changed since the last call, and those that were dropped."""
        changed = []
        for hostname, state in self._states.items():
            if state.dirty:
                state.dirty = False
                changed.append(_frozen(hostname, state))
        dropped, self._dropped = self._dropped, []
        return changed, dropped

    def snapshot(self) -> list[Worker]:
        """A copy of all workers."""
        return [state.frozen or _frozen(hostname, state) for hostname, state in self._states.items()]

    def loads(self) -> dict[str, tuple[float, float, float]]:
        """Load averages of the machines of those that are up, by their last heartbeats."""
        loads = ((hostname, state.event.loadavg) for hostname, state in self._states.items() if state.up)
        return {hostname: load for hostname, load in loads if load is not None}

    def _begin_run(self, state: _WorkerState, event: Event) -> None:
        self._end_run(state)
        state.before += state.processed
        if event.pid != state.event.pid:
            state.pids = (*state.pids, event.pid)[-MAX_PIDS:]
        state.started_seen = 0 if event.type == ONLINE else state.started_lately
        state.baseline, state.settled = 0, True
        state.differences.clear()

    def _end_run(self, state: _WorkerState) -> None:
        """No event of this run will come any more."""
        if len(state.differences) == HEARTBEATS_COMPARED:
            self._lose(state, state.processed - state.started_seen)

    def _lose(self, state: _WorkerState, difference: int) -> None:
        """Count what is beyond the baseline."""
        lost = difference - state.baseline
        if lost > 0:
            state.unobserved += lost
            self.unobserved += lost
            state.baseline += lost
            state.changed()

    def _settle(self, state: _WorkerState, event: Event, *, came: bool) -> bool:
        if event.type == OFFLINE:
            state.goodbye = state.last_received_at
            state.goodbye_sign = state.event.timestamp + state.skew.offset
            state.goodbye_at, state.unfinished = event.timestamp + state.skew.offset, event.active or 0
            if event.active == 0:
                state.idle_at = state.goodbye_at - BETWEEN
            elif event.active:
                self.finishing[event.hostname[:MAX_HOSTNAME_LENGTH]] = state
            state.up = False
            state.event.active = 0
            return came
        state.up, state.event, state.started_lately = True, _kept(event), 0
        if event.active == 0:
            state.idle_at = event.timestamp + state.skew.offset - BETWEEN
        difference = state.processed - state.started_seen
        if not state.settled:
            # What it had started before it was first seen may still be on its way, buffered.
            state.baseline = min(state.baseline, difference)
            state.settled = len(state.differences) == HEARTBEATS_COMPARED - 1
        state.differences.append(difference)
        if len(state.differences) == HEARTBEATS_COMPARED:
            self._lose(state, min(state.differences))
        return came


def _noticed(state: _WorkerState, now: float, unix_now: float) -> None:
    state.last_received_at, state.event.timestamp, state.up = now, unix_now, True
    state.changed()


def _kept(event: Event) -> Event:
    """What is shown of it. An event may have any other fields, of any size."""
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


def _frozen(hostname: str, state: _WorkerState) -> Worker:
    event = state.event
    state.frozen = Worker(
        hostname=hostname,
        up=state.up,
        last_heartbeat=event.timestamp + state.skew.offset,
        active=event.active or 0,
        processed=event.processed or 0,
        pid=event.pid or 0,
        sw_ident=event.sw_ident or "",
        sw_ver=event.sw_ver or "",
        sw_sys=event.sw_sys or "",
        started_seen=state.started_seen,
        baseline=state.baseline,
        unobserved=state.unobserved,
        processed_before=state.before,
        clock_offset=state.skew.offset,
        heartbeats=not state.mute,
        began_at=state.began_at,
        goodbye_at=state.goodbye_at,
        goodbye_sign=state.goodbye_sign if state.goodbye_at else 0.0,
        unfinished=state.unfinished,
    )
    return state.frozen
