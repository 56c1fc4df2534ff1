"""Workers as their heartbeats tell of them, and the audit of what the stream did not show.

A heartbeat carries ``processed``, the number of tasks that this run of the worker has started. The monitor counts the
task-started events that it sees of it. The difference, less what it was when the worker was first seen, is what was
begun and never observed. Heartbeats can overtake buffered task events, so only the least difference of three
heartbeats in a row counts. A loss that was counted moves the baseline, so that it is counted once.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

from celery_monitor.core.model import Event, Worker

HEARTBEATS_COMPARED: Final = 3
LONGEST_TEXT: Final = 64
LONGEST_HOSTNAME: Final = 255

ONLINE: Final = "worker-online"
HEARTBEAT: Final = "worker-heartbeat"
OFFLINE: Final = "worker-offline"
KINDS: Final = frozenset({ONLINE, HEARTBEAT, OFFLINE})


class _State:
    """One worker, mutable."""

    __slots__ = ("baseline", "differences", "dirty", "event", "heard_at", "settled", "started_seen", "unobserved", "up")

    def __init__(self, event: Event, now: float, baseline: int) -> None:
        self.event = event
        self.heard_at = now
        self.up = True
        self.started_seen = 0
        self.baseline = baseline
        self.unobserved = 0
        self.settled = False
        self.differences: deque[int] = deque(maxlen=HEARTBEATS_COMPARED)
        self.dirty = True


class Workers:
    """All workers of the fleet. Not thread-safe: it belongs to the monitor. ``timeout``, ``purge`` in seconds."""

    def __init__(self, *, timeout: float, purge: float) -> None:
        """Start empty; ``restore`` fills it."""
        self.unobserved = 0
        self._timeout = timeout
        self._purge = purge
        self._states: dict[str, _State] = {}
        self._dropped: list[str] = []

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
            state.dirty = True

    def hear(self, event: Event, now: float) -> bool:
        """Take in an event of the worker itself. True when the worker is new or back."""
        hostname = event.hostname[:LONGEST_HOSTNAME]
        if not hostname:
            return False
        state = self._states.get(hostname)
        if state is None:
            baseline = 0 if event.type == ONLINE else event.processed or 0
            state = self._states[hostname] = _State(event, now, baseline)
            return self._settle(state, event, came=event.type != OFFLINE)
        came = not state.up and event.type != OFFLINE
        if self._is_another_run(state.event, event):
            state.started_seen, state.baseline, state.settled = 0, 0, True
            state.differences.clear()
            came = True
        state.heard_at, state.dirty = now, True
        return self._settle(state, event, came=came)

    def tick(self, now: float) -> list[str]:
        """Mark who was not heard of as down; drop and return those whose silence was long enough to purge."""
        purged = []
        for hostname, state in self._states.items():
            silence = now - state.heard_at
            if silence > self._purge and not (state.up and silence <= self._timeout):
                purged.append(hostname)
            elif state.up and silence > self._timeout:
                state.up, state.dirty = False, True
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

    def _is_another_run(self, last: Event, event: Event) -> bool:
        if event.type == ONLINE:
            return True
        return (event.processed or 0) < (last.processed or 0) and event.type == HEARTBEAT

    def _settle(self, state: _State, event: Event, *, came: bool) -> bool:
        if event.type == OFFLINE:
            state.up = False
            state.event.active = 0
            return came
        state.up, state.event = True, event
        difference = (event.processed or 0) - state.started_seen
        if not state.settled:
            # What it had started before it was first seen may still be on its way, buffered.
            state.baseline = min(state.baseline, difference)
            state.settled = len(state.differences) == HEARTBEATS_COMPARED - 1
        state.differences.append(difference)
        if len(state.differences) == HEARTBEATS_COMPARED:
            lost = min(state.differences) - state.baseline
            if lost > 0:
                state.unobserved += lost
                self.unobserved += lost
                state.baseline += lost
        return came


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
