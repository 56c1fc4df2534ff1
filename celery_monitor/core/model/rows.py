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
    """The sum of the buckets of a period: see BucketDelta."""

    name: str
    """"" for all tasks together."""
    start: int
    counts: tuple[int, ...]
    runtime_sum: float
    runtime_count: int


@dataclass(frozen=True, slots=True)
class HourRow:
    """Runtimes and waiting times measured in an hour. The sums of the histograms are unknown."""

    start: int
    runtime: Histogram
    wait: Histogram


@dataclass(frozen=True, slots=True)
class QueueLengthRow:
    """The length of a queue in a period."""

    queue: str
    start: int
    mean: float
    longest: int


@dataclass(frozen=True, slots=True)
class FailingRow:
    """A task's counts in a period, over all queues."""

    name: str
    succeeded: int
    failed: int
    retried: int
    first: int
    """Start of the first bucket with a failure; 0 if there is none."""
    last: int
    """Start of the last bucket with a failure."""


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A stored error group with its failures in the queried period."""

    id: str
    name: str
    exception: str
    frame: str
    first_at: float
    """First failure within the retention period."""
    last_at: float
    count: int
    """Failures in the queried period."""
    sample: Failure | None = None


@dataclass(frozen=True, slots=True)
class ChannelDelivery:
    """The delivery state of an incident on one channel."""

    channel: str
    state: str
    """pending (a message waits), delivered, dead, or unknown (it may have been delivered)."""
    attempts: int
    """All attempts, including successful ones."""
    error: str | None
    """Error of the last attempt, if it failed."""
    delivered_at: float | None
    """When the receiver first accepted it."""
    delivered_count: int
    """Number of failures that were reported to the receiver."""
    receipt: str | None
    """The receiver's identifier of the incident: a key, or an ID that it returned."""


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """A stored incident, and its delivery on each of its channels."""

    incident: Incident
    deliveries: Sequence[ChannelDelivery] = ()

    @property
    def position(self) -> tuple[float, str]:
        """Its position in the list of all incidents."""
        return self.incident.first_at, self.incident.key

    @property
    def delivered_at(self) -> float | None:
        """When all its channels had accepted it; None until then."""
        times = [delivery.delivered_at for delivery in self.deliveries]
        return None if None in times else max((at for at in times if at is not None), default=None)

    @property
    def delivered_count(self) -> int:
        """Number of failures that were reported to all its channels."""
        return min((delivery.delivered_count for delivery in self.deliveries), default=0)

    @property
    def error(self) -> str | None:
        """Error of the first channel whose last attempt failed."""
        return next((delivery.error for delivery in self.deliveries if delivery.error is not None), None)
