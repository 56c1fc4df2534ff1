"""What a flush writes, what is loaded at start, and the snapshot for readers in other threads."""

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
    """Everything that one flush writes, in one transaction. Applying the same ``sequence`` twice has no effect."""

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
    """Unfinished tasks that are new or have changed. If ``saved`` is 0, no earlier flush contained the entry."""
    forgotten: Sequence[tuple[str, int]] = ()
    """ID and ``saved`` of entries that are removed. They are removed before ``tracked`` is added."""
    ended: Sequence[TaskRun] = ()
    """Ended runs for the history, in the order in which they ended."""
    unnamed: Sequence[UnnamedEvent] = ()
    """Events that start to wait for their task's name."""
    settled: Sequence[int] = ()
    """Numbers of waiting events that are counted in this flush."""
    workers: Sequence[Worker] = ()
    dropped_workers: Sequence[str] = ()
    incidents: Sequence[Incident] = ()
    outbox: Sequence[OutboxRequest] = ()
    schedules: Sequence[ScheduleState] = ()
    dropped_schedules: Sequence[str] = ()
    """Names of schedules that are no longer configured."""
    starts: Sequence[TaskStarts] = ()
    counters: Mapping[str, float] = field(default_factory=dict)
    """The monitor's own counters as absolute values, by ``CounterName`` and by the names of ``CounterFamily``."""
    epoch: int = 0
    """Number of the connection that delivered these messages."""
    fingerprints: bytes = b""
    """8 bytes for each message of this flush, in order of delivery."""
    position: str | None = None
    """Identifies the last message included in this flush; None if the broker keeps messages until acknowledged."""

    @property
    def weight(self) -> int:
        """Approximate bytes in memory."""
        texts = sum(len(failure.traceback) + len(failure.message) for failure in self.failures)
        small = len(self.failures) + len(self.groups) + len(self.tracked) + len(self.workers) + len(self.unnamed)
        small += len(self.ended) + len(self.queue_lengths)
        by_time = 300 * len(self.buckets) + 400 * len(self.checkpoints)
        return 2_500 * len(self.series) + 8_000 * len(self.incidents) + by_time + 600 * small + texts

    @property
    def empty(self) -> bool:
        """Whether there is nothing that needs a transaction."""
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
    """The store was restored to a state older than its last commit."""

    flushes: int
    """Minimum number of missing flushes."""
    found_at: float
    """Unix seconds of the newest flush in the store; 0 if there is none."""
    committed_at: float
    """Unix seconds of the newest flush that was committed."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The state that the store returns at start."""

    sequence: int = 0
    epoch: int = 0
    series: Sequence[Series] = ()
    """In ascending order of rank."""
    series_merged: int = 0
    """Number of series that were merged into ``other`` now, because the store had too many."""
    tracked: Sequence[tuple[str, TaskRef]] = ()
    ended: Sequence[tuple[str, TaskRef]] = ()
    """(task ID, run that ended shortly before the last flush), in the order in which they ended."""
    unnamed: Sequence[UnnamedEvent] = ()
    workers: Sequence[Worker] = ()
    incidents: Sequence[Incident] = ()
    """Open and muted ones, and suppressed or resolved ones that failures may still join."""
    silences: Sequence[Silence] = ()
    """Silences that have not ended, and those that failures may still be covered by."""
    schedules: Sequence[ScheduleState] = ()
    starts: Sequence[TaskStarts] = ()
    counters: Mapping[str, float] = field(default_factory=dict)
    fingerprints: Sequence[tuple[int, bytes]] = ()
    """(epoch, concatenated fingerprints), oldest first."""
    rolled_back: RolledBack | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound on what is kept in memory."""

    name: str
    """As in ``celery_monitor_limit_exceeded_total``."""
    setting: str | None
    """Path of the setting; None if it is not configurable."""
    maximum: int | None
    used: int | None
    """None if unknown."""
    exceeded: int
    """How often the bound was exceeded, including before restarts."""


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
    """Seconds between timestamp and reading of the newest probe or event; None before the first."""
    probe_roundtrip: float | None
    incidents_by_condition: Mapping[str, int] = field(default_factory=dict)
    """``incidents_open`` by condition."""
    oldest_started: Mapping[str, float] = field(default_factory=dict)
    """Task → start time of its oldest run under way."""
    load: Mapping[str, int] = field(default_factory=dict)
    """Queue → number of tasks that its workers run or have fetched and that are due."""
    limits: Sequence[Limit] = ()
    """The bounds on memory and their usage."""
    registered: Sequence[tuple[str, str]] = ()
    """Name and queue of the tasks that workers have registered, whether or not they have run."""
    silences_active: int = 0
    mute_windows_active: int = 0
    schedules: Sequence[ScheduleState] = ()
    """In the order of the configuration."""
