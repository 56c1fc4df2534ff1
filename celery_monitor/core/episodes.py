"""Incidents of the conditions other than failure: an episode opens one, updates it and resolves it.

A judge (``core/conditions``, ``core/schedules``) reports an ``Episode`` each time it finds that a condition holds, and
one ``EpisodeEnd`` when it no longer does. Each episode has one incident, also across restarts: its key consists of the
condition, the subject, the rule and the start time. For each condition, subject and rule at most one is open.

A storm occurs when more than ``storm_tasks`` subjects have one condition and severity within ``storm_window``: those
above that number share one incident, which resolves when the last of them has ended. If memory has no room for another
incident, the episode also joins the storm of its condition, so that it pages.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from celery_monitor.core.incident import (
    MAX_NAMES_PER_STORM,
    MAX_VALUE,
    Episode,
    EpisodeEnd,
    Identity,
    OpenIncident,
    Verdict,
)
from celery_monitor.core.incident_registry import IncidentRegistry
from celery_monitor.core.model import STORM, Condition, Incident, IncidentState, Reason, Severity
from celery_monitor.core.rules import DAY, Policy, Rule, RuleSet, episode_key, storm_key, window
from celery_monitor.core.storm import StormDetector

RULE_GONE: Final = "its rule was removed from the configuration"
MAX_WITHOUT_ROOM: Final = 10_000
"""Episodes that are part of a storm for lack of room. More of them are dropped: the storm has paged already."""
_ENDED: Final = frozenset({IncidentState.RESOLVED, IncidentState.EXPIRED})
_RETENTION: Final = DAY
"""Seconds for which an ended episode is kept in memory, to be reopened if the same episode continues."""


class _Live(msgspec.Struct):
    """An episode that has not ended, and its incidents: its own, a storm's, or both."""

    incident_key: str | None
    storm: str | None = None


class EpisodeNotice(msgspec.Struct, frozen=True):
    """The start or end of an episode, to be logged."""

    condition: Condition
    subject: str
    rule: str
    summary: str
    reason: Reason | None
    """Why it did or did not page; None if the episode has ended."""
    incident: str | None


class Episodes:
    """Keeps the incidents of episodes. Not thread-safe: it belongs to the monitor."""

    def __init__(self, policy: Policy, rules: RuleSet, registry: IncidentRegistry) -> None:
        """``rules``: the rules configured now; ``registry`` is shared with the Decider."""
        self._policy = policy
        self._rules = rules
        self._registry = registry
        self._live: dict[Identity, _Live] = {}
        self._detectors: dict[Condition, StormDetector] = {}
        self._storms: dict[tuple[Condition, str, Severity], str] = {}
        """Keys of the open storms."""

    def restore(self, old: Incident, now: float) -> None:
        """Load a stored incident. What was sent before the restart counts as sent now."""
        rule = self._rules.current(old.rule, old.condition, old.route)
        effective_rule = rule or Rule(old.rule, severity=old.severity, route=old.route, on=old.condition)
        storm = old.task == STORM and not old.subject
        entry = self._registry.entries[old.key] = OpenIncident(
            old.key, old.task, effective_rule, old.severity, old.hour, old.opened_at, old.first_at, old.last_at,
            max(old.last_at, now) + _RETENTION, old.state, old.reason, old.count, tasks=dict(old.tasks),
            queues=dict(old.queues), workers=dict(old.workers), samples=list(old.samples), sent_at=now,
            sent_count=old.sent_count, dirty=False, storm=storm, condition=old.condition, subject=old.subject,
            details=old.details, unwatched=old.unwatched, message=old.message,
            channels=old.channels,
        )  # fmt: skip
        if old.state in _ENDED:
            return
        if storm:
            self._storms[old.condition, old.route, old.severity] = old.key
        elif rule is None:
            entry.message = f"{entry.message} ({RULE_GONE})"
            self._end(entry, now)
        else:
            self._live[old.condition, old.subject, old.rule] = _Live(old.key)

    def restored(self) -> None:
        """All incidents are loaded: link the members of storms that are still open to them."""
        for live in self._live.values():
            entry = self._registry.entries[live.incident_key or ""]
            if entry.reason is Reason.STORM_JOINED:
                live.storm = self._storms.get((entry.condition, entry.rule.route, entry.severity))

    def clear_storms(self) -> None:
        """Start counting again which subjects have failed recently. Open storms stay open."""
        self._detectors.clear()

    def live(self, on: Condition) -> list[Incident]:
        """The unresolved incidents of this condition, from which its judge continues after a start."""
        entries = (
            self._registry.entries.get(live.incident_key or "") for key, live in self._live.items() if key[0] is on
        )
        return [entry.freeze(self._policy.fleet) for entry in entries if entry is not None]

    def judge(self, changes: Iterable[Episode | EpisodeEnd], now: float) -> Iterator[EpisodeNotice]:
        """Apply what judges have found. Yields a notice for each start and end, and none for updates."""
        for change in changes:
            if isinstance(change, EpisodeEnd):
                key = self.end(change, now)
                if key is not None:
                    summary = self._registry.entries[key].message
                    yield EpisodeNotice(change.condition, change.subject, change.rule, summary, None, key)
            else:
                verdict = self.observe(change, now)
                if verdict.changed:
                    fields = change.condition, change.subject, change.rule.name, change.summary
                    yield EpisodeNotice(*fields, verdict.reason, verdict.incident)

    def observe(self, episode: Episode, now: float) -> Verdict:
        """The condition holds: open the episode's incident, or update it."""
        live = self._live.get(episode.identity)
        entry = None if live is None or live.incident_key is None else self._registry.entries.get(live.incident_key)
        is_open = entry is not None and entry.state is IncidentState.OPEN
        if live is not None and (live.incident_key is None or live.storm or is_open):
            return self._update(live, entry, episode)
        if entry is None:
            entry = self._entry(episode, now)
        if entry is None:
            return self._without_room(episode, now)
        first = live is None
        self._live[episode.identity] = _Live(entry.key)
        entry.observe(episode)
        # After a restart the rule may have other channels.
        entry.rule, entry.severity = episode.rule, episode.rule.severity
        if not episode.rule.page:
            entry.reason = Reason.SILENCED
            return Verdict(Reason.SILENCED, entry.key, changed=first)
        if self._registry.covers(entry, now):  # the judge reports it again, and it opens after the silence
            entry.state, entry.reason = IncidentState.SUPPRESSED, Reason.MUTED
            return Verdict(Reason.MUTED, entry.key, changed=first)
        if self._is_storm(episode, now):
            entry.reason = Reason.STORM_JOINED
            reason, key = self._join_storm(episode, now)
            self._live[episode.identity].storm = key
            return Verdict(reason, key)
        reason = Reason.REOPENED if entry.state in _ENDED else Reason.OPENED
        self._registry.open(entry, reason, now)
        return Verdict(reason, entry.key)

    def end(self, over: EpisodeEnd, now: float) -> str | None:
        """The episode has ended. Returns the key of the incident that this closes; None if it has none of its own."""
        live = self._live.pop(over.identity, None)
        entry = None if live is None or live.incident_key is None else self._registry.entries.get(live.incident_key)
        if entry is None:
            return None
        entry.last_at = max(entry.last_at, over.at)
        entry.message = over.summary or entry.message
        self._end(entry, now)
        return entry.key

    def tick(self, entry: OpenIncident, now: float) -> None:
        """Let time pass for one of its incidents: refresh it, close a storm that has ended, drop an old one."""
        if entry.state is IncidentState.OPEN:
            if entry.storm and all(live.storm != entry.key for live in self._live.values()):
                self._storms.pop((entry.condition, entry.rule.route, entry.severity), None)
                self._end(entry, now)
            else:
                self._registry.refresh(entry, now)
        elif entry.state in _ENDED and now > entry.ends_at and not self._registry.is_choked:
            self._registry.evict(entry)

    def _update(self, live: _Live, entry: OpenIncident | None, episode: Episode) -> Verdict:
        if entry is not None:
            entry.observe(episode)
        return Verdict(
            Reason.STORM_JOINED if live.storm else Reason.JOINED, live.storm or live.incident_key, changed=False
        )

    def _entry(self, episode: Episode, now: float) -> OpenIncident | None:
        """The episode's incident: an existing one with its key, or a new one; None if there is no room."""
        rule = episode.rule
        key = episode_key(episode.condition, episode.subject, rule.name, episode.since, self._fleet)
        entry = self._registry.entries.get(key)
        if entry is None and self._registry.has_room():
            entry = self._registry.entries[key] = self._new(key, episode, now)
            entry.task, entry.subject = episode.task, episode.subject
        return entry

    def _new(self, key: str, episode: Episode, now: float) -> OpenIncident:
        hour = window(episode.since, self._policy.zone)
        rule = episode.rule
        return OpenIncident(
            key, STORM, rule, rule.severity, hour, now, episode.since, episode.at, now + _RETENTION,
            condition=episode.condition,
        )  # fmt: skip

    @property
    def _fleet(self) -> str:
        return self._policy.fleet if "{fleet}" in self._policy.dedup_key else ""

    def _without_room(self, episode: Episode, now: float) -> Verdict:
        self._registry.overflows["incidents"] += 1
        if len(self._live) >= self._registry.max_incidents + MAX_WITHOUT_ROOM:
            return Verdict(Reason.SILENCED, None, changed=False)
        live = self._live[episode.identity] = _Live(None)
        if not episode.rule.page:
            return Verdict(Reason.SILENCED, None)
        reason, live.storm = self._join_storm(episode, now)
        return Verdict(reason, live.storm)

    def _is_storm(self, episode: Episode, now: float) -> bool:
        """Record that an episode has begun. Returns whether it is part of a storm."""
        detector = self._detectors.get(episode.condition)
        if detector is None:
            detector = StormDetector(tasks=self._policy.storm_tasks, window=self._policy.storm_window)
            self._detectors[episode.condition] = detector
        recent = detector.recent(now, 1, exception="", hostname="", queue="", uuid="")
        return detector.note(episode.rule.route, episode.rule.severity, episode.subject, recent)

    def _join_storm(self, episode: Episode, now: float) -> tuple[Reason, str]:
        rule = episode.rule
        key_parts = episode.condition, rule.route, rule.severity
        key = self._storms.get(key_parts)
        entry = None if key is None else self._registry.entries.get(key)
        if entry is None:
            hour = f"{episode.condition}/{window(now, self._policy.zone)}"
            key = storm_key(rule.route, rule.severity, hour, self._fleet)
            entry = self._registry.entries.get(key)
            if entry is None:
                entry = self._registry.entries[key] = self._new(key, episode, now)
                entry.storm = True
            self._storms[key_parts] = entry.key
        entry.last_at = max(entry.last_at, episode.at)
        entry.count += 1
        if len(entry.tasks) < MAX_NAMES_PER_STORM:
            entry.tasks[episode.subject] = 1
        listed = entry.details[0][1] if entry.details else ""
        if len(listed) < MAX_VALUE:
            entry.details = (("Including", f"{listed}; {episode.summary}".removeprefix("; ")[:MAX_VALUE]),)
        entry.dirty = True
        if entry.state is IncidentState.OPEN:
            return Reason.STORM_JOINED, entry.key
        self._registry.open(entry, Reason.STORM_OPENED, now)
        return Reason.STORM_OPENED, entry.key

    def _end(self, entry: OpenIncident, now: float) -> None:
        """Close an incident: one that was open is resolved and notified; any other one expires silently."""
        was_open = entry.state is IncidentState.OPEN
        entry.ends_at = now + _RETENTION
        self._registry.close(entry, IncidentState.RESOLVED if was_open else IncidentState.EXPIRED, now)
