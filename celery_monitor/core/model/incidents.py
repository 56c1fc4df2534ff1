"""Incidents and why they did or did not page."""

import enum
from collections.abc import Mapping
from typing import Final

import msgspec

STORM = "storm"
"""``Incident.task`` of a storm and the start of its key. A task may have this name too: see ``Incident.is_storm``."""


class Severity(enum.StrEnum):
    """Severities, most severe first."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Condition(enum.StrEnum):
    """What an incident is about: ``on`` of its rule."""

    FAILURE = "failure"
    RUNTIME = "runtime"
    """A task runs too long."""
    WAITING = "waiting"
    """A task waits too long."""
    LOST = "lost"
    """A worker is gone, and the tasks that it ran with it."""
    BACKLOG = "backlog"
    """A queue is too long."""
    NO_WORKER = "no_worker"
    """A queue has no consumers or too few."""
    MISSED = "missed"
    """A scheduled task did not run."""


class Reason(enum.StrEnum):
    """Why a failure did or did not page. Shown in the log, the incident and ``celery_monitor_incidents_total``."""

    OPENED = "opened"
    """It opened its incident, because the threshold was reached."""
    JOINED = "joined"
    """Its incident was open already."""
    REOPENED = "reopened"
    """Its incident had been resolved by a success."""
    BELOW_THRESHOLD = "below_threshold"
    SILENCED = "silenced"
    """The rule has ``page: false``, or the task had recovered when a silence ended."""
    MUTED = "muted"
    """A silence or mute window covers it. It pages after that, unless the task has recovered by then."""
    TOO_OLD = "too_old"
    """Older than ``alerts.max_age`` when it was read."""
    STORM_OPENED = "storm_opened"
    """It opened a storm incident instead of its own."""
    STORM_JOINED = "storm_joined"
    """It belongs to a storm that is open."""


class IncidentState(enum.StrEnum):
    """The states of an incident."""

    SUPPRESSED = "suppressed"
    """Stored and shown but not sent: below the threshold, silenced, too old, or part of a storm."""
    OPEN = "open"
    """Triggered; its outbox row is written in the same transaction."""
    RESOLVED = "resolved"
    EXPIRED = "expired"
    """Its hour has ended, so no more failures can join it."""


MAX_DETAILS: Final = 25
"""Maximum number of pairs of label and value of an incident."""


class Incident(msgspec.Struct, frozen=True, gc=False):
    """The failures with one dedup key, or one episode of another condition. It may grow while its outbox row waits.

    For other conditions, ``count`` is the number of affected tasks (1 if tasks are not counted), ``message`` is the
    sentence that describes the condition, and the times are those of the first and last observation.
    """

    key: str
    """The dedup key, at most 255 characters."""
    fleet: str
    task: str
    """The task's name; ``STORM`` for a storm; the first task's name if the key has no {task}."""
    rule: str
    """Name of the rule that matched, "" if none did."""
    route: str
    """Identifies the routing key: the rule's name if it has its own, else "". Never the key itself."""
    severity: Severity
    state: IncidentState
    reason: Reason
    """The reason for its last change of state."""
    hour: str
    """The window as in the key, e.g. ``2026-11-23T14Z``."""
    opened_at: float
    """When it was first seen, by the monitor's clock."""
    first_at: float
    last_at: float
    """First and last failure by the events' timestamps."""
    count: int
    threshold: int
    exceptions: Mapping[str, int] = {}  # msgspec copies an empty default for each instance
    workers: Mapping[str, int] = {}
    queues: Mapping[str, int] = {}
    tasks: Mapping[str, int] = {}
    """Bounded; the rest is counted as "other"."""
    samples: tuple[str, ...] = ()
    """Task IDs, at most 5."""
    message: str = ""
    """The last failure's message, redacted and truncated."""
    traceback: str = ""
    """The end of the last failure's traceback, redacted."""
    args: str | None = None
    kwargs: str | None = None
    runbook_url: str | None = None
    last_uuid: str = ""
    """Task ID of the last failure, "" if unknown."""
    sent_count: int = 0
    """``count`` when its newest outbox row was written; a higher count needs an update."""
    succeeded_at: float = 0.0
    """The task's newest success while it was open, which may resolve it; 0 if there was none."""
    silenced: int = 0
    """Failures in ``count`` whose own rule does not page. They do not count towards the threshold."""
    condition: Condition = Condition.FAILURE
    subject: str = ""
    """The task, queue, worker or schedule of a condition other than failure; "" for failures."""
    details: tuple[tuple[str, str], ...] = ()
    """For a condition other than failure: labels and values, at most MAX_DETAILS. Untrusted text."""
    unwatched: float = 0.0
    """Seconds of its duration in which the event stream was not watched."""
    links: tuple[tuple[str, str], ...] = ()
    """Links to other systems, (title, URL): added when a message is created, and never stored."""
    channels: tuple[str, ...] = ()
    """Names of the channels that were notified since it opened, which get its resolution; empty if unknown."""

    @property
    def is_storm(self) -> bool:
        """Whether it is a storm, and not the incident of a task of that name, which is suppressed during a storm."""
        opened = self.state is not IncidentState.SUPPRESSED and self.reason is Reason.STORM_OPENED
        return opened and self.task == STORM


class IncidentOutline(msgspec.Struct, frozen=True, gc=False):
    """The fields by which lists of incidents are filtered and sorted, read from the stored form."""

    key: str
    task: str
    severity: Severity
    state: IncidentState
    first_at: float
    last_at: float
    count: int
    condition: Condition = Condition.FAILURE
    subject: str = ""
    exceptions: dict[str, int] = {}
    tasks: dict[str, int] = {}
