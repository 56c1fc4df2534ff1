"""Counts: totals for ever, 15-minute buckets for the store, histograms, error groups and their samples.

Totals are kept here and written as absolute values, so that writing a flush again changes nothing. Buckets are kept
here only until they are taken for a flush. Everything that an event's text can multiply is bounded; what is beyond a
bound is counted as ``other``.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Any, Final

import msgspec
from msgspec import structs

from celery_monitor.core.model import (
    BUCKET_SECONDS,
    COUNTS,
    FAILED,
    STARTED,
    SUCCEEDED,
    BucketDelta,
    ErrorDelta,
    ErrorGroup,
    Failure,
    Histogram,
    Series,
    SeriesKey,
)
from celery_monitor.core.text import OTHER

QUEUES_PER_TASK: Final = 100
EXCEPTIONS_PER_SERIES: Final = 50
GROUPS_PER_TASK: Final = 200
SAMPLES_PER_GROUP: Final = 20
SAMPLES_WAITING: Final = 5_000
"""Of all groups until the next flush: more than a bad second brings. When the store is away, one of each must do."""

_NONE: Final = (0,) * len(COUNTS)
_EMPTY_BUCKET: Final = (*_NONE, 0.0, 0)
"""Counts, then the sum and the number of runtimes: one list, because each event adds to it."""


class _Row(msgspec.Struct):
    """The mutable totals of one series, and its buckets since the last flush."""

    key: SeriesKey
    counts: list[int]
    exceptions: dict[str, int]
    runtime: list[int]
    wait: list[int]
    runtime_sum: float = 0.0
    wait_sum: float = 0.0
    exemplar: tuple[str, str, float] | None = None
    dirty: bool = False
    dropped: bool = False
    bucket_start: int = -1
    bucket: list[Any] = []  # msgspec copies an empty default for each instance
    buckets: dict[int, list[Any]] = {}  # as above


class Aggregator:
    """Adds events up. Not thread-safe: it belongs to the monitor.

    ``max_names`` bounds the distinct task names, ``runtime_bounds`` and ``wait_bounds`` are in seconds, ascending.
    """

    def __init__(self, *, max_names: int, runtime_bounds: tuple[float, ...], wait_bounds: tuple[float, ...]) -> None:
        """Start at zero; ``restore`` fills it."""
        self.names_over_limit = 0
        self.admitted = 0
        """Pairs of name and queue that are counted apart: what ``admits`` says changes with their number."""
        self._max_names = max_names
        self._runtime_bounds = runtime_bounds
        self._wait_bounds = wait_bounds
        self._rows: dict[tuple[str, str, str], _Row] = {}
        self._queues: dict[str, set[str]] = {}
        self._dirty: list[_Row] = []
        self._dropped: list[SeriesKey] = []
        self._groups: dict[str, ErrorGroup] = {}
        self._errors: dict[tuple[int, str], int] = {}
        self._samples: dict[str, deque[Failure]] = {}
        self._waiting = 0
        """Samples in it."""
        self._groups_of: dict[str, set[str]] = {}

    def restore(self, series: Iterable[Series]) -> None:
        """Go on from stored totals. A histogram with other bounds than today's starts again at zero."""
        for old in series:
            # Under its own key, whatever the order: renamed by a bound, a queue would take the place of ``other``.
            row = self._exact(old.key.name, old.key.queue, old.key.host)
            row.counts = list(old.counts)
            row.exceptions = dict(old.exceptions)
            if old.runtime.bounds == self._runtime_bounds:
                row.runtime, row.runtime_sum = list(old.runtime.counts), old.runtime.sum
            if old.wait.bounds == self._wait_bounds:
                row.wait, row.wait_sum = list(old.wait.counts), old.wait.sum

    def limited(self, name: str) -> str:
        """The name itself, or ``other`` when there are too many of them."""
        if name in self._queues or len(self._queues) < self._max_names:
            return name
        self.names_over_limit += 1
        return OTHER

    def admits(self, name: str, queue: str) -> bool:
        """Whether an event of this name and queue is counted as theirs, and not as one of ``other``."""
        queues = self._queues.get(name)
        if queues is None:
            return len(self._queues) < self._max_names
        return queue in queues or len(queues) < QUEUES_PER_TASK

    def add(  # noqa: PLR0917  # the hot path: one call an event, nothing to build for it
        self, kind: int, name: str, queue: str, host: str, at: float, measured: float | None
    ) -> _Row:
        """Count one event of ``kind`` (an index of COUNTS) at ``at``; ``measured`` is in seconds."""
        row = self._rows.get((name, queue, host)) or self._row(name, queue, host)
        row.counts[kind] += 1
        if not row.dirty:
            self._touch(row)
        start = int(at // BUCKET_SECONDS)
        if start == row.bucket_start:
            bucket = row.bucket
        else:
            bucket = row.buckets.get(start) or row.buckets.setdefault(start, list(_EMPTY_BUCKET))
            row.bucket_start, row.bucket = start, bucket
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

    def add_failure(self, row: _Row, exception: str, uuid: str, at: float) -> str:
        """Note the class of a failure that ``add`` counted; returns its label (``other`` beyond the bound)."""
        if exception not in row.exceptions and len(row.exceptions) >= EXCEPTIONS_PER_SERIES:
            exception = OTHER
        row.exceptions[exception] = row.exceptions.get(exception, 0) + 1
        row.exemplar = (exception, uuid, at)
        return exception

    def admits_group(self, name: str, group: str) -> bool:
        """Whether this error group is counted apart; not when the task has had too many others since the start."""
        known = self._groups_of.setdefault(name, set())
        if group not in known:
            if len(known) >= GROUPS_PER_TASK:
                return False
            known.add(group)
        return True

    def add_error(self, group: ErrorGroup, sample: Failure) -> None:
        """Count a failure of an error group and keep it among the newest samples."""
        at = group.last_at
        seen = self._groups.get(group.id)
        if seen is not None:
            group = structs.replace(seen, first_at=min(seen.first_at, at), last_at=max(seen.last_at, at))
        self._groups[group.id] = group
        key = (int(at // BUCKET_SECONDS) * BUCKET_SECONDS, group.id)
        self._errors[key] = self._errors.get(key, 0) + 1
        kept = self._samples.setdefault(group.id, deque())
        if len(kept) >= SAMPLES_PER_GROUP or (kept and self._waiting >= SAMPLES_WAITING):
            kept.popleft()
        else:
            self._waiting += 1
        kept.append(sample)

    def drop_hosts(self, hosts: AbstractSet[str]) -> None:
        """Forget the series of hosts (only with the hostname label).

        What they did stays in the buckets, and their failures in the series without a host: the failures of a task,
        which are shown without hosts, must not fall.
        """
        for key in [key for key in self._rows if key[2] in hosts]:
            row = self._rows.pop(key)
            row.dropped = True
            self._dropped.append(SeriesKey(*key))
            if row.counts[FAILED]:
                rest = self._row(row.key.name, row.key.queue, "")
                rest.counts[FAILED] += row.counts[FAILED]
                self._touch(rest)

    def take(
        self,
    ) -> tuple[list[Series], list[SeriesKey], list[BucketDelta], list[ErrorGroup], list[ErrorDelta], list[Failure]]:
        """What changed since the last call."""
        series, buckets = [], []
        for row in self._dirty:
            if not row.dropped:
                series.append(self._freeze(row))
            key = row.key
            for start, (*counts, runtime_sum, runtime_count) in row.buckets.items():
                at = start * BUCKET_SECONDS
                buckets.append(BucketDelta(at, key.name, key.queue, tuple(counts), runtime_sum, runtime_count))
            row.dirty, row.bucket_start, row.buckets = False, -1, {}
        dropped, groups, errors, samples = self._dropped, self._groups, self._errors, self._samples
        self._dirty, self._dropped, self._groups, self._errors, self._samples = [], [], {}, {}, {}
        self._waiting = 0
        return (
            series,
            dropped,
            buckets,
            list(groups.values()),
            [ErrorDelta(start, group, count) for (start, group), count in errors.items()],
            [failure for kept in samples.values() for failure in kept],
        )

    def snapshot(self) -> list[Series]:
        """A copy of all totals."""
        return [self._freeze(row) for row in self._rows.values()]

    def _touch(self, row: _Row) -> None:
        if not row.dirty:
            row.dirty = True
            self._dirty.append(row)

    def _row(self, name: str, queue: str, host: str) -> _Row:
        queues = self._queues.get(name, ())
        return self._exact(name, queue if queue in queues or len(queues) < QUEUES_PER_TASK else OTHER, host)

    def _exact(self, name: str, queue: str, host: str) -> _Row:
        queues = self._queues.setdefault(name, set())
        if queue not in queues:
            queues.add(queue)
            self.admitted += 1
        row = self._rows.get((name, queue, host))
        if row is None:
            row = self._rows[name, queue, host] = _Row(
                SeriesKey(name, queue, host),
                list(_NONE),
                {},
                [0] * (len(self._runtime_bounds) + 1),
                [0] * (len(self._wait_bounds) + 1),
            )
        return row

    def _freeze(self, row: _Row) -> Series:
        return Series(
            row.key,
            tuple(row.counts),
            row.exceptions.copy(),
            Histogram(self._runtime_bounds, tuple(row.runtime), row.runtime_sum),
            Histogram(self._wait_bounds, tuple(row.wait), row.wait_sum),
            row.exemplar,
        )
