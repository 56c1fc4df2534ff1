"""Decides which failures page: rules, windows and open incidents give each failure a Verdict with a Reason.

An incident groups all failures with the same dedup key: by default one task in one hour of the failures' own
timestamps, so a backlog that is read after midnight keeps its keys. It exists from its first failure, whether or not
anything is sent. Its states: suppressed (below the threshold, silenced, too old, or part of a storm) → open → resolved
(``resolve: on_success``), and open again after a later failure. Opening adds one ``trigger`` to the outbox; later
failures refresh it at most every ``update_interval``. Failures of one incident may match different rules, by exception
or queue: each is judged by its own rule, and until the incident opens it takes the rule of its newest failure that may
page.

A silence or a mute window (``core/silences``) holds back notifications that would open or refresh an incident. When it
ends, the incident pages if its condition still holds (``core/muted``).

A storm occurs when more than ``storm_tasks`` distinct tasks of one severity, or a higher one, fail within
``storm_window`` (``core/storm``). The tasks above that number share one incident of that severity, which counts the
failures of all of them. After the storm, a task that still fails opens its own incident.

The number of incidents in memory is bounded. Beyond the bound, incidents that were not sent or have ended are dropped.
If all are open, a failure that would open another one joins the storm of its severity, so that it pages whatever
events arrive.

With ``resolve_on_success`` an incident resolves when each of its tasks has succeeded since its last failure and has
not failed for ``resolve_after``. Failures in other incidents of the task count too, because the next hour has another
incident.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import structs

from celery_monitor.core.awaited import AwaitedTasks
from celery_monitor.core.episodes import Episodes
from celery_monitor.core.incident import OpenIncident, TaskFailure, Verdict, restored_incident
from celery_monitor.core.incident_registry import IncidentRegistry
from celery_monitor.core.model import STORM, Condition, Incident, IncidentState, OutboxRequest, Reason
from celery_monitor.core.recovery import RecoveryTracker
from celery_monitor.core.rules import DAY, Policy, Rule, RuleSet, dedup_key, storm_key, window
from celery_monitor.core.silences import Silences
from celery_monitor.core.storm import RecentFailures, StormDetector, storm_name

MAX_INCIDENTS: Final = 2_000
KEYS_REMEMBERED: Final = 1_000
AWAITED: Final = 7 * DAY
"""Seconds that an open incident waits for the success that resolves it."""
_PAGING: Final = (Reason.JOINED, Reason.OPENED, Reason.REOPENED)
_OPENING: Final = (Reason.OPENED, Reason.REOPENED, Reason.STORM_OPENED)
"""Tuples: looking up an enum member in a set calls its hash method, which is slow on the path of each failure."""
_OPEN: Final = IncidentState.OPEN
_SUPPRESSED: Final = IncidentState.SUPPRESSED
_JOINED: Final = Reason.JOINED
"""Looked up once: up to Python 3.11 each ``IncidentState.OPEN`` calls a descriptor's method."""
_NO_STORM: Final = frozenset({Reason.SILENCED, Reason.MUTED, Reason.BELOW_THRESHOLD, Reason.TOO_OLD})


class Notice(msgspec.Struct, frozen=True):
    """A failure's verdict, to be logged."""

    task: str
    uuid: str
    exception: str
    verdict: Verdict


class Decider:
    """Keeps the incidents that failures can still join. Not thread-safe: it belongs to the monitor."""

    def __init__(
        self,
        policy: Policy,
        *,
        silences: Silences | None = None,
        max_incidents: int = MAX_INCIDENTS,
        overflows: Counter[str] | None = None,
    ) -> None:
        """Start empty; ``restore`` fills it.

        ``max_incidents`` bounds the incidents in memory; ``overflows`` counts those that were dropped.
        """
        self._policy = policy
        self._overflows = overflows if overflows is not None else Counter()
        self._rules = RuleSet(policy)
        self._silences = Silences() if silences is None else silences
        self._registry = IncidentRegistry(
            policy, self._rules, self._silences, max_incidents=max_incidents, overflows=self._overflows
        )
        self._awaited = AwaitedTasks(self._registry, resolve_on_success=policy.resolve_on_success)
        self._muted = self._awaited.muted
        self._open = self._registry.entries
        self._storms = StormDetector(tasks=policy.storm_tasks, window=policy.storm_window)
        self._recovery = RecoveryTracker()
        self.episodes = Episodes(policy, self._rules, self._registry)
        """The incidents of conditions other than failure."""
        self._key_of = lru_cache(maxsize=KEYS_REMEMBERED)(self._new_key)

    def restore(self, incidents: Iterable[Incident], now: float) -> None:
        """Load the stored incidents. What was sent before the restart counts as sent now."""
        for old in incidents:
            if old.condition is not Condition.FAILURE:
                self.episodes.restore(old, now)
                continue
            entry = self._open[old.key] = restored_incident(
                old, self._restored_rule(old), self._policy.joinable_until(old.first_at), now
            )
            if old.state is IncidentState.OPEN:
                self._awaited.opened(entry)
            elif old.reason is Reason.MUTED:
                self._awaited.mute(entry)
            self._recovery.restore(self._task_names(entry), old.last_at, old.succeeded_at)
            if not entry.storm and old.reason not in _NO_STORM:
                self._storms.note(old.route, old.severity, old.task, self._restored(old))
        self.episodes.restored()

    def decide(self, failure: TaskFailure, now: float) -> Verdict:
        """Add a failure to its incident and decide whether it pages."""
        rule = self._rules.find(failure.task, failure.queue, failure.exception)
        key = self._key(failure, rule)
        too_old = now - failure.at > self._policy.max_age
        if self._policy.resolve_on_success:
            self._recovery.failed(failure.task, failure.at)
        entry = self._open.get(key)
        if entry is None:
            if too_old or not self._registry.has_room():
                return self._reject(failure, rule, now, too_old=too_old)
            entry = self._open[key] = self._new(key, failure.task, rule, failure, now)
        elif rule.page and entry.state is not _OPEN:
            entry.rule, entry.severity = rule, rule.severity
        before = entry.reason if entry.count else None
        muted = rule.page and bool(self._silences) and self._covers(failure, now)
        entry.join(failure, page=rule.page)
        if entry.state is _OPEN and failure.task in entry.tasks and key not in self._awaited.open_keys(failure.task):
            self._awaited.add(failure.task, key)
        reason = _reason(entry, rule, too_old=too_old)
        if rule.page and reason in _PAGING:
            reason, key = self._page(entry, failure, rule, reason, now, muted=muted)
        if entry.state is _SUPPRESSED:
            entry.reason = Reason.MUTED if entry.key in self._muted else reason
        return Verdict(reason, key, reason is not _JOINED and (reason in _OPENING or reason is not before), muted)

    def _page(
        self, entry: OpenIncident, failure: TaskFailure, rule: Rule, reason: Reason, now: float, *, muted: bool
    ) -> tuple[Reason, str]:
        """Notify of a failure that may page. Returns the reason for the outcome and the incident's key."""
        joined = reason is _JOINED
        if muted:
            if not joined:
                entry.state, reason = IncidentState.SUPPRESSED, Reason.MUTED
                self._awaited.mute(entry)
            return reason, entry.key
        self._awaited.unmute(entry)
        if self._is_storm(rule, failure, now):
            outcome = self._join_storm(failure, rule, now, opens=not joined)
            return (reason, entry.key) if joined else outcome
        if not joined:
            self._trigger(entry, reason, now)
        return reason, entry.key

    def _reject(self, failure: TaskFailure, rule: Rule, now: float, *, too_old: bool) -> Verdict:
        """Handle a failure that gets no incident of its own. If there was no room for one, it pages with a storm."""
        if too_old:
            return Verdict(Reason.TOO_OLD, None)
        self._overflows["incidents"] += 1
        if not rule.page:
            return Verdict(Reason.SILENCED, None)
        if self._covers(failure, now):
            return Verdict(Reason.MUTED, None, muted=True)
        self._is_storm(rule, failure, now)
        reason, key = self._join_storm(failure, rule, now, opens=True)
        return Verdict(reason, key, reason is Reason.STORM_OPENED)

    def succeeded(self, task: str, at: float) -> None:
        """A task succeeded: its open incidents may resolve once it has not failed for long enough."""
        if self._policy.resolve_on_success:
            self._recovery.succeeded(task, at)
        for key in self._awaited.keys(task):
            entry = self._open[key]
            # Only the first success after a failure matters; the thousands after it are not worth a write.
            entry.dirty |= entry.succeeded_at <= entry.last_at < at
            entry.succeeded_at = max(entry.succeeded_at, at)

    def clock_set_back(self, seconds: float, now: float) -> None:
        """The machine's clock was set back by ``seconds`` to ``now``.

        Otherwise, no incident from before would be refreshed or resolved until the clock shows its last time again, and
        its tasks would be part of a storm until then.
        """
        for entry in self._open.values():
            entry.clock_set_back(seconds, now)
        self._recovery.clock_set_back(seconds, now)
        self._storms.clear()
        self.episodes.clear_storms()

    @property
    def pages(self) -> bool:
        """Whether the next ``take`` returns notifications."""
        return bool(self._registry.outbox)

    @property
    def awaited(self) -> Mapping[str, bool]:
        """Tasks whose next success matters. Always the same object."""
        return self._awaited.tasks

    def __len__(self) -> int:
        """Incidents in memory."""
        return len(self._open)

    @property
    def open_by_condition(self) -> Mapping[str, int]:
        """Number of open incidents, by condition."""
        return self._registry.open_by_condition

    @property
    def open_count(self) -> int:
        """Number of open incidents."""
        return self._registry.open_count

    def tick(self, now: float, read_until: float | None = None) -> list[Verdict]:
        """Refresh incidents that grew, resolve those that have ended, and drop those that no failure can join any more.

        Returns the verdicts on incidents whose silence has ended. ``read_until``: everything published before this time
        has been read, so a success would be known; None if unknown.
        """
        self._registry.tick()
        unmuted = self._muted.unmuted(now, read_until)
        ended = [self._release(entry, now, pages=pages) for entry, pages in unmuted]
        for entry in list(self._open.values()):
            if entry.condition is not Condition.FAILURE:
                self.episodes.tick(entry, now)
                continue
            if entry.state is IncidentState.OPEN:
                if self._is_over(entry, now):
                    self._close(entry, IncidentState.RESOLVED, now)
                else:
                    self._registry.refresh(entry, now)
            if self._registry.is_choked:
                continue  # the store is unavailable: ended incidents have to wait too
            waits = entry.key in self._muted or (entry.state is IncidentState.OPEN and self._awaits(entry, now))
            if now > entry.ends_at and not waits:
                if entry.state is IncidentState.OPEN:
                    self._close(entry, IncidentState.EXPIRED, now)
                self._registry.evict(entry)
        self._recovery.forget(now - self._policy.resolve_after, self._awaited.open_by_task)
        return ended

    def unsent(self) -> list[tuple[OutboxRequest, Incident]]:
        """The notifications that the next ``take`` would return, without taking them."""
        return self._registry.unsent()

    def take(self) -> tuple[list[Incident], list[OutboxRequest]]:
        """Incidents that changed since the last call, and the outbox rows to write with them."""
        return self._registry.take()

    def _key(self, failure: TaskFailure, rule: Rule) -> str:
        return self._key_of(failure.task, window(failure.at, self._policy.zone), failure.queue, rule.name)

    def _new_key(self, task: str, hour: str, queue: str, rule: str) -> str:
        names = {"task": task, "hour": hour, "fleet": self._policy.fleet, "queue": queue, "rule": rule}
        return dedup_key(self._policy.dedup_key, names)

    def _new(self, key: str, task: str, rule: Rule, failure: TaskFailure, now: float) -> OpenIncident:
        hour = window(failure.at, self._policy.zone)
        return OpenIncident(
            key, task, rule, rule.severity, hour, now, failure.at, failure.at, self._policy.joinable_until(failure.at)
        )

    def _is_storm(self, rule: Rule, failure: TaskFailure, now: float) -> bool:
        """Record a task's failure. Returns whether it is part of a storm."""
        at = min(failure.at, now)
        recent = self._storms.recent(
            at, 1, exception=failure.exception, hostname=failure.hostname, queue=failure.queue, uuid=failure.uuid
        )
        return self._storms.note(rule.route, rule.severity, failure.task, recent)

    def _restored_rule(self, old: Incident) -> Rule:
        """The rule of an incident from before a restart. One that may still open goes where its rule leads now."""
        keeps_route = old.state is IncidentState.OPEN or old.is_storm
        return self._rules.by_name(old.rule, old.route) if keeps_route else self._rules.named(old.rule)

    def _restored(self, old: Incident) -> RecentFailures:
        """The storm detector's record of an incident from before a restart."""
        count = old.count if old.last_at - old.first_at <= self._policy.storm_window else 1
        exception, hostname, queue = (
            max(counts, key=counts.__getitem__, default="") for counts in (old.exceptions, old.workers, old.queues)
        )
        uuid = old.samples[-1] if old.samples else ""
        return self._storms.recent(old.last_at, count, exception=exception, hostname=hostname, queue=queue, uuid=uuid)

    def _join_storm(self, failure: TaskFailure, rule: Rule, now: float, *, opens: bool) -> tuple[Reason, str]:
        """Count a failure in the storm of its severity. ``opens``: it may open the storm, having no open incident."""
        fleet = self._policy.fleet if "{fleet}" in self._policy.dedup_key else ""
        key = storm_key(rule.route, rule.severity, window(failure.at, self._policy.zone), fleet)
        entry = self._open.get(key)
        if opens or (entry is not None and entry.state is IncidentState.OPEN):
            self._recovery.failed(storm_name(rule.route, rule.severity), failure.at)
            counted_until = 0.0 if entry is None else entry.last_at
            if entry is None:
                entry = self._open[key] = self._new(key, STORM, rule, failure, now)
                entry.storm = True
            if entry.state is not IncidentState.OPEN:  # the first notification names all tasks of the storm
                for task, recent in self._storms.tasks(rule.route, rule.severity).items():
                    if recent.since > counted_until:
                        entry.include(task, recent, recent.count - (task == failure.task))
            entry.join(failure, page=True)
            if entry.state is not IncidentState.OPEN:
                self._trigger(entry, Reason.STORM_OPENED, now)
                return Reason.STORM_OPENED, key
        return Reason.STORM_JOINED, key

    def _trigger(self, entry: OpenIncident, reason: Reason, now: float) -> None:
        self._registry.open(entry, reason, now)
        self._awaited.opened(entry)

    def _is_over(self, entry: OpenIncident, now: float) -> bool:
        quiet_since = now - self._policy.resolve_after
        if not self._policy.resolve_on_success or entry.last_at > quiet_since:
            return False
        if entry.storm:
            return all(self._recovery.is_quiet(name, quiet_since) for name in self._task_names(entry))
        return self._recovery.recovered(entry.tasks, quiet_since)

    def _task_names(self, entry: OpenIncident) -> Iterable[str]:
        """The names under which the recovery tracker knows the incident."""
        return (storm_name(entry.rule.route, entry.severity),) if entry.storm else entry.tasks

    def _awaits(self, entry: OpenIncident, now: float) -> bool:
        return self._policy.resolve_on_success and now - entry.last_at < AWAITED

    def _close(self, entry: OpenIncident, state: IncidentState, now: float) -> None:
        self._registry.close(entry, state, now)
        self._awaited.closed(entry)

    def _covers(self, failure: TaskFailure, now: float) -> bool:
        cover = self._silences.cover
        return cover(failure.task, failure.queue, now) or cover(failure.task, failure.queue, failure.at)

    def _release(self, entry: OpenIncident, now: float, *, pages: bool) -> Verdict:
        """The silence of an incident has ended: page now, or not at all."""
        self._awaited.unmute(entry)
        entry.dirty = True
        open_keys = self._awaited.open_keys(entry.task)
        pages = pages and entry.rule.page  # the rule may have changed since
        if not pages or entry.last is None or any(self._open[key].last_at >= entry.last_at for key in open_keys):
            entry.reason = Reason.SILENCED
            return Verdict(Reason.SILENCED, entry.key)
        last = structs.replace(entry.last, at=now)
        if self._is_storm(entry.rule, last, now):
            entry.reason, key = self._join_storm(last, entry.rule, now, opens=True)
            return Verdict(entry.reason, key, entry.reason is Reason.STORM_OPENED)
        self._trigger(entry, Reason.OPENED, now)
        return Verdict(Reason.OPENED, entry.key)


def _reason(entry: OpenIncident, rule: Rule, *, too_old: bool) -> Reason:
    """The outcome of a failure that matches ``rule`` and has joined the entry."""
    if entry.state is _OPEN:
        return _JOINED
    if too_old:
        return Reason.TOO_OLD
    if not rule.page:
        return Reason.SILENCED
    if entry.state is IncidentState.RESOLVED:
        return Reason.REOPENED
    return Reason.OPENED if entry.count - entry.silenced >= rule.threshold else Reason.BELOW_THRESHOLD
