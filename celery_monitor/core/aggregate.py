"""Counts events: permanent totals, 15-minute buckets for the store, histograms, error groups and their samples.

Totals are kept in memory and written as absolute values, so that writing a flush again changes nothing. Buckets are
kept only until a flush takes them. Everything that grows with the texts of events is bounded; the excess is counted as
``other``.
"""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final

from celery_monitor.core.model import (
    BUCKET_SECONDS,
    COUNTS,
    STARTED,
    SUCCEEDED,
    BucketDelta,
    Checkpoint,
    ErrorDelta,
    ErrorGroup,
    Failure,
    Histogram,
    Series,
    SeriesKey,
)
from celery_monitor.core.series import EXCEPTIONS_PER_SERIES, QUEUES_PER_TASK, Table
from celery_monitor.core.series_row import NO_EXCEPTIONS, Row, ranked
from celery_monitor.core.text import size_of

__all__ = ["EXCEPTIONS_PER_SERIES", "GROUPS_PER_TASK", "QUEUES_PER_TASK", "SAMPLES_PER_GROUP", "Aggregator"]

GROUPS_PER_TASK: Final = 200
SAMPLES_PER_GROUP: Final = 20
MAX_PENDING_SAMPLES: Final = 5_000
"""Maximum number of samples of all groups until the next flush, more than usual. Without a store, one per group."""
MAX_BUCKETS: Final = 50_000
_SAMPLE: Final = 500
"""Bytes of a sample without its texts."""

_EMPTY_BUCKET: Final = (*(0,) * len(COUNTS), 0.0, 0)
"""Counts, then the sum and the number of runtimes. One list, because each event adds to it."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of memory. Data beyond a limit is counted as ``other`` or dropped."""

    names: int = 10_000
    """Number of task names."""
    series: int = 10_000
    """See ``series``."""
    groups: int = 20_000
    """Number of separate error groups of all tasks."""
    sample_bytes: int = 16 * 1024 * 1024
    """Size of the texts of failures that wait for the next flush."""
    buckets: int = MAX_BUCKETS
    """Number of 15-minute buckets of all series that wait for the next flush."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The changes between two flushes, with the fields of ``Changes``."""

    series: Sequence[Series]
    dropped_series: Sequence[SeriesKey]
    buckets: Sequence[BucketDelta]
    checkpoints: Sequence[Checkpoint]
    groups: Sequence[ErrorGroup]
    errors: Sequence[ErrorDelta]
    failures: Sequence[Failure]


class Aggregator:
    """Counts events. Not thread-safe: it belongs to the monitor.

    ``runtime_bounds`` and ``wait_bounds`` are in seconds, ascending. ``hosts``, ``knows`` and
    ``overflows``: see ``Table``.
    """

    def __init__(
        self,
        bounds: Bounds,
        *,
        runtime_bounds: tuple[float, ...],
        wait_bounds: tuple[float, ...],
        hosts: bool = False,
        knows: Callable[[str, str], bool] = lambda name, queue: False,  # noqa: ARG005 - no worker was asked
        overflows: Counter[str] | None = None,
    ) -> None:
        """Start at zero; ``restore`` fills it."""
        self._bounds = bounds
        self._runtime_bounds = runtime_bounds
        self._wait_bounds = wait_bounds
        self.overflows = overflows if overflows is not None else Counter()
        """What the bounds have cut, by name."""
        self._table = Table(
            max_series=bounds.series,
            max_names=bounds.names,
            bounds=(runtime_bounds, wait_bounds),
            hosts=hosts,
            knows=knows,
            overflows=self.overflows,
        )
        self.admits = self._table.admits
        self._rows = self._table.rows
        self._buckets_waiting = 0
        self._groups: dict[str, list[Any]] = {}
        """Group ID → the group as first reported, its first and its last failure."""
        self._errors: dict[tuple[int, str], int] = {}
        self._samples: dict[str, deque[tuple[Failure, int]]] = {}
        """Group → its newest failures, with the bytes of each."""
        self._waiting = 0
        """Samples in it."""
        self._waiting_bytes = 0
        self._groups_of: dict[str, set[str]] = {}
        self._known_groups: dict[str, str] = {}
        """Group → its task, the least recently failed group first."""

    @property
    def admission_version(self) -> int:
        """Changes whenever the result of ``admits`` may change."""
        return self._table.changes

    @property
    def used(self) -> dict[str, int]:
        """The current usage of each limit."""
        return {
            "series": self._table.size,
            "task_names": self._table.names,
            "error_groups": len(self._known_groups),
            "samples": self._waiting_bytes,
            "buckets": self._buckets_waiting,
        }

    def tick(self, now: float) -> None:
        """Called about once per second, and once before ``restore``."""
        self._table.tick(now)

    def restore(self, series: Iterable[Series]) -> None:
        """Continue from stored totals. A histogram whose bounds have changed starts again at zero."""
        self._table.restore(series, self._runtime_bounds, self._wait_bounds)

    def add(  # noqa: PLR0917  # the hot path: one call an event, nothing to build for it
        self, kind: int, name: str, queue: str, host: str, at: float, measured: float | None
    ) -> Row:
        """Count one event of ``kind`` (an index of COUNTS) at ``at``; ``measured`` is in seconds."""
        row = self._rows.get((name, queue, host)) or self._table.find(name, queue, host)
        row.counts[kind] += 1
        bucket = row.bucket if row.bucket_start <= at < row.bucket_end else self._bucket(row, at)
        bucket[kind] += 1
        if measured is not None:
            if kind == SUCCEEDED:
                row.runtime[bisect_left(self._runtime_bounds, measured)] += 1
                row.runtime_sum += measured
                bucket[-2] += measured
                bucket[-1] += 1
            elif kind == STARTED:
                row.wait[bisect_left(self._wait_bounds, measured)] += 1
                row.wait_sum += measured
        return row

    def add_failure(self, row: Row, exception: str, uuid: str, at: float) -> str:
        """Record the class of a failure that ``add`` counted, and return its label (``other`` beyond the limit)."""
        exception = self._table.class_of(row, exception)
        exceptions = row.own_exceptions()
        exceptions[exception] = exceptions.get(exception, 0) + 1
        row.exemplar = (exception, uuid, at)
        return exception

    def admits_group(self, name: str, group: str) -> bool:
        """Whether this error group is counted separately. It is not if the task has too many other groups.

        Beyond the limit over all tasks, the group whose last failure is the oldest is forgotten.
        """
        known = self._groups_of.get(name)
        if known is None:
            known = self._groups_of[name] = set()
        if group in known:
            del self._known_groups[group]
        elif len(known) >= GROUPS_PER_TASK:
            self.overflows["error_groups"] += 1
            return False
        else:
            known.add(group)
        self._known_groups[group] = name
        if len(self._known_groups) > self._bounds.groups:
            self.overflows["error_groups"] += 1
            self._forget_group(next(iter(self._known_groups)))
        return True

    def add_error(self, exception: str, frame: str, sample: Failure) -> None:
        """Count a failure of an error group and add it to the newest samples.

        ``exception`` and ``frame``: those of the group.
        """
        at, group = sample.at, sample.group
        key = (int(at // BUCKET_SECONDS) * BUCKET_SECONDS, group)
        count = self._errors.get(key, 0)
        if not count and len(self._errors) >= self._bounds.groups:
            self.overflows["samples"] += 1
            return
        known = self._groups.get(group)
        if known is None:
            self._groups[group] = [ErrorGroup(group, sample.name, exception, frame, at, at), at, at]
        elif at > known[2]:
            known[2] = at
        elif at < known[1]:
            known[1] = at
        self._errors[key] = count + 1
        self._keep(sample)

    def drop_hosts(self, hosts: AbstractSet[str]) -> None:
        """Forget the series of hosts (only with the hostname label).

        The buckets keep their counts, and the series without a host keep their failures: the failure counter of a task,
        which is exported without hosts, must not decrease.
        """
        self._table.drop_hosts(hosts)

    def take(self) -> Counted:
        """The changes since the last call."""
        rows, dropped = self._table.take()
        series, buckets = [], []
        for row in rows:
            if not row.dropped:
                series.append(self._freeze(row))
            key = row.key
            for start, (*counts, runtime_sum, runtime_count) in (row.buckets or {}).items():
                at = start * BUCKET_SECONDS
                buckets.append(BucketDelta(at, key.name, key.queue, tuple(counts), runtime_sum, runtime_count))
            row.dirty, row.bucket_start, row.bucket_end, row.bucket, row.buckets = False, 0.0, 0.0, None, None
        groups, errors, samples = self._groups, self._errors, self._samples
        self._groups, self._errors, self._samples = {}, {}, {}
        self._waiting = self._waiting_bytes = self._buckets_waiting = 0
        return Counted(
            series,
            dropped,
            buckets,
            self._table.checkpoints.take(),
            [_with_times(*group) for group in groups.values()],
            [ErrorDelta(start, group, count) for (start, group), count in errors.items()],
            [failure for group_samples in samples.values() for failure, _ in group_samples],
        )

    def snapshot(self) -> list[Series]:
        """A copy of all totals."""
        return [self._freeze(row) for row in self._rows.values()]

    def _bucket(self, row: Row, at: float) -> list[Any]:
        """The row's bucket for this time, or its last one if too many wait because the store is unavailable.

        A row without changes since the last flush has no bucket, so this also marks the row as changed.
        """
        self._table.touch(row)
        start = int(at // BUCKET_SECONDS)
        if row.buckets is None:
            row.buckets = {}
        bucket = row.buckets.get(start)
        if bucket is None:
            if self._buckets_waiting >= self._bounds.buckets and row.buckets:
                self.overflows["buckets"] += 1
                bucket = row.bucket
            else:
                self._buckets_waiting += 1
                bucket = row.buckets[start] = list(_EMPTY_BUCKET)
        row.bucket, row.bucket_start = bucket, float(start * BUCKET_SECONDS)
        row.bucket_end = row.bucket_start + BUCKET_SECONDS
        if row.bucket_start >= row.hour_end:
            self._table.begin_hour(row, at)
        return bucket

    def _keep(self, sample: Failure) -> None:
        """Add it to the samples of its group. If the texts exceed the limit, drop the oldest samples of any group."""
        samples = self._samples.get(sample.group)
        if samples is None:
            samples = self._samples[sample.group] = deque()
        size = _size(sample)
        samples.append((sample, size))
        self._waiting += 1
        self._waiting_bytes += size
        if len(samples) > SAMPLES_PER_GROUP or (len(samples) > 1 and self._waiting > MAX_PENDING_SAMPLES):
            self._drop_sample(sample.group)
        while self._waiting_bytes > self._bounds.sample_bytes and self._waiting > 1:
            self.overflows["samples"] += 1
            self._drop_sample(next(iter(self._samples)))

    def _drop_sample(self, group: str) -> None:
        samples = self._samples[group]
        self._waiting_bytes -= samples.popleft()[1]
        self._waiting -= 1
        if not samples:
            del self._samples[group]

    def _forget_group(self, group: str) -> None:
        name = self._known_groups.pop(group)
        known = self._groups_of[name]
        known.discard(group)
        if not known:
            del self._groups_of[name]

    def _freeze(self, row: Row) -> Series:
        return Series(
            row.key,
            tuple(row.counts),
            row.exceptions.copy() if row.exceptions else NO_EXCEPTIONS,
            Histogram(self._runtime_bounds, tuple(row.runtime), row.runtime_sum),
            Histogram(self._wait_bounds, tuple(row.wait), row.wait_sum),
            row.exemplar,
            ranked(row.used_at, established=row.established),
        )


def _with_times(group: ErrorGroup, first_at: float, last_at: float) -> ErrorGroup:
    return ErrorGroup(group.id, group.name, group.exception, group.frame, first_at, last_at)


def _size(sample: Failure) -> int:
    """Approximate size in memory, in bytes."""
    size = _SAMPLE + sample.message.__sizeof__() + sample.traceback.__sizeof__()
    if sample.args or sample.kwargs:
        size += size_of(sample.args or "") + size_of(sample.kwargs or "")
    return size
