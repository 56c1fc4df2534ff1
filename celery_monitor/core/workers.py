"""All workers, known by their heartbeats. The state and the audit of one worker are in ``worker``.

The totals of a host never decrease while the host is known: the totals of an ended run are added to the next run, and
those of a dropped worker to another worker on its host.

A worker without heartbeats (``--without-heartbeat``) is known by its task events and its answers. The number of tasks
that it has started is unknown, so nothing counts as unobserved. ``core/clock_skew`` detects wrong clocks.

Their names are kept as ``core/names`` keeps all names, so that a worker and its runs have the same one. Methods accept
the name in an event as well.

Times (``now``) are seconds in which the stream was watched, so that no worker falls silent while the stream is down.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from celery_monitor.core.model import Event, Worker
from celery_monitor.core.names import Names, shortened_name
from celery_monitor.core.text import host_of
from celery_monitor.core.worker import (
    HEARTBEAT,
    KINDS,
    OFFLINE,
    ONLINE,
    Liveness,
    Run,
    WorkerState,
    restored_state,
)

__all__ = ["HEARTBEAT", "KINDS", "MAX_WORKERS", "OFFLINE", "ONLINE", "Workers"]

MAX_WORKERS: Final = 5_000
"""Workers beyond this number are ignored: their names are probably invented."""


class Workers:
    """All workers of the fleet. Not thread-safe: it belongs to the monitor. ``timeout`` ≤ ``purge``, in seconds.

    ``max_workers`` bounds their number; ``overflows`` counts events of further ones.
    """

    def __init__(
        self, *, timeout: float, purge: float, max_workers: int = MAX_WORKERS, overflows: Counter[str] | None = None
    ) -> None:
        """Start empty; ``restore`` fills it."""
        self._limit = max_workers
        self._overflows = overflows if overflows is not None else Counter()
        self.unobserved = 0
        self.offsets: dict[str, float] = {}
        """Hostname → seconds to add to its timestamps, for workers whose clock is wrong."""
        self.finishing: dict[str, WorkerState] = {}
        """Workers that sent worker-offline with active tasks. Nearly always empty."""
        self.names = Names(2 * max_workers)
        """Hostname in an event → the name of the worker."""
        self._timeout = timeout
        self._purge = purge
        self._states: dict[str, WorkerState] = {}
        self._dropped: list[str] = []
        self._full = False
        """Whether none could be dropped at the last attempt."""

    def __len__(self) -> int:
        """Number of known workers."""
        return len(self._states)

    def __contains__(self, hostname: object) -> bool:
        return hostname in self._states

    def __iter__(self) -> Iterator[str]:
        """Their hostnames."""
        return iter(self._states)

    def down(self) -> set[str]:
        """Hostnames of workers that are offline or silent."""
        return {hostname for hostname, state in self._states.items() if not state.up}

    def up(self) -> set[str]:
        """Hostnames of workers that are online."""
        return {hostname for hostname, state in self._states.items() if state.up}

    def restore(self, workers: Iterable[Worker], unix_now: float) -> None:
        """Load the stored workers. Those seen recently are up until they have been silent for too long."""
        for worker in workers:
            name = worker.hostname
            if not name.isprintable():  # stored by a version that kept the name of the event
                self._dropped.append(name)
                name = shortened_name(name)
            state = self._states[name] = restored_state(worker, self._timeout, unix_now)
            state.dirty |= name != worker.hostname
            if not worker.up and worker.goodbye_at and worker.unfinished:
                self.finishing[name] = state
            if worker.clock_offset:
                self.offsets[name] = worker.clock_offset

    def liveness(self, hostname: str) -> Liveness | None:
        """The worker's signs of life; None if it is unknown."""
        state = self._states.get(hostname)
        return None if state is None else state.liveness()

    def started(self, hostname: str) -> bool:
        """Count a task-started event of a worker. Returns whether the worker sends no heartbeats: see ``notice``."""
        state = self._states.get(hostname)
        if state is None:
            state = self._states.get(self.names[hostname])
            if state is None:
                return True
        state.started_seen += 1
        state.started_lately += 1
        state.dirty, state.frozen = True, None
        return state.no_heartbeats

    def finish(self, hostname: str, at: float, *, started: bool) -> None:
        """A task of a worker has started or ended; ``at``: its event's timestamp. Only the ``finishing`` ones count it.

        When as many have ended since its worker-offline as were active then, none is left.
        """
        name = self.names[hostname]
        state = self.finishing.get(name)
        if state is None:
            return
        if at > state.goodbye_at:
            state.unfinished += 1 if started else -1
            state.changed()
        if state.unfinished <= 0:
            state.idle_at = state.goodbye_at
            del self.finishing[name]

    def notice(self, hostname: str, now: float, unix_now: float) -> bool:
        """Record a sign of life other than a heartbeat: a task event or an answer. True if the worker is new or back.

        It is ignored for a worker with heartbeats, because the event may have been sent before the worker ended.
        """
        hostname = self.names[hostname]
        state = self._states.get(hostname)
        if state is None:
            if not hostname or not self._has_room():
                return False
            event = Event(type=HEARTBEAT, timestamp=unix_now, hostname=hostname)
            state = self._states[hostname] = WorkerState(event, now, baseline=0)
            state.no_heartbeats = True
            return True
        is_new = state.no_heartbeats and not state.up
        if state.no_heartbeats:
            state.notice(now, unix_now)
        return is_new

    def observe_clock(self, event: Event, now: float) -> None:
        """An event of the worker was read at ``now`` without delay: its age shows the error of the worker's clock."""
        hostname = self.names[event.hostname]
        state = self._states.get(hostname)
        if state is None:
            return
        before = state.skew.offset
        if not state.skew.observe(now - event.timestamp, now):
            return
        state.correct(state.skew.offset - before, begins=event.type == ONLINE and not event.processed)
        self._note_offset(hostname, state)

    def clock_set_back(self, seconds: float, now: float) -> None:
        """The monitor's clock was set back by ``seconds`` to ``now``.

        Clocks that differed from it now differ by less or more.
        """
        for hostname, state in self._states.items():
            state.clock_set_back(seconds, now)
            self._note_offset(hostname, state)

    def _note_offset(self, hostname: str, state: WorkerState) -> None:
        """The offset of a worker may have changed."""
        state.changed()
        if state.skew.offset:
            self.offsets[hostname] = state.skew.offset
        else:
            self.offsets.pop(hostname, None)

    def apply(self, event: Event, now: float) -> bool:
        """Apply a worker event. True if the worker is new or back."""
        hostname = self.names[event.hostname]
        if not hostname:
            return False
        state = self._states.get(hostname)
        if state is None or state.no_heartbeats:
            if state is None and not self._has_room():
                return False
            state = self._states[hostname] = WorkerState(event, now, baseline=event.processed or 0)
            if event.type == ONLINE and not event.processed:
                state.began, state.began_at = now, event.timestamp
            return self._settle(state, event, is_new=event.type != OFFLINE)
        run = state.classify_run(event)
        if run is Run.STRAY:
            if event.type != OFFLINE:
                state.record_stray(now)
            return False
        is_new = run is Run.NEW or (not state.up and event.type != OFFLINE)
        if run is Run.NEW:
            self.unobserved += state.begin_run(event, now)
        state.last_received_at, state.strays, state.interrupted = now, 0, False
        self.finishing.pop(hostname, None)
        state.changed()
        return self._settle(state, event, is_new=is_new)

    def stream_interrupted(self) -> None:
        """The stream was not watched for some time, so events of any worker may be missing."""
        for state in self._states.values():
            state.interrupted = True

    def tick(self, now: float) -> list[str]:
        """Mark silent workers as down; drop and return those that have been silent for the purge time."""
        purged = []
        self._full = False
        for hostname, state in self._states.items():
            silence = now - state.last_received_at
            if silence <= self._timeout:
                continue
            if state.up:
                state.up, state.event.active = False, 0
                state.changed()
            self.unobserved += state.end_run()
            if silence > self._purge:
                purged.append(hostname)
        if purged:
            self._drop(purged)
        return purged

    def _has_room(self) -> bool:
        if len(self._states) < self._limit or self._make_room():
            return True
        self._overflows["workers"] += 1
        return False

    def _make_room(self) -> bool:
        """Drop workers that are down early. Returns whether any was dropped. Tried once between two ticks."""
        if self._full:
            return False
        droppable = [hostname for hostname, state in self._states.items() if not state.up][: self._limit // 20 + 1]
        self._drop(droppable)
        self._full = not droppable
        return bool(droppable)

    def _drop(self, hostnames: list[str]) -> None:
        """Drop workers; their totals are added to another worker of the same host, if there is one."""
        dropped = [(host_of(hostname), self._states.pop(hostname)) for hostname in hostnames]
        self._dropped += hostnames
        for hostname in hostnames:
            self.offsets.pop(hostname, None)
            self.finishing.pop(hostname, None)
        heirs = {host_of(hostname): state for hostname, state in self._states.items()}
        for host, state in dropped:
            heir = heirs.get(host)
            if heir is not None:
                heir.before += state.before + state.processed
                heir.unobserved += state.unobserved
                heir.changed()

    def take(self) -> tuple[list[Worker], list[str]]:
        """Workers that changed since the last call, and hostnames of those that were dropped."""
        changed = []
        for hostname, state in self._states.items():
            if state.dirty:
                state.dirty = False
                changed.append(state.freeze(hostname))
        dropped, self._dropped = self._dropped, []
        return changed, dropped

    def snapshot(self) -> list[Worker]:
        """A copy of all workers."""
        return [state.frozen or state.freeze(hostname) for hostname, state in self._states.items()]

    def loads(self) -> dict[str, tuple[float, float, float]]:
        """Load averages of the machines of the workers that are up, from their last heartbeats."""
        loads = ((hostname, state.event.loadavg) for hostname, state in self._states.items() if state.up)
        return {hostname: load for hostname, load in loads if load is not None}

    def _settle(self, state: WorkerState, event: Event, *, is_new: bool) -> bool:
        if event.type != OFFLINE:
            self.unobserved += state.beat(event)
            return is_new
        state.say_goodbye(event)
        if event.active:
            self.finishing[self.names[event.hostname]] = state
        return is_new
