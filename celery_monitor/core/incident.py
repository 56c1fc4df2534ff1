"""A failure as it is judged, and the incident in memory that it joins."""

from typing import Final

import msgspec

from celery_monitor.core.model import Incident, IncidentState, Reason, Severity
from celery_monitor.core.rules import Rule
from celery_monitor.core.storm import RecentFailures
from celery_monitor.core.text import OTHER

MAX_NAMES_PER_INCIDENT: Final = 20
MAX_NAMES_PER_STORM: Final = 100
"""Tasks that a storm names: its text tells how many they are."""
SAMPLES: Final = 5
MAX_TRACEBACK_LENGTH: Final = 4_000
"""Characters of it that an incident keeps, from the end."""


class TaskFailure(msgspec.Struct, frozen=True, gc=False):
    """A failure as the decision needs it. An incident keeps its last one: its texts are to be short."""

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


class OpenIncident(msgspec.Struct, gc=False):
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
    last: TaskFailure | None = None
    sent_at: float = 0.0
    sent_count: int = 0
    succeeded_at: float = 0.0
    dirty: bool = True
    storm: bool = False

    def join(self, failed: TaskFailure, *, page: bool) -> None:
        """Count a failure in. ``page``: its rule does not silence it."""
        self.dirty = True
        self.count += 1
        self.silenced += not page
        self.first_at = min(self.first_at, failed.at)
        _count(self.exceptions, failed.exception)
        _count(self.workers, failed.hostname)
        _count(self.queues, failed.queue)
        _count(self.tasks, failed.task, self.most_tasks)
        if len(self.samples) < SAMPLES:
            self.samples.append(failed.uuid)
        if failed.at >= self.last_at:
            self.last_at, self.last = failed.at, failed

    @property
    def most_tasks(self) -> int:
        """How many tasks it names."""
        return MAX_NAMES_PER_STORM if self.storm else MAX_NAMES_PER_INCIDENT

    def include(self, task: str, recent: RecentFailures, count: int) -> None:
        """Count in what a task has failed before it became part of this storm."""
        if count <= 0:
            return
        self.count += count
        self.first_at = min(self.first_at, recent.since)
        self.last_at = max(self.last_at, recent.at)
        _count(self.exceptions, recent.exception, add=count)
        _count(self.workers, recent.hostname, add=count)
        _count(self.queues, recent.queue, add=count)
        _count(self.tasks, task, self.most_tasks, add=count)
        if len(self.samples) < SAMPLES:
            self.samples.append(recent.uuid)

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
            last_uuid=last.uuid if last else "",
            message=last.message if last else "",
            traceback=last.traceback if last else "",
            args=last.args if last else None,
            kwargs=last.kwargs if last else None,
            runbook_url=self.rule.runbook_url,
            sent_count=self.sent_count,
            succeeded_at=self.succeeded_at,
        )


def _count(counts: dict[str, int], name: str, most: int = MAX_NAMES_PER_INCIDENT, *, add: int = 1) -> None:
    if name not in counts and len(counts) >= most:
        name = OTHER
    counts[name] = counts.get(name, 0) + add
