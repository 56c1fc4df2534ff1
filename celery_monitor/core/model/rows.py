"""Stored rows as queries return them."""

from collections.abc import Sequence
from dataclasses import dataclass

from celery_monitor.core.model.counts import Failure, Histogram
from celery_monitor.core.model.incidents import Incident


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
class HistoryRow:
    """The buckets of a span of time added up: see BucketDelta."""

    name: str
    """"" for all tasks together."""
    start: int
    counts: tuple[int, ...]
    runtime_sum: float
    runtime_count: int


@dataclass(frozen=True, slots=True)
class HourRow:
    """Run times and waiting times that were measured in an hour. The sums of the histograms are not known."""

    start: int
    runtime: Histogram
    wait: Histogram


@dataclass(frozen=True, slots=True)
class QueueLengthRow:
    """The length of a queue in a span of time."""

    queue: str
    start: int
    mean: float
    longest: int


@dataclass(frozen=True, slots=True)
class FailingRow:
    """What a task did in a period, on all queues."""

    name: str
    succeeded: int
    failed: int
    retried: int
    first: int
    """Start of the first bucket with a failure; 0 when there is none."""
    last: int
    """Start of the last one."""


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
class ChannelDelivery:
    """What became of an incident on one channel."""

    channel: str
    state: str
    """pending (something of it waits), delivered, dead, or unknown (it may have been delivered)."""
    attempts: int
    """All of them, also those that were taken."""
    error: str | None
    """Of the last attempt, when it failed."""
    delivered_at: float | None
    """When the receiver first took it."""
    delivered_count: int
    """How many failures the receiver knows of."""
    receipt: str | None
    """The receiver's identifier: a key, or an ID that it returned."""


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """A stored incident, and what became of it on each channel that it goes to."""

    incident: Incident
    deliveries: Sequence[ChannelDelivery] = ()

    @property
    def position(self) -> tuple[float, str]:
        """In the list of all incidents."""
        return self.incident.first_at, self.incident.key

    @property
    def delivered_at(self) -> float | None:
        """When the last of its channels had taken it; None as long as one has not."""
        times = [delivery.delivered_at for delivery in self.deliveries]
        return None if None in times else max((at for at in times if at is not None), default=None)

    @property
    def delivered_count(self) -> int:
        """How many failures every one of its channels knows of."""
        return min((delivery.delivered_count for delivery in self.deliveries), default=0)

    @property
    def error(self) -> str | None:
        """Of the last attempt on the first channel where it failed."""
        return next((delivery.error for delivery in self.deliveries if delivery.error is not None), None)
