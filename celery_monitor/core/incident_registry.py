"""The incidents in memory, and what is to be sent of them. Who judges them is above: ``decide`` and ``episodes``.

Incidents in memory are bounded. Beyond it those that were not sent, or are over, are forgotten.
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

_SEVERITIES: Final = tuple(Severity)


class IncidentRegistry:
    """Incidents whose time is not over, by key. Not thread-safe.

    ``max_incidents`` bounds them, ``overflows`` counts what that has cut.
    """

    def __init__(
        self, policy: Policy, rules: RuleSet, silences: Silences, *, max_incidents: int, overflows: Counter[str]
    ) -> None:
        """Start without any."""
        self.silences = silences
        self.entries: dict[str, OpenIncident] = {}
        self.overflows = overflows
        self.closed: list[Incident] = []
        """They are no longer in memory, and have to be written."""
        self.outbox: dict[tuple[str, str, Action], OutboxRequest] = {}
        """The newest of each last: while the store is away, one refresh of an incident is as good as many."""
        self._fleet = policy.fleet
        self._update_interval = policy.update_interval
        self._rules = rules
        self.max_incidents = max_incidents
        self._listeners: list[Callable[[OpenIncident], None]] = []
        self._full = False
        """At the last look no incident could be forgotten."""

    @property
    def open_count(self) -> int:
        """Incidents that are open."""
        return sum(entry.state is IncidentState.OPEN for entry in self.entries.values())

    @property
    def open_by_condition(self) -> Mapping[str, int]:
        """The same, by condition."""
        return Counter(entry.condition.value for entry in self.entries.values() if entry.state is IncidentState.OPEN)

    @property
    def is_choked(self) -> bool:
        """The store is away for so long that what is over has to wait, too."""
        return len(self.closed) >= self.max_incidents

    def tick(self) -> None:
        """Time has passed: there may be room again."""
        self._full = False

    def has_room(self) -> bool:
        """For one more; incidents that nobody was told of, or that are over, are forgotten for it: the oldest first."""
        if len(self.entries) < self.max_incidents:
            return True
        if self._full:
            return False
        chunk = self.max_incidents // 20 + 1
        candidates = [entry for entry in self.entries.values() if entry.state is not IncidentState.OPEN]
        # Those that are dirty have to be written first: while the store is away, they are not to become more.
        room = self.max_incidents - len(self.closed)
        evictable = [entry for entry in candidates if room > chunk or not entry.dirty][:chunk]
        for entry in evictable:
            self.evict(entry)
        self.overflows["incidents"] += len(evictable)
        self._full = not evictable
        return bool(evictable)

    def evict(self, entry: OpenIncident) -> None:
        """Forget an incident; what was not written of it is written with the next ``take``."""
        if entry.dirty:
            self.closed.append(entry.freeze(self._fleet))
        del self.entries[entry.key]
        for callback in self._listeners:
            callback(entry)

    def listen(self, callback: Callable[[OpenIncident], None]) -> None:
        """Call it with each incident that is forgotten."""
        self._listeners.append(callback)

    def open(self, entry: OpenIncident, reason: Reason, now: float) -> None:
        """It is to be told."""
        entry.state, entry.reason, entry.succeeded_at = IncidentState.OPEN, reason, 0.0
        self.send(entry, now, _SEVERITIES.index(entry.severity))

    def refresh(self, entry: OpenIncident, now: float) -> None:
        """Send what is new of an open one, at most every ``update_interval``, and not while it is silenced."""
        if entry.has_unsent and now - entry.sent_at >= self._update_interval and not self.covers(entry, now):
            self.send(entry, now, REFRESH + _SEVERITIES.index(entry.severity))

    def covers(self, entry: OpenIncident, at: float) -> bool:
        """Whether a silence covers all that the incident is about."""
        if not self.silences:
            return False
        names = entry.tasks or (entry.task or entry.subject,)
        return all(self.silences.cover(name, queue, at) for name in names for queue in entry.queues or (entry.subject,))

    def close(self, entry: OpenIncident, state: IncidentState, now: float) -> None:
        """It is over. Only a resolved one is told."""
        entry.state, entry.dirty = state, True
        if state is IncidentState.RESOLVED:
            self.send(entry, now, FIRST_UPDATE, Action.RESOLVE)

    def send(self, entry: OpenIncident, now: float, priority: int, action: Action = Action.TRIGGER) -> None:
        """Ask for its outbox rows, one for each channel of its route."""
        entry.sent_at, entry.sent_count, entry.revised, entry.dirty = now, entry.count, False, True
        at = min(entry.last_at, now)  # a clock that is ahead makes nothing more important
        for channel in self._rules.channels(entry.rule.route):
            row = channel, entry.key, action
            waiting = self.outbox.pop(row, None)
            # What opens an incident has to be told, whatever is told with it.
            urgency = priority if waiting is None else min(priority, waiting.priority)
            self.outbox[row] = OutboxRequest(channel, entry.key, action, entry.rule.route, now, urgency, at)

    def unsent(self) -> list[tuple[OutboxRequest, Incident]]:
        """What the next ``take`` is to send, as it is now; nothing is taken."""
        pairs = ((row, self.entries.get(row.key)) for row in self.outbox.values())
        return [(row, entry.freeze(self._fleet)) for row, entry in pairs if entry is not None]

    def take(self) -> tuple[list[Incident], list[OutboxRequest]]:
        """Incidents that changed since the last call, and the outbox rows to write with them."""
        outbox, self.outbox = list(self.outbox.values()), {}
        for row in outbox:
            entry = self.entries.get(row.key)
            if entry is not None:  # what came since is committed with the row, and told by it
                entry.sent_count, entry.revised = entry.count, False
        changed, self.closed = self.closed, []
        for entry in self.entries.values():
            if entry.dirty:
                entry.dirty = False
                changed.append(entry.freeze(self._fleet))
        return changed, outbox
