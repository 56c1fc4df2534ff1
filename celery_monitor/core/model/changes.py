"""What a flush writes, what a start reads back, and what readers in other threads see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from celery_monitor.core.model.counts import (
    BucketDelta,
    Checkpoint,
    ErrorDelta,
    ErrorGroup,
    Failure,
    QueueLengthDelta,
    Series,
    SeriesKey,
)
from celery_monitor.core.model.events import UnnamedEvent
from celery_monitor.core.model.incidents import Incident
from celery_monitor.core.model.outbox import OutboxRequest
from celery_monitor.core.model.schedules import ScheduleState, TaskStarts
from celery_monitor.core.model.silences import Silence
from celery_monitor.core.model.tasks import TaskRef, TaskRun
from celery_monitor.core.model.workers import Worker


@dataclass(frozen=True, slots=True)
class Changes:
    """All that one flush writes, in one transaction. Applying the same ``sequence`` twice has no effect."""

    now: float
    sequence: int
    series: Sequence[Series] = ()
    dropped_series: Sequence[SeriesKey] = ()
    buckets: Sequence[BucketDelta] = ()
    checkpoints: Sequence[Checkpoint] = ()
    queue_lengths: Sequence[QueueLengthDelta] = ()
    groups: Sequence[ErrorGroup] = ()
    errors: Sequence[ErrorDelta] = ()
    failures: Sequence[Failure] = ()
    tracked: Sequence[tuple[str, TaskRef]] = ()
    forgotten: Sequence[str] = ()
    ended: Sequence[TaskRun] = ()
    """Runs that have ended, for the history, in the order of their ends."""
    unnamed: Sequence[UnnamedEvent] = ()
    """Events that begin to wait for their task's name."""
    settled: Sequence[int] = ()
    """Numbers of those that no longer wait: they are counted in this flush."""
    workers: Sequence[Worker] = ()
    dropped_workers: Sequence[str] = ()
    incidents: Sequence[Incident] = ()
    outbox: Sequence[OutboxRequest] = ()
    schedules: Sequence[ScheduleState] = ()
    dropped_schedules: Sequence[str] = ()
    """Names of those that are no longer configured."""
    starts: Sequence[TaskStarts] = ()
    counters: Mapping[str, float] = field(default_factory=dict)
    """The monitor's own counters as absolute values, by ``CounterName`` and by the names of ``CounterFamily``."""
    epoch: int = 0
    """Number of the connection that delivered these messages."""
    fingerprints: bytes = b""
    """8 bytes for each message of this flush, in order of delivery."""
    position: str | None = None
    """Names the last message whose effect is in this flush; None where the broker keeps messages by itself."""

    @property
    def weight(self) -> int:
        """Bytes that it takes in memory, about."""
        texts = sum(len(failure.traceback) + len(failure.message) for failure in self.failures)
        small = len(self.failures) + len(self.groups) + len(self.tracked) + len(self.workers) + len(self.unnamed)
        small += len(self.ended) + len(self.queue_lengths)
        by_time = 300 * len(self.buckets) + 400 * len(self.checkpoints)
        return 2_500 * len(self.series) + 8_000 * len(self.incidents) + by_time + 600 * small + texts

    @property
    def empty(self) -> bool:
        """True when there is nothing worth a transaction."""
        return not (
            self.series
            or self.dropped_series
            or self.buckets
            or self.checkpoints
            or self.queue_lengths
            or self.failures
            or self.errors
            or self.tracked
            or self.forgotten
            or self.ended
            or self.unnamed
            or self.settled
            or self.workers
            or self.dropped_workers
            or self.incidents
            or self.outbox
            or self.schedules
            or self.dropped_schedules
            or self.starts
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
    series_merged: int = 0
    """How many were folded into ``other`` now, because the store held too many."""
    tracked: Sequence[tuple[str, TaskRef]] = ()
    ended: Sequence[tuple[str, TaskRef]] = ()
    """Task ID → a run that ended shortly before the last flush, as far as they are kept; in the order of their ends."""
    unnamed: Sequence[UnnamedEvent] = ()
    workers: Sequence[Worker] = ()
    incidents: Sequence[Incident] = ()
    """Open and muted ones, and suppressed or resolved ones whose hour may still be running."""
    silences: Sequence[Silence] = ()
    """Those that had not ended."""
    schedules: Sequence[ScheduleState] = ()
    starts: Sequence[TaskStarts] = ()
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
    maximum: int | None
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
    incidents_by_condition: Mapping[str, int] = field(default_factory=dict)
    """Of ``incidents_open``."""
    oldest_started: Mapping[str, float] = field(default_factory=dict)
    """Task → when the oldest of its runs that are under way began."""
    load: Mapping[str, int] = field(default_factory=dict)
    """Queue → tasks that its workers run, or have fetched and are due."""
    limits: Sequence[Limit] = ()
    """The bounds of memory, and how much of each is used."""
    registered: Sequence[tuple[str, str]] = ()
    """Name and queue of the tasks that workers know, whether or not they have run."""
    silences_active: int = 0
    mute_windows_active: int = 0
    schedules: Sequence[ScheduleState] = ()
    """In the order of the configuration."""
