"""Workers as their heartbeats tell of them, and the audit of what the stream did not show.

A heartbeat carries ``processed``, the number of tasks that this run of the worker has started. The monitor counts the
task-started events that it sees of it. The difference, less what it was when the worker was first seen, is what was
begun and never observed. Heartbeats can overtake buffered task events, so only the least difference of three
heartbeats in a row counts. A loss that was counted moves the baseline, so that it is counted once.

A run ends when the same name comes with another process id or begins to count anew, or by silence. What was buffered
then died with it: its last difference counts as it is.

Silence is measured in time that the stream was watched: without a stream nobody can be heard.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from celery_monitor.core.model import Event, Worker

HEARTBEATS_COMPARED: Final = 3
LONGEST_TEXT: Final = 64
LONGEST_HOSTNAME: Final = 255
MOST_WORKERS: Final = 20_000
"""More are not kept: somebody invents them."""

ONLINE: Final = "worker-online"
HEARTBEAT: Final = "worker-heartbeat"
OFFLINE: Final = "worker-offline"
KINDS: Final = frozenset({ONLINE, HEARTBEAT, OFFLINE})


class _State:
    """One worker, mutable."""

    __slots__ = ("baseline", "differences", "dirty", "event", "heard_at", "settled", "started_lately", "started_seen",
                 "unobserved", "up")  # fmt: skip

    def __init__(self, event: Event, now: float, baseline: int) -> None:
        self.event = event
        self.heard_at = now
        self.up = True
        self.started_seen = 0
        self.started_lately = 0
        """Of these, since the last heartbeat: they may be another run's already."""
        self.baseline = baseline
        self.unobserved = 0
        self.settled = False
        self.differences: deque[int] = deque(maxlen=HEARTBEATS_COMPARED)
        self.dirty = True


class Workers:
    """All workers of the fleet. Not thread-safe: it belongs to the monitor. ``timeout`` ≤ ``purge``, in seconds."""

    def __init__(self, *, timeout: float, purge: float) -> None:
        """Start empty; ``restore`` fills it."""
        self.unobserved = 0
        self._timeout = timeout
        self._purge = purge
        self._states: dict[str, _State] = {}
        self._dropped: list[str] = []

    def __contains__(self, hostname: object) -> bool:
        return hostname in self._states

    def __iter__(self) -> Iterator[str]:
        """Their hostnames."""
        return iter(self._states)

    def restore(self, workers: Iterable[Worker], now: float) -> None:
        """Take over what the store kept; they have until ``now`` + timeout to be heard of."""
        for worker in workers:
            event = Event(
                type=HEARTBEAT,
                timestamp=worker.last_heartbeat,
                hostname=worker.hostname,
                active=worker.active,
                processed=worker.processed,
                pid=worker.pid,
                sw_ident=worker.sw_ident,
                sw_ver=worker.sw_ver,
                sw_sys=worker.sw_sys,
            )
            state = self._states[worker.hostname] = _State(event, now, worker.baseline)
            state.up, state.started_seen, state.unobserved = worker.up, worker.started_seen, worker.unobserved
            state.settled, state.dirty = True, False

    def started(self, hostname: str) -> None:
        """Count a task-started event of a worker."""
        state = self._states.get(hostname)
        if state is not None:
            state.started_seen += 1
            state.started_lately += 1
            state.dirty = True

    def hear(self, event: Event, now: float) -> bool:
        """Take in an event of the worker itself. True when the worker is new or back."""
        hostname = event.hostname[:LONGEST_HOSTNAME]
        if not hostname:
            return False
        state = self._states.get(hostname)
        if state is None:
            if len(self._states) >= MOST_WORKERS:
                return False
            state = self._states[hostname] = _State(event, now, baseline=event.processed or 0)
            return self._settle(state, event, came=event.type != OFFLINE)
        another = _is_another_process(state.event, event)
        if event.type == OFFLINE and another:
            return False  # the farewell of a run that has a successor
        came = another or (not state.up and event.type != OFFLINE)
        if another or _counts_anew(state.event, event):
            self._end_run(state)
            state.started_seen = 0 if event.type == ONLINE else state.started_lately
            state.baseline, state.settled = 0, True
            state.differences.clear()
            came = True
        state.heard_at, state.dirty = now, True
        return self._settle(state, event, came=came)

    def unwatched(self, seconds: float) -> None:
        """For so long there was no stream: nobody's silence."""
        for state in self._states.values():
            state.heard_at += seconds

    def tick(self, now: float, *, watched: bool = True) -> list[str]:
        """Mark who was not heard of as down; drop and return those whose silence was long enough to purge.

        While the stream is not ``watched``, nobody is dropped.
        """
        purged = []
        for hostname, state in self._states.items():
            silence = now - state.heard_at
            if silence <= self._timeout:
                continue
            if state.up:
                state.up, state.dirty = False, True
            if watched:
                self._end_run(state)
                if silence > self._purge:
                    purged.append(hostname)
        for hostname in purged:
            del self._states[hostname]
        self._dropped += purged
        return purged

    def take(self) -> tuple[list[Worker], list[str]]:
        """Workers that changed since the last call, and those that were dropped."""
        changed = []
        for hostname, state in self._states.items():
            if state.dirty:
                state.dirty = False
                changed.append(_freeze(hostname, state))
        dropped, self._dropped = self._dropped, []
        return changed, dropped

    def snapshot(self) -> list[Worker]:
        """A copy of all workers."""
        return [_freeze(hostname, state) for hostname, state in self._states.items()]

    def _end_run(self, state: _State) -> None:
        """No event of this run will come any more."""
        if len(state.differences) == HEARTBEATS_COMPARED:
            self._lose(state, (state.event.processed or 0) - state.started_seen)

    def _lose(self, state: _State, difference: int) -> None:
        """Count what is beyond the baseline."""
        lost = difference - state.baseline
        if lost > 0:
            state.unobserved += lost
            self.unobserved += lost
            state.baseline += lost
            state.dirty = True

    def _settle(self, state: _State, event: Event, *, came: bool) -> bool:
        if event.type == OFFLINE:
            state.up = False
            state.event.active = 0
            return came
        state.up, state.event, state.started_lately = True, event, 0
        difference = (event.processed or 0) - state.started_seen
        if not state.settled:
            # What it had started before it was first seen may still be on its way, buffered.
            state.baseline = min(state.baseline, difference)
            state.settled = len(state.differences) == HEARTBEATS_COMPARED - 1
        state.differences.append(difference)
        if len(state.differences) == HEARTBEATS_COMPARED:
            self._lose(state, min(state.differences))
        return came


def _is_another_process(last: Event, event: Event) -> bool:
    return bool(last.pid and event.pid and last.pid != event.pid)


def _counts_anew(last: Event, event: Event) -> bool:
    """In a container every run has the same process id. A worker that connects again is online again, and counts on."""
    processed = event.processed or 0
    return (event.type == ONLINE and not processed) or (event.type != OFFLINE and processed < (last.processed or 0))


def _freeze(hostname: str, state: _State) -> Worker:
    event = state.event
    return Worker(
        hostname=hostname,
        up=state.up,
        last_heartbeat=event.timestamp,
        active=event.active or 0,
        processed=event.processed or 0,
        pid=event.pid or 0,
        sw_ident=(event.sw_ident or "")[:LONGEST_TEXT],
        sw_ver=(event.sw_ver or "")[:LONGEST_TEXT],
        sw_sys=(event.sw_sys or "")[:LONGEST_TEXT],
        started_seen=state.started_seen,
        baseline=state.baseline,
        unobserved=state.unobserved,
    )
