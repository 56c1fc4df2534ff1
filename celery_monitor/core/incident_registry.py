"""The incidents in memory and their pending notifications. ``decide`` and ``episodes`` judge them.

The number of incidents in memory is bounded. Beyond the bound, those that were not sent or have ended are dropped.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from celery_monitor.core.incident import OpenIncident
from celery_monitor.core.model import (
    FIRST_UPDATE,
    REFRESH,
    Action,
    Incident,
    IncidentState,
    OutboxRequest,
    Reason,
    Severity,
)
from celery_monitor.core.rules import Policy, RuleSet
from celery_monitor.core.silences import Silences
from celery_monitor.core.text import OTHER

_SEVERITIES: Final = tuple(Severity)


class IncidentRegistry:
    """Incidents by key. Not thread-safe.

    ``max_incidents`` bounds their number; ``overflows`` counts those that were dropped.
    """

    def __init__(
        self, policy: Policy, rules: RuleSet, silences: Silences, *, max_incidents: int, overflows: Counter[str]
    ) -> None:
        """Start empty."""
        self.silences = silences
        self.entries: dict[str, OpenIncident] = {}
        self.overflows = overflows
        self.closed: list[Incident] = []
        """Incidents that are no longer in memory but still have to be written."""
        self.outbox: dict[tuple[str, str, Action], OutboxRequest] = {}
        """Newest last, one per channel, key and action: while the store is unavailable, refreshes do not pile up."""
        self._fleet = policy.fleet
        self._update_interval = policy.update_interval
        self._rules = rules
        self.max_incidents = max_incidents
        self._listeners: list[Callable[[OpenIncident], None]] = []
        self._full = False
        """Whether no incident could be dropped at the last attempt."""

    @property
    def open_count(self) -> int:
        """Number of open incidents."""
        return sum(entry.state is IncidentState.OPEN for entry in self.entries.values())

    @property
    def open_by_condition(self) -> Mapping[str, int]:
        """Number of open incidents, by condition."""
        return Counter(entry.condition.value for entry in self.entries.values() if entry.state is IncidentState.OPEN)

    @property
    def is_choked(self) -> bool:
        """Whether the store has been unavailable for so long that ended incidents have to stay in memory too."""
        return len(self.closed) >= self.max_incidents

    def tick(self) -> None:
        """Time has passed, so there may be room again."""
        self._full = False

    def has_room(self) -> bool:
        """Whether one more fits. If necessary, drops incidents that were not sent or have ended, oldest first."""
        if len(self.entries) < self.max_incidents:
            return True
        if self._full:
            return False
        chunk = self.max_incidents // 20 + 1
        candidates = [entry for entry in self.entries.values() if entry.state is not IncidentState.OPEN]
        # Dirty ones have to be kept in ``closed`` until they are written, so their number must be bounded too.
        room = self.max_incidents - len(self.closed)
        evictable = [entry for entry in candidates if room > chunk or not entry.dirty][:chunk]
        for entry in evictable:
            self.evict(entry)
        self.overflows["incidents"] += len(evictable)
        self._full = not evictable
        return bool(evictable)

    def evict(self, entry: OpenIncident) -> None:
        """Drop an incident from memory; unwritten changes are written with the next ``take``."""
        if entry.dirty:
            self.closed.append(entry.freeze(self._fleet))
        del self.entries[entry.key]
        for callback in self._listeners:
            callback(entry)

    def listen(self, callback: Callable[[OpenIncident], None]) -> None:
        """Call ``callback`` with each incident that is dropped."""
        self._listeners.append(callback)

    def open(self, entry: OpenIncident, reason: Reason, now: float) -> None:
        """Open the incident and notify of it on the channels of its rule."""
        entry.channels = tuple(self._rules.channels(entry.rule.route))
        entry.state, entry.reason, entry.succeeded_at = IncidentState.OPEN, reason, 0.0
        self.send(entry, now, _SEVERITIES.index(entry.severity))

    def refresh(self, entry: OpenIncident, now: float) -> None:
        """Notify of changes to an open incident, at most every ``update_interval`` and not while it is silenced."""
        if entry.has_unsent and now - entry.sent_at >= self._update_interval and not self.covers(entry, now):
            self.send(entry, now, REFRESH + _SEVERITIES.index(entry.severity))

    def covers(self, entry: OpenIncident, at: float) -> bool:
        """Whether silences cover every known task and queue of the incident."""
        if not self.silences:
            return False
        # The names beyond the bounds are unknown. A failure that no silence covers opens the incident by itself.
        names = entry.tasks.keys() - {OTHER} or (entry.task or entry.subject,)
        queues = entry.queues.keys() - {OTHER} or (entry.subject,)
        return all(self.silences.cover(name, queue, at) for name in names for queue in queues)

    def close(self, entry: OpenIncident, state: IncidentState, now: float) -> None:
        """Close the incident. Only a resolved one is notified."""
        entry.state, entry.dirty = state, True
        if state is IncidentState.RESOLVED:
            self.send(entry, now, FIRST_UPDATE, Action.RESOLVE)

    def send(self, entry: OpenIncident, now: float, priority: int, action: Action = Action.TRIGGER) -> None:
        """Request its outbox rows, one for each of its channels."""
        entry.sent_at, entry.sent_count, entry.revised, entry.dirty = now, entry.count, False, True
        at = min(entry.last_at, now)  # a worker's clock that is ahead must not raise the priority
        recipients = self._rules.recipients(entry.rule, entry.channels)
        entry.channels += tuple(name for name in recipients if name not in entry.channels)
        for channel in recipients:
            row = channel, entry.key, action
            waiting = self.outbox.pop(row, None)
            # A waiting trigger keeps its urgency when a refresh replaces it.
            urgency = priority if waiting is None else min(priority, waiting.priority)
            self.outbox[row] = OutboxRequest(channel, entry.key, action, entry.rule.route, now, urgency, at)

    def unsent(self) -> list[tuple[OutboxRequest, Incident]]:
        """The notifications that the next ``take`` would return, without taking them."""
        pairs = ((row, self.entries.get(row.key)) for row in self.outbox.values())
        return [(row, entry.freeze(self._fleet)) for row, entry in pairs if entry is not None]

    def take(self) -> tuple[list[Incident], list[OutboxRequest]]:
        """Incidents that changed since the last call, and the outbox rows to write with them."""
        outbox, self.outbox = list(self.outbox.values()), {}
        for row in outbox:
            entry = self.entries.get(row.key)
            if entry is not None:  # changes since then are committed with the row, and it sends them
                entry.sent_count, entry.revised = entry.count, False
        changed, self.closed = self.closed, []
        for entry in self.entries.values():
            if entry.dirty:
                entry.dirty = False
                changed.append(entry.freeze(self._fleet))
        return changed, outbox
