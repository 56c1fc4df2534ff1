"""The failure or episode that is judged, and the incident in memory that it belongs to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from celery_monitor.core.model import MAX_DETAILS, Condition, Incident, IncidentState, Reason, Severity
from celery_monitor.core.rules import Rule
from celery_monitor.core.storm import RecentFailures
from celery_monitor.core.text import OTHER

MAX_NAMES_PER_INCIDENT: Final = 20
MAX_NAMES_PER_STORM: Final = 100
"""Tasks that a storm names; its text gives their number."""
SAMPLES: Final = 5
MAX_EPISODE_SAMPLES: Final = 20
"""Task IDs that an episode keeps: more than a failure's, because each lost task matters."""
MAX_SUMMARY: Final = 1_000
MAX_LABEL: Final = 100
MAX_VALUE: Final = 2_000
MAX_TRACEBACK_LENGTH: Final = 4_000
"""Characters that an incident keeps of a traceback, from its end."""


class TaskFailure(msgspec.Struct, frozen=True, gc=False):
    """A failure as the Decider needs it. An incident keeps its last one, so the texts must be short."""

    uuid: str
    task: str
    queue: str
    exception: str
    at: float
    hostname: str
    message: str
    traceback: str
    """At most MAX_TRACEBACK_LENGTH characters."""
    args: str | None = None
    kwargs: str | None = None


class Verdict(msgspec.Struct, frozen=True):
    """The decision on one failure, or on one report of an episode."""

    reason: Reason
    incident: str | None
    """Key of its incident; None if it has none."""
    changed: bool = True
    """Whether the incident's reason has changed: counted by ``celery_monitor_incidents_total``."""
    muted: bool = False
    """Whether a silence covers the failure."""


class Episode(msgspec.Struct, frozen=True):
    """A judge's report that a condition other than failure holds. It is repeated while the episode continues.

    At most one is open for each condition, subject and rule. ``since`` distinguishes it from earlier episodes, so it
    must come from events or from the store, not from the time of the check: after a restart it must be the same.
    """

    condition: Condition
    subject: str
    """The task, queue, worker or schedule."""
    rule: Rule
    since: float
    """When the condition began to hold, in Unix seconds."""
    at: float
    """When the condition was last seen to hold, in Unix seconds."""
    summary: str
    """One sentence without the fleet's name: what holds, and since when."""
    task: str = ""
    """The task's name, if there is one."""
    count: int = 1
    """Number of tasks affected."""
    details: Sequence[tuple[str, str]] = ()
    """Labels and values, at most MAX_DETAILS. Labels are unique and constant, because receivers turn them into field
    names; data from the fleet belongs in values."""
    tasks: Mapping[str, int] = {}
    queues: Mapping[str, int] = {}
    workers: Mapping[str, int] = {}
    samples: Sequence[str] = ()
    """Task IDs."""
    unwatched: float = 0.0
    """Seconds of the episode in which the stream was not watched."""

    @property
    def identity(self) -> "Identity":
        """The identity of which only one episode can be open."""
        return self.condition, self.subject, self.rule.name


class EpisodeEnd(msgspec.Struct, frozen=True):
    """A judge's report that an episode has ended."""

    condition: Condition
    subject: str
    rule: str
    """The rule's name."""
    at: float
    summary: str = ""
    """Replaces the episode's summary; "" keeps it."""

    @property
    def identity(self) -> "Identity":
        """The episode's identity."""
        return self.condition, self.subject, self.rule


Identity = tuple[Condition, str, str]
"""Condition, subject, and name of the rule."""


@dataclass(slots=True, eq=False)
class OpenIncident:
    """A mutable incident in memory, with the state of its notifications.

    A dataclass, because each failure assigns some fields: that takes a fifth of the time of a msgspec struct.
    """

    key: str
    task: str
    rule: Rule
    severity: Severity
    hour: str
    opened_at: float
    first_at: float
    last_at: float
    ends_at: float
    """Time after which no failure can join it."""
    state: IncidentState = IncidentState.SUPPRESSED
    reason: Reason = Reason.BELOW_THRESHOLD
    count: int = 0
    silenced: int = 0
    exceptions: dict[str, int] = field(default_factory=dict)
    workers: dict[str, int] = field(default_factory=dict)
    queues: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)
    last: TaskFailure | None = None
    sent_at: float = 0.0
    sent_count: int = 0
    succeeded_at: float = 0.0
    dirty: bool = True
    storm: bool = False
    condition: Condition = Condition.FAILURE
    subject: str = ""
    details: tuple[tuple[str, str], ...] = ()
    unwatched: float = 0.0
    message: str = ""
    """The summary of a condition other than failure."""
    channels: tuple[str, ...] = ()
    """See Incident."""
    revised: bool = False
    """Whether its text has changed since it was sent."""

    def clock_set_back(self, seconds: float, now: float) -> None:
        """The machine's clock was set back to ``now``: times that it showed before are not in the future."""
        if max(self.last_at, self.succeeded_at, self.sent_at) <= now:
            return
        self.opened_at, self.first_at = self.opened_at - seconds, self.first_at - seconds
        self.last_at, self.sent_at = self.last_at - seconds, self.sent_at - seconds
        self.succeeded_at -= seconds if self.succeeded_at else 0.0
        self.dirty = True

    @property
    def has_unsent(self) -> bool:
        """Whether there are changes that were not sent yet."""
        return self.revised or self.count > self.sent_count

    def observe(self, episode: Episode) -> None:
        """Update the incident from a report of its episode."""
        before = self.message, self.details, self.count, self.unwatched
        self.count = max(self.count, episode.count)
        self.first_at, self.last_at = min(self.first_at, episode.since), max(self.last_at, episode.at)
        self.message, self.unwatched = episode.summary[:MAX_SUMMARY], episode.unwatched
        self.details = tuple((name[:MAX_LABEL], value[:MAX_VALUE]) for name, value in episode.details[:MAX_DETAILS])
        pairs = (self.tasks, episode.tasks), (self.queues, episode.queues), (self.workers, episode.workers)
        for counts, reported in pairs:
            counts.clear()
            for name, number in reported.items():
                _count(counts, name, add=number)
        self.samples = list(episode.samples[:MAX_EPISODE_SAMPLES])
        if (self.message, self.details, self.count, self.unwatched) != before:
            self.revised = self.dirty = True

    def join(self, failure: TaskFailure, *, page: bool) -> None:
        """Count a failure. ``page``: its rule does not silence it."""
        self.dirty = True
        self.count += 1
        self.silenced += not page
        self.first_at = min(self.first_at, failure.at)
        # Most failures repeat the names of earlier ones. They are counted inline, which saves a call for each.
        if failure.exception in self.exceptions:
            self.exceptions[failure.exception] += 1
        else:
            _count(self.exceptions, failure.exception)
        if failure.hostname in self.workers:
            self.workers[failure.hostname] += 1
        else:
            _count(self.workers, failure.hostname)
        if failure.queue in self.queues:
            self.queues[failure.queue] += 1
        else:
            _count(self.queues, failure.queue)
        if failure.task in self.tasks:
            self.tasks[failure.task] += 1
        else:
            _count(self.tasks, failure.task, self.max_tasks)
        if len(self.samples) < SAMPLES:
            self.samples.append(failure.uuid)
        if failure.at >= self.last_at:
            self.last_at, self.last = failure.at, failure

    @property
    def max_tasks(self) -> int:
        """Maximum number of tasks that it names."""
        return MAX_NAMES_PER_STORM if self.storm else MAX_NAMES_PER_INCIDENT

    def include(self, task: str, recent: RecentFailures, count: int) -> None:
        """Count a task's failures from before it became part of this storm."""
        if count <= 0:
            return
        self.count += count
        self.first_at = min(self.first_at, recent.since)
        self.last_at = max(self.last_at, recent.at)
        _count(self.exceptions, recent.exception, add=count)
        _count(self.workers, recent.hostname, add=count)
        _count(self.queues, recent.queue, add=count)
        _count(self.tasks, task, self.max_tasks, add=count)
        if len(self.samples) < SAMPLES:
            self.samples.append(recent.uuid)

    def freeze(self, fleet: str) -> Incident:
        """The immutable value that is stored and sent."""
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
            last_uuid=last.uuid if last else "",
            message=self.message or (last.message if last else ""),
            traceback=last.traceback if last else "",
            args=last.args if last else None,
            kwargs=last.kwargs if last else None,
            runbook_url=self.rule.runbook_url,
            sent_count=self.sent_count,
            succeeded_at=self.succeeded_at,
            condition=self.condition,
            subject=self.subject,
            details=self.details,
            unwatched=self.unwatched,
            channels=self.channels,
        )


def restored_incident(old: Incident, rule: Rule, ends_at: float, now: float) -> OpenIncident:
    """A stored incident of failures, as an entry. What was sent before the restart counts as sent now."""
    last = TaskFailure(
        old.last_uuid, old.task, "", "", old.last_at, "", old.message, old.traceback, old.args, old.kwargs
    )
    return OpenIncident(
        old.key, old.task, rule, old.severity, old.hour, old.opened_at, old.first_at, old.last_at, ends_at,
        old.state, old.reason, old.count, old.silenced, dict(old.exceptions), dict(old.workers),
        dict(old.queues), dict(old.tasks), list(old.samples), last,
        sent_at=now, sent_count=old.sent_count, succeeded_at=old.succeeded_at, dirty=False, storm=old.is_storm,
        channels=old.channels,
    )  # fmt: skip


def _count(counts: dict[str, int], name: str, max_names: int = MAX_NAMES_PER_INCIDENT, *, add: int = 1) -> None:
    if name not in counts and len(counts) >= max_names:
        name = OTHER
    counts[name] = counts.get(name, 0) + add
