"""Totals, counts by time, and failures by error group."""

from collections.abc import Mapping

import msgspec

BUCKET_SECONDS = 900
"""Width of the stored counts: zones with offsets of 30 and 45 minutes must be able to cut their days exactly."""

COUNTS = ("sent", "received", "started", "succeeded", "failed", "retried", "rejected", "revoked")
"""The order of every vector of counts in this program."""
SENT, RECEIVED, STARTED, SUCCEEDED, FAILED, RETRIED, REJECTED, REVOKED = range(8)


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
    """(exception, task ID, timestamp) of the last failure; not stored."""
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


Cells = tuple[tuple[float, int], ...]
"""(Upper bound, observations) of a histogram, ascending, the last bound may be infinite. Empty cells are left out, but
for the one below a cell that is not: its bound is the lower one of that cell."""


class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """The histograms of a series as they were when an hour began for it: see ``core.hourly``."""

    start: int
    """Unix seconds, of the hour."""
    key: SeriesKey
    runtime: Cells
    wait: Cells
    last: bool = False
    """The series ends here, or goes on from other values: the next checkpoint says from which."""


class QueueLengthDelta(msgspec.Struct, frozen=True, gc=False):
    """What a flush adds to the lengths of a queue in a quarter of an hour."""

    start: int
    """Unix seconds, a multiple of BUCKET_SECONDS."""
    queue: str
    looks: int
    """How often it was looked at."""
    total: int
    """The sum of the lengths found."""
    longest: int


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
    """ID of its ErrorGroup."""
    incident: str | None
    """Key of the incident it belongs to."""
    reason: str
    """The Verdict's reason."""
    args: str | None = None
    kwargs: str | None = None
