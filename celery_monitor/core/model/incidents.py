"""Incidents and why they did or did not page."""

import enum
from collections.abc import Mapping
from typing import Final

import msgspec

STORM = "storm"
"""``Incident.task`` of a storm, and the head of its key; a task may be called so, too: see ``Incident.is_storm``."""


class Severity(enum.StrEnum):
    """How bad it is, the worst first."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Condition(enum.StrEnum):
    """What an incident is about: ``on`` of its rule."""

    FAILURE = "failure"
    RUNTIME = "runtime"
    """A task runs longer than it should."""
    WAITING = "waiting"
    """A task waits longer than it should."""
    LOST = "lost"
    """A worker is gone, with the tasks that it ran."""
    BACKLOG = "backlog"
    """A queue is longer than it should be."""
    NO_WORKER = "no_worker"
    """A queue has no consumer, or too few."""
    MISSED = "missed"
    """A scheduled task did not run."""


class Reason(enum.StrEnum):
    """Why a failure did or did not page. Reaches the log, the incident and ``celery_monitor_incidents_total``."""

    OPENED = "opened"
    """It opened its incident: the threshold was reached."""
    JOINED = "joined"
    """Its incident was open already."""
    REOPENED = "reopened"
    """Its incident had been resolved by a success."""
    BELOW_THRESHOLD = "below_threshold"
    SILENCED = "silenced"
    """The rule says ``page: false``; or a silence has ended after the task had recovered."""
    MUTED = "muted"
    """A silence or a mute window covers it. It pages when that has ended, unless the task has recovered by then."""
    TOO_OLD = "too_old"
    """Older than ``alerts.max_age`` when it was read."""
    STORM_OPENED = "storm_opened"
    """It opened a storm incident in place of its own."""
    STORM_JOINED = "storm_joined"
    """A storm is open and stands for it."""


class IncidentState(enum.StrEnum):
    """The life of an incident."""

    SUPPRESSED = "suppressed"
    """Kept and shown, not sent: below the threshold, silenced, too old, or part of a storm."""
    OPEN = "open"
    """Triggered (its outbox row is written in the same transaction)."""
    RESOLVED = "resolved"
    EXPIRED = "expired"
    """Its hour is over, so no further failure can join it."""


MAX_DETAILS: Final = 25
"""Pairs of label and value that an incident keeps."""


class Incident(msgspec.Struct, frozen=True, gc=False):
    """One dedup key's failures, or one episode of another condition. It may grow while its outbox row waits.

    Of other conditions, ``count`` is the number of tasks concerned (1 where none is counted), ``message`` is the
    sentence that tells what holds, and the times are those of the first and the last observation.
    """

    key: str
    """The dedup key, ≤ 255 characters."""
    fleet: str
    task: str
    """The task's name; ``STORM`` for a storm; the first task's for a key without {task}."""
    rule: str
    """Name of the rule that matched, "" for none."""
    route: str
    """Which routing key: the rule's name when it has its own, else "". Never the key itself."""
    severity: Severity
    state: IncidentState
    reason: Reason
    """Of its newest change of state."""
    hour: str
    """The window as in the key, e.g. ``2026-11-23T14Z``."""
    opened_at: float
    """When it was first seen (now, not event time)."""
    first_at: float
    last_at: float
    """First and last failure by the events' own timestamps."""
    count: int
    threshold: int
    exceptions: Mapping[str, int] = {}  # msgspec copies an empty default for each instance
    workers: Mapping[str, int] = {}
    queues: Mapping[str, int] = {}
    tasks: Mapping[str, int] = {}
    """Bounded, the rest is counted as "other"."""
    samples: tuple[str, ...] = ()
    """Task IDs, at most 5."""
    message: str = ""
    """The last failure's message, redacted and cut."""
    traceback: str = ""
    """The end of the last failure's traceback, redacted and cut."""
    args: str | None = None
    kwargs: str | None = None
    runbook_url: str | None = None
    last_uuid: str = ""
    """Task ID of the last failure, "" when it is not known."""
    sent_count: int = 0
    """``count`` when its newest outbox row was written: what is more has to be told by an update."""
    succeeded_at: float = 0.0
    """The task's newest success while it was open, 0 for none: what may resolve it."""
    silenced: int = 0
    """Of ``count``: those whose own rule does not page. They are not part of the way to the threshold."""
    condition: Condition = Condition.FAILURE
    subject: str = ""
    """The task, queue, worker or schedule that a condition other than failure is about; "" for failures."""
    details: tuple[tuple[str, str], ...] = ()
    """Of a condition other than failure: labels and values for the reader, at most MAX_DETAILS. Hostile text."""
    unwatched: float = 0.0
    """Seconds of its time in which the event stream was not watched."""
    links: tuple[tuple[str, str], ...] = ()
    """Links to other systems, title and URL: filled in when a message is made, and never stored."""

    @property
    def is_storm(self) -> bool:
        """It is a storm, and not of a task with that name, which is suppressed when it is part of one."""
        opened = self.state is not IncidentState.SUPPRESSED and self.reason is Reason.STORM_OPENED
        return opened and self.task == STORM


class IncidentOutline(msgspec.Struct, frozen=True, gc=False):
    """What lists of incidents are filtered and sorted by: some fields of an Incident, read from its stored form."""

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
