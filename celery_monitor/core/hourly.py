"""Runtimes, waiting times and queue lengths by hour.

The histograms of a series are cumulative, and a flush writes them completely. So the measurements of an hour are the
difference between two states, and it is enough to store the state at the start of each hour: a checkpoint. It is
written in the flush of the hour's first event, so hours are exact even if the process is killed, and other events cost
nothing more. After a start it is unknown in which hour the newest event of a series was, as a backlog may have been
read late. So the first event of each series writes another checkpoint, possibly of the same hour.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Final, Protocol

from celery_monitor.core.model import (
    BUCKET_SECONDS,
    Cells,
    Checkpoint,
    Histogram,
    HourRow,
    QueueLengthDelta,
    QueueStats,
    Series,
    SeriesKey,
)
from celery_monitor.core.text import OTHER

HOUR: Final = 3600
MAX_CHECKPOINTS: Final = 50_000
"""Checkpoints that wait for the next flush. With more, while the store is unavailable, an hour is merged into the
previous one."""
MAX_QUEUES: Final = 1_000
"""Queues whose length is recorded each time: the longest ones."""
MAX_LATE_QUEUES: Final = 250
"""Additional queues per quarter of an hour that were not among the longest at its start."""
MAX_LENGTHS: Final = 100_000
"""Queue lengths that wait for the next flush."""
_AHEAD: Final = 60.0
"""Seconds by which an event may be ahead of the clock. An event further ahead starts no hour: the events after it would
be counted in a future hour."""


class Measured(Protocol):
    """A series in memory.

    ``hour_end``: Unix seconds at which its current hour ends; 0 before the first event. ``used_at``: Unix seconds of
    its last use, by the monitor's clock; 0 for a new series.
    """

    key: SeriesKey
    runtime: list[int]
    wait: list[int]
    hour_end: float
    used_at: float


class Checkpoints:
    """Records the histograms of series at the start of hours. Not thread-safe: it belongs to the table of series."""

    def __init__(self, runtime_bounds: Sequence[float], wait_bounds: Sequence[float], overflows: Counter[str]) -> None:
        """``overflows`` counts checkpoints beyond the bound, as ``buckets``."""
        self._bounds = (*runtime_bounds, math.inf), (*wait_bounds, math.inf)
        self._overflows = overflows
        self._waiting: list[Checkpoint] = []
        self._hour_end = 0.0
        """The newest hour's end, one float object that all series share."""

    def begin(self, row: Measured, at: float, now: float) -> None:
        """An event of ``at`` is about to be measured: write a checkpoint if it starts an hour."""
        start = int(min(at, now + _AHEAD) // HOUR) * HOUR
        if start < row.hour_end or row.key.name == OTHER:
            return
        if self._note(row, start):
            if self._hour_end != start + HOUR:
                self._hour_end = float(start + HOUR)
            row.hour_end = self._hour_end

    def end(self, row: Measured) -> None:
        """The series is about to be dropped or merged into: its hour ends with its present histograms."""
        start = _hour_of(row)
        if start and row.key.name != OTHER and (any(row.runtime) or any(row.wait)):
            self._note(row, start, last=True)

    def resume(self, row: Measured) -> None:
        """Others were merged into the series after ``end``: its hour continues from here."""
        start = _hour_of(row)
        if start and row.key.name != OTHER:
            self._note(row, start)

    def replaced(self, old: Series, start: int) -> None:
        """The stored histograms of a series have bounds that differ from the configured ones, and restart at zero."""
        self._waiting.append(ending(old, start))

    def take(self) -> list[Checkpoint]:
        """The checkpoints since the last call, in order."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def _note(self, row: Measured, start: int, *, last: bool = False) -> bool:
        if len(self._waiting) >= MAX_CHECKPOINTS:
            self._overflows["buckets"] += 1
            return False
        runtime, wait = self._bounds
        self._waiting.append(
            Checkpoint(start, row.key, _cells(runtime, row.runtime), _cells(wait, row.wait), last=last)
        )
        return True


class QueueLengths:
    """Aggregates the queue lengths that the broker reported, by quarter of an hour. Not thread-safe."""

    def __init__(self) -> None:
        """Start empty."""
        self._waiting: dict[tuple[int, str], QueueLengthDelta] = {}
        self._start = 0
        self._names: set[str] = set()
        """Queues recorded in the present quarter of an hour: each one is a row in the store."""

    def note(self, queues: Iterable[QueueStats], now: float) -> None:
        """Record the current lengths of the queues."""
        start = int(now // BUCKET_SECONDS) * BUCKET_SECONDS
        if start != self._start:
            self._start, self._names = start, set()
        measured = [queue for queue in queues if queue.length is not None]
        for queue in sorted(measured, key=lambda stats: -(stats.length or 0))[:MAX_QUEUES]:
            length, bucket = queue.length or 0, (start, queue.name)
            if queue.name not in self._names and len(self._names) >= MAX_QUEUES + MAX_LATE_QUEUES:
                continue
            self._names.add(queue.name)
            old = self._waiting.get(bucket)
            if old is None:
                if len(self._waiting) >= MAX_LENGTHS:
                    return
                self._waiting[bucket] = QueueLengthDelta(start, queue.name, 1, length, length)
            else:
                longest = max(old.longest, length)
                self._waiting[bucket] = QueueLengthDelta(start, queue.name, old.looks + 1, old.total + length, longest)

    def take(self) -> list[QueueLengthDelta]:
        """The lengths since the last call."""
        waiting, self._waiting = self._waiting, {}
        return list(waiting.values())


def hours(checkpoints: Iterable[Checkpoint], totals: Iterable[Series]) -> list[HourRow]:
    """The measurements of each hour over all series, in order of time.

    ``checkpoints``: in order for each series and without a gap up to now; the series may be interleaved. Only the
    newest of each series is kept in memory. ``totals``: the present state of the same series.
    """
    cells_by_hour: dict[int, tuple[dict[float, int], dict[float, int]]] = {}
    newest: dict[SeriesKey, Checkpoint] = {}
    for after in chain(checkpoints, map(_now, totals)):
        before = newest.get(after.key)
        newest[after.key] = after
        if before is not None and not before.last:
            runtime, wait = cells_by_hour.setdefault(before.start, ({}, {}))
            _add_growth(runtime, before.runtime, after.runtime)
            _add_growth(wait, before.wait, after.wait)
    rows = [HourRow(start, *map(_histogram, cells_by_hour[start])) for start in sorted(cells_by_hour)]
    return [row for row in rows if any(row.runtime.counts) or any(row.wait.counts)]


def ending(series: Series, start: int) -> Checkpoint:
    """The last checkpoint of a dropped series. ``start``: the start of an hour not before its newest one."""
    runtime, wait = _cells(series.runtime.bounds, series.runtime.counts), _cells(series.wait.bounds, series.wait.counts)
    return Checkpoint(start, series.key, runtime, wait, last=True)


def _now(one: Series) -> Checkpoint:
    """The present state of a series as a checkpoint."""
    return ending(one, 0)


def _hour_of(row: Measured) -> int:
    """Start of the hour that the series is in; 0 if it is in none."""
    return int(row.hour_end) - HOUR if row.hour_end else int(row.used_at // HOUR) * HOUR


def _cells(bounds: Sequence[float], counts: Sequence[int]) -> Cells:
    """The nonempty cells and the ones directly below them, as an estimate needs both bounds of a cell."""
    if not any(counts):
        return ()
    above = [*counts[1:], 0]
    cells = zip([*bounds, math.inf][: len(counts)], counts, above, strict=True)
    return tuple((bound, count) for bound, count, next_ in cells if count or next_)


def _add_growth(to: dict[float, int], before: Cells, after: Cells) -> None:
    """Add the growth from ``before`` to ``after``; nothing if a count decreased, because the series was reset."""
    earlier = dict(before)
    growth = {bound: count - earlier.pop(bound, 0) for bound, count in after}
    if any(earlier.values()) or min(growth.values(), default=0) < 0:
        return
    for bound, count in growth.items():
        to[bound] = to.get(bound, 0) + count


def _histogram(cells: Mapping[float, int]) -> Histogram:
    bounds = sorted(cells.keys() - {math.inf})
    counts = [*(cells[bound] for bound in bounds), cells.get(math.inf, 0)]
    return Histogram(tuple(bounds), tuple(counts), 0.0)
