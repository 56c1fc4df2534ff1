"""Stored rows as queries return them."""

from dataclasses import dataclass

from celery_monitor.core.model.counts import Failure
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
