"""Totals, counts by time, and failures by error group."""

from collections.abc import Mapping

import msgspec

BUCKET_SECONDS = 900
"""Width of a stored bucket: days in time zones with offsets of 30 or 45 minutes must start at a bucket's edge."""

COUNTS = ("sent", "received", "started", "succeeded", "failed", "retried", "rejected", "revoked")
"""The order of all vectors of counts in this program."""
SENT, RECEIVED, STARTED, SUCCEEDED, FAILED, RETRIED, REJECTED, REVOKED = range(8)


class SeriesKey(msgspec.Struct, frozen=True, gc=False):
    """The labels of a series. ``host`` is "" unless ``metrics.hostname_label`` is on."""

    name: str
    queue: str
    host: str = ""


class Histogram(msgspec.Struct, frozen=True, gc=False):
    """Observations: ``counts`` by bucket (not cumulative; one more than ``bounds``, the last +Inf), sum in seconds."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


class Series(msgspec.Struct, frozen=True, gc=False):
    """The totals of one (task, queue[, host]) since the store was created, as absolute values."""

    key: SeriesKey
    counts: tuple[int, ...]
    """In the order of ``COUNTS``. ``failed`` counts a hard time limit once, although it sends two events."""
    exceptions: Mapping[str, int]
    """``failed`` by short class name; bounded, the rest is "other"."""
    runtime: Histogram
    wait: Histogram
    exemplar: tuple[str, str, float] | None = None
    """(exception, task ID, timestamp) of the last failure; not stored."""
    rank: int = 0
    """If there are too many series, those with the lowest rank are merged first."""


class BucketDelta(msgspec.Struct, frozen=True, gc=False):
    """What a flush adds to one 15-minute bucket of a task and queue."""

    start: int
    """Unix seconds, a multiple of BUCKET_SECONDS."""
    name: str
    queue: str
    counts: tuple[int, ...]
    runtime_sum: float
    runtime_count: int


Cells = tuple[tuple[float, int], ...]
"""(Upper bound, observations) of a histogram, ascending; the last bound may be infinite. Empty cells are left out,
except one directly below a nonempty cell, because its bound is the lower bound of that cell."""


class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """The histograms of a series at the start of an hour: see ``core.hourly``."""

    start: int
    """Start of the hour, in Unix seconds."""
    key: SeriesKey
    runtime: Cells
    wait: Cells
    last: bool = False
    """The series ends here or continues from other values, which the next checkpoint contains."""


class QueueLengthDelta(msgspec.Struct, frozen=True, gc=False):
    """What a flush adds to the lengths of a queue in a quarter of an hour."""

    start: int
    """Unix seconds, a multiple of BUCKET_SECONDS."""
    queue: str
    looks: int
    """Number of measurements."""
    total: int
    """Sum of the measured lengths."""
    longest: int


class ErrorGroup(msgspec.Struct, frozen=True, gc=False):
    """Failures of one task with one exception class in one frame of the application."""

    id: str
    """16 hex digits of blake2b over name, exception and frame."""
    name: str
    exception: str
    """The full class name if known (``billiard.exceptions.WorkerLostError``), else the short one."""
    frame: str
    """``path/of/app.py:function`` of the innermost frame outside of libraries, "" if there is none."""
    first_at: float
    last_at: float
    """First and last failure in this flush (the store keeps the minimum and the maximum)."""


class ErrorDelta(msgspec.Struct, frozen=True, gc=False):
    """What a flush adds to the failures of an error group in one 15-minute bucket."""

    start: int
    group: str
    count: int


class Failure(msgspec.Struct, frozen=True, gc=False):
    """One failure, a sample of its group. Texts are redacted and truncated; arguments only if the settings allow."""

    uuid: str
    name: str
    queue: str
    hostname: str
    """The worker's full hostname (``celery@box``)."""
    at: float
    """The event's own timestamp."""
    exception: str
    """Short class name."""
    message: str
    traceback: str
    group: str
    """ID of its ErrorGroup."""
    incident: str | None
    """Key of the incident it belongs to."""
    reason: str
    """The Verdict's reason."""
    args: str | None = None
    kwargs: str | None = None
