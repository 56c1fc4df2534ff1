"""Which failures page. Rules, windows and open incidents → a Verdict with its Reason for every failure.

An incident is all failures with one dedup key: by default one task in one hour of the failures' own timestamps, so a
backlog read after midnight keeps its keys. It is kept from its first failure on, sent or not. Its life: suppressed
(below the threshold, silenced, too old, or part of a storm) → open → resolved (``resolve: on_success``), and open
again by a later failure. Opening puts a ``trigger`` into the outbox, once; later failures refresh it at most every
``update_interval``. Failures of one incident may fall under several rules, which may match by exception or queue: each
is judged by its own, and until the incident opens it takes on the rule of its newest failure that may page.

A storm is more than ``storm_tasks`` distinct tasks that fail within ``storm_window``: the tasks above that number
become one incident. When it is over, a task that still fails opens an incident of its own.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from celery_monitor.core.model import STORM, Action, Channel, Enqueue, Incident, IncidentState, Reason, Severity
from celery_monitor.core.rules import DAY, Policy, Rule, Rulebook, dedup_key, storm_key, window
from celery_monitor.core.text import OTHER

AWAITED: Final = 7 * DAY
"""How long an open incident waits for the success that resolves it."""
NAMED_PER_INCIDENT: Final = 20
SAMPLES: Final = 5
LONGEST_TRACEBACK: Final = 4_000
"""Characters of it that an incident keeps, from the end."""
_PAGING: Final = frozenset({Reason.OPENED, Reason.REOPENED, Reason.JOINED})
_OPENING: Final = frozenset({Reason.OPENED, Reason.REOPENED, Reason.STORM_OPENED})
_NO_STORM: Final = frozenset({Reason.SILENCED, Reason.BELOW_THRESHOLD, Reason.TOO_OLD})
_SEVERITIES: Final = tuple(Severity)


class Failed(msgspec.Struct, frozen=True, gc=False):
    """A failure as the decision needs it. An incident keeps its last one: its texts are to be short."""

    uuid: str
    task: str
    queue: str
    exception: str
    at: float
    hostname: str
    message: str
    traceback: str
    """At most LONGEST_TRACEBACK characters."""
    args: str | None = None
    kwargs: str | None = None


class Verdict(msgspec.Struct, frozen=True):
    """What became of one failure."""

    reason: Reason
    incident: str | None
    """Key of the incident that it belongs to; None when it came too late for it."""
    changed: bool = True
    """The incident came to this reason now: what ``celery_monitor_incidents_total`` counts."""


class Notice(msgspec.Struct, frozen=True):
    """A failure's verdict, for the log."""

    task: str
    uuid: str
    exception: str
    verdict: Verdict


class _Open(msgspec.Struct, gc=False):
    """An incident in memory, mutable, and what is known of its sending."""

    key: str
    task: str
    rule: Rule
    severity: Severity
    hour: str
    opened_at: float
    first_at: float
    last_at: float
    ends_at: float
    """When no failure can join it any more."""
    state: IncidentState = IncidentState.SUPPRESSED
    reason: Reason = Reason.BELOW_THRESHOLD
    count: int = 0
    silenced: int = 0
    exceptions: dict[str, int] = {}  # msgspec copies an empty default for each instance
    workers: dict[str, int] = {}
    queues: dict[str, int] = {}
    tasks: dict[str, int] = {}
    samples: list[str] = []
    last: Failed | None = None
    sent_at: float = 0.0
    sent_count: int = 0
    succeeded_at: float = 0.0
    dirty: bool = True
    storm: bool = False

    def join(self, failed: Failed, *, page: bool) -> None:
        """Count a failure in. ``page``: its rule does not silence it."""
        self.dirty = True
        self.count += 1
        self.silenced += not page
        self.first_at = min(self.first_at, failed.at)
        _count(self.exceptions, failed.exception)
        _count(self.workers, failed.hostname)
        _count(self.queues, failed.queue)
        _count(self.tasks, failed.task)
        if len(self.samples) < SAMPLES:
            self.samples.append(failed.uuid)
        if failed.at >= self.last_at:
            self.last_at, self.last = failed.at, failed

    def freeze(self, fleet: str) -> Incident:
        """The value that is stored and sent."""
        last = self.last
        return Incident(
            key=self.key,
            fleet=fleet,
            task=self.task,
            rule=self.rule.name if not self.storm else "",
            route=self.rule.route,
            severity=self.severity,
            state=self.state,
            reason=self.reason,
            hour=self.hour,
            opened_at=self.opened_at,
            first_at=self.first_at,
            last_at=self.last_at,
            count=self.count,
            silenced=self.silenced,
            threshold=self.rule.threshold,
            exceptions=self.exceptions.copy(),
            workers=self.workers.copy(),
            queues=self.queues.copy(),
            tasks=self.tasks.copy(),
            samples=tuple(self.samples),
            message=last.message if last else "",
            traceback=last.traceback if last else "",
            args=last.args if last else None,
            kwargs=last.kwargs if last else None,
            runbook_url=self.rule.runbook_url,
            sent_count=self.sent_count,
            succeeded_at=self.succeeded_at,
        )


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
        self._rules = Rulebook(policy)

    def restore(self, incidents: Iterable[Incident], now: float) -> None:
        """Take over what the store kept. What was sent before counts as sent now."""
        for old in incidents:
            entry = self._open[old.key] = _Open(
                old.key, old.task, self._rules.named(old.rule, old.route), old.severity, old.hour,
                old.opened_at, old.first_at, old.last_at, self._policy.joinable_until(old.first_at),
                old.state, old.reason, old.count, old.silenced, dict(old.exceptions), dict(old.workers),
                dict(old.queues), dict(old.tasks), list(old.samples),
                Failed("", old.task, "", "", old.last_at, "", old.message, old.traceback, old.args, old.kwargs),
                sent_at=now, sent_count=old.sent_count, succeeded_at=old.succeeded_at, dirty=False, storm=old.is_storm,
            )  # fmt: skip
            if old.state is IncidentState.OPEN:
                self._note_open(entry)
            if not entry.storm and old.reason not in _NO_STORM:
                recent = self._recent.setdefault(old.route, {})
                recent[old.task] = max(old.last_at, recent.get(old.task, 0.0))

    def decide(self, failed: Failed, now: float) -> Verdict:
        """Put a failure into its incident and say whether it pages."""
        rule = self._rules.find(failed.task, failed.queue, failed.exception)
        key = self._key(failed, rule)
        too_old = now - failed.at > self._policy.max_age
        entry = self._open.get(key)
        if entry is None:
            if too_old:
                return Verdict(Reason.TOO_OLD, None)
            entry = self._open[key] = self._new(key, failed.task, rule, failed, now)
        elif rule.page and entry.state is not IncidentState.OPEN:
            entry.rule, entry.severity = rule, rule.severity
        before = entry.reason if entry.count else None
        entry.join(failed, page=rule.page)
        reason = _reason(entry, rule, too_old=too_old)
        if rule.page and reason in _PAGING:
            storming = self._is_storm(rule.route, failed.task, min(failed.at, now))
            if reason is not Reason.JOINED:
                if storming:
                    reason, key = self._join_storm(failed, rule, now)
                else:
                    self._trigger(entry, reason, now)
        if entry.state is IncidentState.SUPPRESSED:
            entry.reason = reason
        return Verdict(reason, key, reason is not Reason.JOINED and (reason in _OPENING or reason is not before))

    def succeeded(self, task: str, at: float) -> None:
        """A task succeeded: its open incidents may resolve once they are quiet."""
        for key in self._open_of.get(task, ()):
            entry = self._open[key]
            # The first success after a failure decides; the thousands after it are not worth a write.
            entry.dirty |= entry.succeeded_at <= entry.last_at < at
            entry.succeeded_at = max(entry.succeeded_at, at)

    @property
    def pages(self) -> bool:
        """Whether something is to be sent with the next ``take``."""
        return bool(self._outbox)

    @property
    def awaited(self) -> Mapping[str, set[str]]:
        """Tasks whose success would matter."""
        return self._open_of if self._policy.resolve_on_success else {}

    @property
    def open_count(self) -> int:
        """Incidents that are open."""
        return sum(entry.state is IncidentState.OPEN for entry in self._open.values())

    def tick(self, now: float) -> None:
        """Refresh what grew, resolve what is over, and let go of windows that no failure can join any more."""
        for entry in list(self._open.values()):
            is_open = entry.state is IncidentState.OPEN
            if is_open and self._is_over(entry, now):
                self._close(entry, IncidentState.RESOLVED, now)
            elif is_open and entry.count > entry.sent_count and now - entry.sent_at >= self._policy.update_interval:
                self._send(entry, now)
            if now > entry.ends_at and not (entry.state is IncidentState.OPEN and self._awaits(entry, now)):
                if entry.state is IncidentState.OPEN:
                    self._close(entry, IncidentState.EXPIRED, now)
                if entry.dirty:
                    self._closed.append(entry.freeze(self._policy.fleet))
                del self._open[entry.key]

    def take(self) -> tuple[list[Incident], list[Enqueue]]:
        """Incidents that changed since the last call, and the outbox rows to write with them."""
        outbox, self._outbox = self._outbox, []
        for row in outbox:
            entry = self._open.get(row.key)
            if entry is not None:  # what came since is committed with the row, and told by it
                entry.sent_count = entry.count
        changed, self._closed = self._closed, []
        for entry in self._open.values():
            if entry.dirty:
                entry.dirty = False
                changed.append(entry.freeze(self._policy.fleet))
        return changed, outbox

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

    def _new(self, key: str, task: str, rule: Rule, failed: Failed, now: float) -> _Open:
        hour = window(failed.at, self._policy.zone)
        return _Open(
            key, task, rule, rule.severity, hour, now, failed.at, failed.at, self._policy.joinable_until(failed.at)
        )

    def _is_storm(self, route: str, task: str, at: float) -> bool:
        """Note that a task has failed ``at`` a time that is not in the future; whether too many have."""
        recent = self._recent.setdefault(route, {})
        recent[task] = max(at, recent.get(task, 0.0))
        if len(recent) > self._policy.storm_tasks and abs(at - self._pruned_at.get(route, 0.0)) >= 1.0:
            self._pruned_at[route] = at
            since = at - self._policy.storm_window
            for old in [other for other, failed_at in recent.items() if failed_at < since]:
                del recent[old]
        return len(recent) > self._policy.storm_tasks

    def _join_storm(self, failed: Failed, rule: Rule, now: float) -> tuple[Reason, str]:
        key = storm_key(rule.route, window(failed.at, self._policy.zone))
        entry = self._open.get(key)
        if entry is None:
            entry = self._open[key] = self._new(key, STORM, rule, failed, now)
        entry.storm = True
        entry.join(failed, page=True)
        if _SEVERITIES.index(rule.severity) < _SEVERITIES.index(entry.severity):
            entry.severity = rule.severity
        if entry.state is IncidentState.OPEN:
            return Reason.STORM_JOINED, key
        self._trigger(entry, Reason.STORM_OPENED, now)
        return Reason.STORM_OPENED, key

    def _trigger(self, entry: _Open, reason: Reason, now: float) -> None:
        entry.state, entry.reason, entry.succeeded_at = IncidentState.OPEN, reason, 0.0
        self._note_open(entry)
        self._send(entry, now)

    def _send(self, entry: _Open, now: float, action: Action = Action.TRIGGER) -> None:
        entry.sent_at, entry.sent_count, entry.dirty = now, entry.count, True
        if self._rules.sends(entry.rule.route):
            self._outbox.append(Enqueue(Channel.PAGERDUTY, entry.key, action, entry.rule.route, now))

    def _is_over(self, entry: _Open, now: float) -> bool:
        if not self._policy.resolve_on_success or now - entry.last_at < self._policy.resolve_after:
            return False
        return entry.storm or entry.succeeded_at > entry.last_at

    def _awaits(self, entry: _Open, now: float) -> bool:
        return self._policy.resolve_on_success and now - entry.last_at < AWAITED

    def _close(self, entry: _Open, state: IncidentState, now: float) -> None:
        entry.state, entry.dirty = state, True
        for task in entry.tasks:
            keys = self._open_of.get(task)
            if keys is not None:
                keys.discard(entry.key)
                if not keys:
                    del self._open_of[task]
        if state is IncidentState.RESOLVED:
            self._send(entry, now, Action.RESOLVE)

    def _note_open(self, entry: _Open) -> None:
        for task in () if entry.storm else entry.tasks:
            self._open_of.setdefault(task, set()).add(entry.key)


def _reason(entry: _Open, rule: Rule, *, too_old: bool) -> Reason:
    """What becomes of a failure under ``rule`` that has joined the entry."""
    if entry.state is IncidentState.OPEN:
        return Reason.JOINED
    if too_old:
        return Reason.TOO_OLD
    if not rule.page:
        return Reason.SILENCED
    if entry.state is IncidentState.RESOLVED:
        return Reason.REOPENED
    return Reason.OPENED if entry.count - entry.silenced >= rule.threshold else Reason.BELOW_THRESHOLD


def _count(counts: dict[str, int], name: str) -> None:
    if name not in counts and len(counts) >= NAMED_PER_INCIDENT:
        name = OTHER
    counts[name] = counts.get(name, 0) + 1
