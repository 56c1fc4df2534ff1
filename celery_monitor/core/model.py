"""The values of the program. Times are unix seconds (float, UTC); durations are seconds; nothing here does anything.

Values are frozen, but for those on the hot path that are owned by the thread that feeds the monitor: ``Event`` and
``TaskRef``. What is made by the thousand, for each event or flush, is a struct that the garbage collector does not
count.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec

UNKNOWN_TASK = "unknown"
"""The name of a task that ended without ever being named; counted by ``celery_monitor_unnamed_failures_total``."""

STORM = "storm"
"""``Incident.task`` of a storm, and the head of its key; a task may be called so, too: see ``Incident.is_storm``."""

LATEST_TIMESTAMP: Final = 253_402_300_799.0
"""9999-12-31: what ``datetime`` can hold."""
LONGEST_RUNTIME: Final = 1e9
"""Seconds; 30 years. Sums of anything longer would leave what JSON can hold."""
LARGEST_INT: Final = 2**48 - 1
"""Of a count or a process id; sums of it fit into a database's 64 bits."""
LONGEST_UUID: Final = 255
HEAD: Final = 256
"""Bytes that are kept of a message that is not read."""
LONGEST_TYPE: Final = 100

BUCKET_SECONDS = 900
"""Width of the stored counts: zones with offsets of 30 and 45 minutes must be able to cut their days exactly."""

COUNTS = ("sent", "received", "started", "succeeded", "failed", "retried", "rejected", "revoked")
"""The order of every vector of counts in this program."""
SENT, RECEIVED, STARTED, SUCCEEDED, FAILED, RETRIED, REJECTED, REVOKED = range(8)


# --- the way in ------------------------------------------------------------------------------------------------------
class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One message as the broker delivered it."""

    body: bytes
    content_type: str = "application/json"
    redelivered: bool = False
    """The broker says that it has delivered this message before."""
    refused: str | None = None
    """Why it is not decoded, as a reason of ``discarded``: the body is then only the message's first bytes."""


class Event(msgspec.Struct, gc=False):
    """One event of Celery's stream, with those fields that are used here. Source: facts measured on 4.4 to 5.7."""

    type: Annotated[str, msgspec.Meta(max_length=LONGEST_TYPE)]
    timestamp: Annotated[float, msgspec.Meta(ge=0.0, le=LATEST_TIMESTAMP)]
    hostname: str = ""
    uuid: Annotated[str, msgspec.Meta(max_length=LONGEST_UUID)] = ""
    name: str | None = None
    queue: str | None = None
    eta: str | None = None
    runtime: Annotated[float, msgspec.Meta(ge=0.0, le=LONGEST_RUNTIME)] | None = None
    exception: str | None = None
    traceback: str | None = None
    args: str | None = None
    kwargs: str | None = None
    requeue: bool | None = None
    active: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_INT)] | None = None
    processed: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_INT)] | None = None
    pid: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_INT)] | None = None
    sw_ident: str | None = None
    sw_ver: str | None = None
    sw_sys: str | None = None


class UnnamedEvent(msgspec.Struct, frozen=True, gc=False):
    """A task event that waits for the name of its task. Its texts are cut."""

    number: int
    """In the order of reading."""
    since: float
    """Unix seconds when it was read."""
    event: Event
    measured: float | None = None
    """Seconds in the queue or of work, as the event told."""


class Stage(enum.IntEnum):
    """Where a task is in its life, as far as the stream has told."""

    SENT = 0
    RECEIVED = 1
    STARTED = 2
    RETRYING = 3
    REQUEUED = 4
    SUCCEEDED = 5
    FAILED = 6
    REJECTED = 7
    REVOKED = 8


class TaskRef(msgspec.Struct, gc=False):
    """What is remembered of a task whose end has not come (a million of them fit in 400 MB: keep it small).

    It is the entry of a task id and its first run at once; further runs, of other workers mostly, are in ``others``.
    """

    name: str | None = None
    queue: str | None = None
    stage: int = Stage.SENT
    due_at: float = 0.0
    """When it should begin: its ETA, else when it was sent; 0 when neither is known or it has begun."""
    started_at: float = 0.0
    """When it was started; once it has failed or succeeded, when that was."""
    seen: int = 0
    """Minute (unix time // 60) of its last event, for expiry."""
    saved: bool = False
    """The store holds a row of it."""
    host: str = ""
    """The worker whose run it is, whole (``celery@box``); "" while no worker has told of it."""
    others: "list[TaskRef] | None" = None
    """Further runs of the same task id, in the order in which they were seen; never empty."""


@dataclass(frozen=True, slots=True)
class FleetTask:
    """A task that a worker says it holds (Celery's inspect: active, reserved, scheduled)."""

    uuid: str
    name: str
    queue: str | None
    started_at: float | None


# --- counts ----------------------------------------------------------------------------------------------------------
class SeriesKey(msgspec.Struct, frozen=True, gc=False):
    """What counts are kept by. ``host`` is "" unless ``metrics.hostname_label`` is on."""

    name: str
    queue: str
    host: str = ""


class Histogram(msgspec.Struct, frozen=True, gc=False):
    """Observations: ``counts`` by bucket (not cumulative; one more than ``bounds``, the last is +Inf), sum in s."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


class Series(msgspec.Struct, frozen=True, gc=False):
    """The totals of one (task, queue[, host]) since the store began; written as absolute values."""

    key: SeriesKey
    counts: tuple[int, ...]
    """In the order of ``COUNTS``. ``failed`` leaves out the hard limit's twin."""
    exceptions: Mapping[str, int]
    """``failed`` by the class's short name; bounded per task, the rest is "other"."""
    runtime: Histogram
    wait: Histogram
    exemplar: tuple[str, str, float] | None = None
    """(exception, task id, timestamp) of the last failure; not stored."""
    rank: int = 0
    """Which series are given up first where there are too many: those of the lowest rank."""


class BucketDelta(msgspec.Struct, frozen=True, gc=False):
    """What a flush adds to one 15-minute bucket of a task and queue."""

    start: int
    """Unix seconds, a multiple of BUCKET_SECONDS."""
    name: str
    queue: str
    counts: tuple[int, ...]
    runtime_sum: float
    runtime_count: int


class ErrorGroup(msgspec.Struct, frozen=True, gc=False):
    """Failures of one task with one exception class at one place of the application."""

    id: str
    """16 hex digits of blake2b over name, exception and frame."""
    name: str
    exception: str
    """The full class name where known (``billiard.exceptions.WorkerLostError``), else the short one."""
    frame: str
    """``path/of/app.py:function`` of the innermost frame outside of libraries, "" when there is none."""
    first_at: float
    last_at: float
    """First and last failure of this flush (the store keeps the least and the greatest)."""


class ErrorDelta(msgspec.Struct, frozen=True, gc=False):
    """What a flush adds to the failures of an error group in one 15-minute bucket."""

    start: int
    group: str
    count: int


class Failure(msgspec.Struct, frozen=True, gc=False):
    """One failure, a sample of its group. Texts are redacted and cut; arguments only when settings allow."""

    uuid: str
    name: str
    queue: str
    hostname: str
    """Of the worker, whole (``celery@box``)."""
    at: float
    """The event's own timestamp."""
    exception: str
    """Short class name."""
    message: str
    traceback: str
    group: str
    """Id of its ErrorGroup."""
    incident: str | None
    """Key of the incident it belongs to."""
    reason: str
    """The Verdict's reason."""
    args: str | None = None
    kwargs: str | None = None


# --- incidents -------------------------------------------------------------------------------------------------------
class Severity(enum.StrEnum):
    """PagerDuty's four."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


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
    """The rule says ``page: false``."""
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
    """Its hour is over; no failure can join it any more."""


class Incident(msgspec.Struct, frozen=True, gc=False):
    """One dedup key's failures. ``counts`` in it grow while its outbox row waits."""

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
    """Task ids, at most 5."""
    message: str = ""
    """The last failure's message, redacted and cut."""
    traceback: str = ""
    """The end of the last failure's traceback, redacted and cut."""
    args: str | None = None
    kwargs: str | None = None
    runbook_url: str | None = None
    last_uuid: str = ""
    """Task id of the last failure, "" when it is not known."""
    sent_count: int = 0
    """``count`` when its newest outbox row was written: what is more has to be told by an update."""
    succeeded_at: float = 0.0
    """The task's newest success while it was open, 0 for none: what may resolve it."""
    silenced: int = 0
    """Of ``count``: those whose own rule does not page. They are not part of the way to the threshold."""

    @property
    def is_storm(self) -> bool:
        """It is a storm, and not of a task with that name, which is suppressed when it is part of one."""
        opened = self.state is not IncidentState.SUPPRESSED and self.reason is Reason.STORM_OPENED
        return opened and self.task == STORM


class Channel(enum.StrEnum):
    """Where an outbox row goes."""

    PAGERDUTY = "pagerduty"
    EMAIL = "email"


class Action(enum.StrEnum):
    """What an outbox row does. ``trigger`` both opens and updates."""

    TRIGGER = "trigger"
    RESOLVE = "resolve"
    REPORT = "report"


ASKED_FOR: Final = -1
"""Priority of a row that a person wants to be tried again."""
FIRST_UPDATE: Final = 4
"""Priorities below it open an incident: the severity's place. A resolve has this one, refreshes have those above."""
REFRESH: Final = 5
"""What is added to the severity's place for a row that tells of an incident that is open already."""


class Enqueue(msgspec.Struct, frozen=True, gc=False):
    """Asks the store for an outbox row. A pending row of the same (channel, key, action) is refreshed instead."""

    channel: Channel
    key: str
    """The incident's key, or the report's date (YYYY-MM-DD)."""
    action: Action
    route: str = ""
    due_at: float = 0.0
    priority: int = 0
    """The lowest is sent first."""
    at: float = 0.0
    """Of equal priorities, the newest is sent first."""


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """A row of the outbox: waiting, delivered, dead, or of unknown outcome."""

    id: int
    channel: Channel
    key: str
    action: Action
    route: str
    revision: int
    """Grows when the row is refreshed; a delivery of an older revision leaves it pending."""
    attempts: int
    created_at: float
    due_at: float
    state: str
    """pending, delivered, dead, or unknown (it may have been delivered)."""
    error: str | None = None
    """Of the last attempt, without secrets."""
    delivered_at: float | None = None
    priority: int = 0
    progress: str | None = None
    """What the sender keeps with the row, of itself."""


# --- workers ---------------------------------------------------------------------------------------------------------
class Worker(msgspec.Struct, frozen=True, gc=False):
    """A worker as its heartbeats and events tell it. Stored whole."""

    hostname: str
    """Whole (``celery@box``)."""
    up: bool
    last_heartbeat: float
    active: int
    processed: int
    """Tasks that this run of it has begun, as its heartbeats tell."""
    pid: int
    sw_ident: str = ""
    sw_ver: str = ""
    sw_sys: str = ""
    started_seen: int = 0
    """task-started events seen of this run of the worker."""
    baseline: int = 0
    """processed - started_seen when it was first seen: what it had begun before the monitor was there."""
    unobserved: int = 0
    """Tasks begun and never observed, over all of its runs and those of workers of its host that are gone."""
    processed_before: int = 0
    """Tasks begun by its earlier runs, and by workers of its host that are gone: with ``processed`` it never falls."""
    clock_offset: float = 0.0
    """Seconds that the monitor's clock is ahead of the worker's; 0 when they differ by less than a minute."""
    heartbeats: bool = True
    """False: it sends none; ``last_heartbeat`` is its last sign of life then."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """What the fleet adapter found in the background."""

    name: str
    length: int | None
    consumers: int | None
    """Processes or connections that consume it, as the broker tells; None where it cannot."""
    workers: int
    """Celery workers that consume it."""
    processes: int
    """Their pool processes together."""


# --- what the monitor gives away -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Changes:
    """All that one flush writes, in one transaction. Applying the same ``sequence`` twice has no effect."""

    now: float
    sequence: int
    series: Sequence[Series] = ()
    dropped_series: Sequence[SeriesKey] = ()
    buckets: Sequence[BucketDelta] = ()
    groups: Sequence[ErrorGroup] = ()
    errors: Sequence[ErrorDelta] = ()
    failures: Sequence[Failure] = ()
    tracked: Sequence[tuple[str, TaskRef]] = ()
    forgotten: Sequence[str] = ()
    unnamed: Sequence[UnnamedEvent] = ()
    """Events that begin to wait for their task's name."""
    settled: Sequence[int] = ()
    """Numbers of those that do not wait any more: they are counted in this flush."""
    workers: Sequence[Worker] = ()
    dropped_workers: Sequence[str] = ()
    incidents: Sequence[Incident] = ()
    outbox: Sequence[Enqueue] = ()
    counters: Mapping[str, float] = field(default_factory=dict)
    """The monitor's own counters as absolute values: ``messages``, ``events.task-failed``, ``discarded.malformed`` …"""
    epoch: int = 0
    """Number of the connection that delivered these messages."""
    fingerprints: bytes = b""
    """8 bytes for each message of this flush, in order of delivery."""

    @property
    def weight(self) -> int:
        """Bytes that it takes in memory, about."""
        texts = sum(len(one.traceback) + len(one.message) for one in self.failures)
        small = len(self.failures) + len(self.groups) + len(self.tracked) + len(self.workers) + len(self.unnamed)
        return 2_500 * len(self.series) + 8_000 * len(self.incidents) + 300 * len(self.buckets) + 600 * small + texts

    @property
    def empty(self) -> bool:
        """True when there is nothing worth a transaction."""
        return not (
            self.series
            or self.dropped_series
            or self.buckets
            or self.failures
            or self.errors
            or self.tracked
            or self.forgotten
            or self.unnamed
            or self.settled
            or self.workers
            or self.dropped_workers
            or self.incidents
            or self.outbox
            or self.fingerprints
        )


@dataclass(frozen=True, slots=True)
class RolledBack:
    """The store came back older than what had been committed to it."""

    flushes: int
    """How many are missing, at least."""
    found_at: float
    """Unix seconds of the newest flush that is there; 0 when there is none."""
    committed_at: float
    """Unix seconds of the newest one that had been committed."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What the store gives back at start."""

    sequence: int = 0
    epoch: int = 0
    series: Sequence[Series] = ()
    """Those of the lowest rank first."""
    series_folded: int = 0
    """How many were folded into ``other`` now, because the store held too many."""
    tracked: Sequence[tuple[str, TaskRef]] = ()
    unnamed: Sequence[UnnamedEvent] = ()
    workers: Sequence[Worker] = ()
    incidents: Sequence[Incident] = ()
    """Open ones, and suppressed or resolved ones whose hour may still be running."""
    counters: Mapping[str, float] = field(default_factory=dict)
    fingerprints: Sequence[tuple[int, bytes]] = ()
    """(epoch, concatenated fingerprints), oldest first."""
    rolled_back: RolledBack | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound of what is kept in memory."""

    name: str
    """As in ``celery_monitor_limit_exceeded_total``."""
    setting: str | None
    """Path of the setting; None where it cannot be set."""
    most: int | None
    used: int | None
    """None where it is not known."""
    exceeded: int
    """How often something was cut because of it, restarts included."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A consistent copy of the monitor's state for readers in other threads."""

    now: float
    series: Sequence[Series]
    workers: Sequence[Worker]
    counters: Mapping[str, float]
    """As in Changes."""
    incidents: Mapping[str, int]
    """celery_monitor_incidents_total by reason."""
    incidents_open: int
    tracked: int
    lag: float | None
    """Seconds between an event's own time and its reading, of the newest probe or event; None before the first."""
    probe_roundtrip: float | None
    limits: Sequence[Limit] = ()
    """The bounds of memory, and how much of each is used."""
    registered: Sequence[tuple[str, str]] = ()
    """Name and queue of the tasks that workers know, whether or not they have run."""


# --- a day -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class BucketRow:
    """A stored bucket: see BucketDelta."""

    start: int
    name: str
    queue: str
    counts: tuple[int, ...]
    runtime_sum: float
    runtime_count: int


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A stored error group with its failures of the asked period."""

    id: str
    name: str
    exception: str
    frame: str
    first_at: float
    """First failure within the retention."""
    last_at: float
    count: int
    """Failures in the asked period."""
    sample: Failure | None = None


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """A stored incident and what became of its page."""

    incident: Incident
    delivered_at: float | None
    delivered_count: int
    error: str | None
    """Of the last attempt, when it is not delivered."""
