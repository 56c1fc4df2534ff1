"""Which failures page. Rules, windows and open incidents → a Verdict with its Reason for every failure.

An incident is all failures with one dedup key: by default one task in one hour of the failures' own timestamps, so a
backlog read after midnight keeps its keys. It is kept from its first failure on, sent or not. Its life: suppressed
(below the threshold, silenced, too old, or part of a storm) → open → resolved (``resolve: on_success``), and open
again by a later failure. Opening puts a ``trigger`` into the outbox, once; later failures refresh it at most every
``update_interval``.

A storm is more than ``storm_tasks`` distinct tasks that fail within ``storm_window``: the tasks above that number
become one incident. When it is over, a task that still fails opens an incident of its own.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from fnmatch import translate
from functools import lru_cache
from hashlib import sha256
from typing import Final

from celery_monitor.core.model import (
    STORM,
    Action,
    Channel,
    Enqueue,
    Incident,
    IncidentState,
    Reason,
    Severity,
)

LONGEST_KEY: Final = 255
KEY_HEAD: Final = 238
DAY: Final = 86_400.0
OTHER: Final = "other"
NAMED_PER_INCIDENT: Final = 20
SAMPLES: Final = 5
LONGEST_TRACEBACK: Final = 4_000
_SEVERITIES: Final = tuple(Severity)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of ``alerts.rules``; globs match whole names, an empty list matches all."""

    name: str = ""
    match: Sequence[str] = ()
    queues: Sequence[str] = ()
    exceptions: Sequence[str] = ()
    exclude: Sequence[str] = ()
    threshold: int = 1
    severity: Severity = Severity.ERROR
    route: str = ""
    """The rule's name when it has a routing key of its own."""
    sends: bool = True
    """False when its route has no routing key: incidents are kept and shown, nothing is sent."""
    runbook_url: str | None = None
    page: bool = True


@dataclass(frozen=True, slots=True)
class Policy:
    """``alerts`` and the part of ``pagerduty`` that decides. Times in seconds."""

    fleet: str = "celery"
    zone: tzinfo = UTC
    dedup_key: str = "{task}/{hour}"
    max_age: float = 7200.0
    storm_tasks: int = 20
    storm_window: float = 300.0
    rules: Sequence[Rule] = ()
    default: Rule = field(default_factory=Rule)
    update_interval: float = 600.0
    resolve_on_success: bool = False
    resolve_after: float = 1800.0


@dataclass(frozen=True, slots=True)
class Failed:
    """A failure as the decision needs it."""

    uuid: str
    task: str
    queue: str
    exception: str
    at: float
    hostname: str
    message: str
    traceback: str
    args: str | None = None
    kwargs: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one failure."""

    reason: Reason
    incident: str | None
    """Key of the incident that it belongs to; None when it came too late for it."""
    changed: bool = True
    """The incident came to this reason now: what ``celery_monitor_incidents_total`` counts."""
    opened: bool = False
    """It opened an incident."""


class _Open:
    """An incident in memory and what is known of its sending."""

    __slots__ = ("dirty", "ends_at", "incident", "sent_at", "sent_count", "succeeded_at")

    def __init__(self, incident: Incident, ends_at: float) -> None:
        self.incident = incident
        self.ends_at = ends_at
        self.sent_at = 0.0
        self.sent_count = 0
        self.succeeded_at = 0.0
        self.dirty = True


class Decider:
    """Keeps the incidents whose window may still grow. Not thread-safe: it belongs to the monitor."""

    def __init__(self, policy: Policy) -> None:
        """Start without incidents; ``restore`` fills it."""
        self._policy = policy
        self._open: dict[str, _Open] = {}
        self._open_of: dict[str, set[str]] = {}
        self._recent: dict[str, dict[str, float]] = {}
        self._pruned_at: dict[str, float] = {}
        self._outbox: list[Enqueue] = []
        self._closed: list[Incident] = []
        self._rule_of = lru_cache(maxsize=20_000)(self._find_rule)
        self._sends = {rule.route: rule.sends for rule in (*policy.rules, policy.default)}
        self._matchers = [
            (rule, _matcher(rule.match), _matcher(rule.queues), _matcher(rule.exceptions), _matcher(rule.exclude))
            for rule in policy.rules
        ]

    def restore(self, incidents: Iterable[Incident], now: float) -> None:
        """Take over what the store kept. What was sent before counts as sent now."""
        for incident in incidents:
            entry = self._open[incident.key] = _Open(incident, self._end(incident.last_at))
            entry.sent_at, entry.sent_count, entry.dirty = now, incident.count, False
            if incident.state is IncidentState.OPEN:
                self._note_open(incident)
            if incident.task != STORM and incident.reason is not Reason.SILENCED:
                self._recent.setdefault(incident.route, {})[incident.task] = incident.last_at

    def decide(self, failed: Failed, now: float) -> Verdict:
        """Put a failure into its incident and say whether it pages."""
        rule = self._rule_of(failed.task, failed.queue, failed.exception)
        key = self._key(failed, rule)
        too_old = now - failed.at > self._policy.max_age
        entry = self._open.get(key)
        if entry is None:
            if too_old:
                return Verdict(Reason.TOO_OLD, None)
            entry = self._open[key] = _Open(self._new(key, failed.task, rule, failed, now), self._end(failed.at))
        self._join(entry, failed)
        reason = self._reason(entry.incident, rule, too_old=too_old)
        opened = False
        before = entry.incident.reason if entry.incident.count > 1 else None
        if reason in {Reason.OPENED, Reason.REOPENED, Reason.JOINED} and rule.page:
            storming = self._is_storm(rule.route, failed)
            if reason is not Reason.JOINED and storming:
                reason, key, opened = self._join_storm(failed, rule, now)
            elif reason is not Reason.JOINED:
                opened = self._trigger(entry, reason, now)
        if reason is not Reason.JOINED and entry.incident.state is IncidentState.SUPPRESSED:
            entry.incident = replace(entry.incident, reason=reason)
        return Verdict(reason, key, opened or (reason is not Reason.JOINED and reason is not before), opened)

    def succeeded(self, task: str, at: float) -> None:
        """A task succeeded: its open incidents may resolve once they are quiet."""
        for key in self._open_of.get(task, ()):
            entry = self._open[key]
            entry.succeeded_at = max(entry.succeeded_at, at)

    @property
    def awaited(self) -> Mapping[str, set[str]]:
        """Tasks whose success would matter."""
        return self._open_of if self._policy.resolve_on_success else {}

    @property
    def open_count(self) -> int:
        """Incidents that are open."""
        return sum(entry.incident.state is IncidentState.OPEN for entry in self._open.values())

    def tick(self, now: float) -> None:
        """Refresh what grew, resolve what is over, and let go of windows that no failure can join any more."""
        for key, entry in list(self._open.items()):
            incident = entry.incident
            if incident.state is IncidentState.OPEN:
                if self._is_over(entry, now):
                    self._close(entry, IncidentState.RESOLVED, now)
                    continue
                if incident.count > entry.sent_count and now - entry.sent_at >= self._policy.update_interval:
                    self._send(entry, now)
            if now > entry.ends_at and not (
                incident.state is IncidentState.OPEN
                and self._policy.resolve_on_success
                and now - incident.last_at < 7 * DAY
            ):
                if incident.state is IncidentState.OPEN:
                    self._close(entry, IncidentState.EXPIRED, now)
                if entry.dirty:
                    self._closed.append(entry.incident)
                del self._open[key]

    def take(self) -> tuple[list[Incident], list[Enqueue]]:
        """Incidents that changed since the last call, and the outbox rows to write with them."""
        changed, self._closed = self._closed, []
        for entry in self._open.values():
            if entry.dirty:
                entry.dirty = False
                changed.append(entry.incident)
        outbox, self._outbox = self._outbox, []
        return changed, outbox

    def _find_rule(self, task: str, queue: str, exception: str) -> Rule:
        for rule, tasks, queues, exceptions, excluded in self._matchers:
            if (
                (not rule.match or tasks(task))
                and (not rule.queues or queues(queue))
                and (not rule.exceptions or exceptions(exception))
                and not (rule.exclude and excluded(task))
            ):
                return rule
        return self._policy.default

    def _key(self, failed: Failed, rule: Rule) -> str:
        hour = window(failed.at, self._policy.zone)
        names = {
            "task": failed.task,
            "hour": hour,
            "fleet": self._policy.fleet,
            "queue": failed.queue,
            "rule": rule.name,
        }
        return dedup_key(self._policy.dedup_key, names)

    def _new(self, key: str, task: str, rule: Rule, failed: Failed, now: float) -> Incident:
        return Incident(
            key=key,
            fleet=self._policy.fleet,
            task=task,
            rule=rule.name,
            route=rule.route,
            severity=rule.severity,
            state=IncidentState.SUPPRESSED,
            reason=Reason.BELOW_THRESHOLD,
            hour=window(failed.at, self._policy.zone),
            opened_at=now,
            first_at=failed.at,
            last_at=failed.at,
            count=0,
            threshold=rule.threshold,
            runbook_url=rule.runbook_url,
        )

    def _join(self, entry: _Open, failed: Failed) -> None:
        old = entry.incident
        newest = failed.at >= old.last_at
        entry.dirty = True
        entry.ends_at = max(entry.ends_at, self._end(failed.at))
        entry.incident = replace(
            old,
            count=old.count + 1,
            first_at=min(old.first_at, failed.at),
            last_at=max(old.last_at, failed.at),
            exceptions=_counted(old.exceptions, failed.exception),
            workers=_counted(old.workers, failed.hostname),
            queues=_counted(old.queues, failed.queue),
            tasks=_counted(old.tasks, failed.task),
            samples=(*old.samples, failed.uuid) if len(old.samples) < SAMPLES else old.samples,
            message=failed.message if newest else old.message,
            traceback=failed.traceback[-LONGEST_TRACEBACK:] if newest else old.traceback,
            args=failed.args if newest else old.args,
            kwargs=failed.kwargs if newest else old.kwargs,
        )

    def _reason(self, incident: Incident, rule: Rule, *, too_old: bool) -> Reason:
        if incident.state is IncidentState.OPEN:
            return Reason.JOINED
        if too_old:
            return Reason.TOO_OLD
        if not rule.page:
            return Reason.SILENCED
        if incident.state is IncidentState.RESOLVED:
            return Reason.REOPENED
        return Reason.OPENED if incident.count >= rule.threshold else Reason.BELOW_THRESHOLD

    def _is_storm(self, route: str, failed: Failed) -> bool:
        recent = self._recent.setdefault(route, {})
        recent[failed.task] = max(failed.at, recent.get(failed.task, 0.0))
        if len(recent) > self._policy.storm_tasks and abs(failed.at - self._pruned_at.get(route, 0.0)) >= 1.0:
            self._pruned_at[route] = failed.at
            since = failed.at - self._policy.storm_window
            for task in [task for task, at in recent.items() if at < since]:
                del recent[task]
        return len(recent) > self._policy.storm_tasks

    def _join_storm(self, failed: Failed, rule: Rule, now: float) -> tuple[Reason, str, bool]:
        hour = window(failed.at, self._policy.zone)
        key = "/".join(part for part in (STORM, rule.route, hour) if part)[:LONGEST_KEY]
        entry = self._open.get(key)
        if entry is None:
            entry = self._open[key] = _Open(
                replace(self._new(key, STORM, rule, failed, now), rule="", threshold=1), self._end(failed.at)
            )
        self._join(entry, failed)
        if _SEVERITIES.index(rule.severity) < _SEVERITIES.index(entry.incident.severity):
            entry.incident = replace(entry.incident, severity=rule.severity)
        if entry.incident.state is IncidentState.OPEN:
            return Reason.STORM_JOINED, key, False
        return Reason.STORM_OPENED, key, self._trigger(entry, Reason.STORM_OPENED, now)

    def _trigger(self, entry: _Open, reason: Reason, now: float) -> bool:
        entry.incident = replace(entry.incident, state=IncidentState.OPEN, reason=reason)
        entry.succeeded_at = 0.0
        self._note_open(entry.incident)
        self._send(entry, now)
        return True

    def _send(self, entry: _Open, now: float, action: Action = Action.TRIGGER) -> None:
        incident = entry.incident
        entry.sent_at, entry.sent_count = now, incident.count
        if self._sends.get(incident.route, False):
            self._outbox.append(Enqueue(Channel.PAGERDUTY, incident.key, action, incident.route, now))

    def _is_over(self, entry: _Open, now: float) -> bool:
        incident = entry.incident
        if not self._policy.resolve_on_success or now - incident.last_at < self._policy.resolve_after:
            return False
        return incident.task == STORM or entry.succeeded_at > incident.last_at

    def _close(self, entry: _Open, state: IncidentState, now: float) -> None:
        entry.incident = replace(entry.incident, state=state)
        entry.dirty = True
        for task in entry.incident.tasks:
            keys = self._open_of.get(task)
            if keys is not None:
                keys.discard(entry.incident.key)
                if not keys:
                    del self._open_of[task]
        if state is IncidentState.RESOLVED:
            self._send(entry, now, Action.RESOLVE)

    def _note_open(self, incident: Incident) -> None:
        if incident.task != STORM:
            for task in incident.tasks:
                self._open_of.setdefault(task, set()).add(incident.key)

    def _end(self, at: float) -> float:
        """Until when a failure at ``at``'s window can still come: the hour's end, however it is cut, plus max_age."""
        quiet = 3600.0 if "{hour}" in self._policy.dedup_key else DAY
        return at + quiet + self._policy.max_age


def window(at: float, zone: tzinfo) -> str:
    """The hour of ``at`` (unix seconds) in a zone: ``2026-11-23T14Z``, ``2026-11-23T14+05:30``."""
    return _window(int(at // 900), zone)


@lru_cache(maxsize=4096)
def _window(quarter: int, zone: tzinfo) -> str:
    local = datetime.fromtimestamp(quarter * 900, zone)
    offset = local.strftime("%z")
    name = "Z" if zone is UTC or str(zone) == "UTC" else f"{offset[:3]}:{offset[3:5]}"
    return f"{local:%Y-%m-%dT%H}{name}"


def dedup_key(template: str, names: Mapping[str, str]) -> str:
    """Fill a template; over 255 characters: the first 238, ``~``, and 16 hex digits of the whole key's sha256."""
    key = re.sub(r"\{(\w+)\}", lambda found: names[found[1]], template)
    if len(key) <= LONGEST_KEY:
        return key
    return f"{key[:KEY_HEAD]}~{sha256(key.encode('utf-8', 'replace')).hexdigest()[:16]}"


def _counted(counts: Mapping[str, int], name: str) -> dict[str, int]:
    counted = dict(counts)
    if name not in counted and len(counted) >= NAMED_PER_INCIDENT:
        name = OTHER
    counted[name] = counted.get(name, 0) + 1
    return counted


def _matcher(globs: Sequence[str]) -> Callable[[str], object]:
    return re.compile("|".join(map(translate, globs)) or r"(?!)").match
