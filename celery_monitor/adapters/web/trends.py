"""Counts by hour for charts: bars, time marks, and a description in words."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

from celery_monitor.adapters.web.charts import Bar, Point
from celery_monitor.adapters.web.filters import seconds
from celery_monitor.adapters.web.views import time
from celery_monitor.core.model import FAILED, SUCCEEDED, Histogram, HistoryRow
from celery_monitor.ports import Reader

HOUR: Final = 3600
DAY_HOURS: Final = 24
LATE_HOURS: Final = 3
"""Events that arrive later than this are rare: alerts.max_age is two hours."""
WEEK_HOURS: Final = 7 * 24
SPANS: Final = {"24h": DAY_HOURS, "7d": WEEK_HOURS}
"""Parameter ``span`` → hours that a chart shows."""
_MARKS: Final = {DAY_HOURS: (6, "clock"), WEEK_HOURS: (24, "day")}
"""Hours of a chart → (hours between two marks, format of the marks)."""
_PERIODS: Final = {DAY_HOURS: "Last 24 hours", WEEK_HOURS: "Last 7 days"}


@dataclass(frozen=True, slots=True)
class Mark:
    """A time mark below a chart."""

    at: str
    form: str


@dataclass(frozen=True, slots=True)
class Trend:
    """Runs and failures by hour."""

    period: str
    bars: tuple[Bar, ...]
    description: str
    marks: tuple[Mark, ...]
    peak: int
    executed: int
    failed: int
    runtime: tuple[Point, ...]
    """The mean runtime of each hour."""
    runtime_description: str
    runtime_peak: float | None


@dataclass(frozen=True, slots=True)
class Window:
    """The hours that a chart shows; the current one is the last."""

    first: int
    hours: int

    @property
    def starts(self) -> range:
        """Start of each hour, in Unix seconds."""
        return range(self.first, self.first + self.hours * HOUR, HOUR)

    @property
    def end(self) -> int:
        """Unix seconds, exclusive."""
        return self.first + self.hours * HOUR


def window(now: float, hours: int) -> Window:
    """The last hours up to now."""
    current = int(now) // HOUR * HOUR
    return Window(current - (hours - 1) * HOUR, hours)


def trend(rows: Sequence[HistoryRow], span: Window, zone: tzinfo, marked: tuple[float, float] | None = None) -> Trend:
    """The trend of one name. ``marked``: a period to highlight."""
    by_hour = {row.start: row for row in rows}
    name = hours_of(zone)
    bars, points = [], []
    for start in span.starts:
        row = by_hour.get(start)
        failed = row.counts[FAILED] if row else 0
        runs = failed + (row.counts[SUCCEEDED] if row else 0)
        stands_out = marked is not None and start <= marked[1] and start + HOUR > marked[0]
        bars.append(Bar(f"{name(start)}: {runs:,} executed, {failed:,} failed", runs, failed, stands_out))
        mean = row.runtime_sum / row.runtime_count if row and row.runtime_count else None
        points.append(Point(f"{name(start)}: {seconds(mean)}", mean))
    executed, failed = sum(bar.runs for bar in bars), sum(bar.failed for bar in bars)
    measured = [(point.value, point.title) for point in points if point.value is not None]
    period = period_of(span)
    return Trend(
        period=period,
        bars=tuple(bars),
        description=_description(period, bars, executed, failed),
        marks=marks_of(span),
        peak=max((max(bar.runs, bar.failed) for bar in bars), default=0),
        executed=executed,
        failed=failed,
        runtime=tuple(points),
        runtime_description=f"{period}: the longest mean was at {max(measured)[1]}." if measured else "",
        runtime_peak=max(measured)[0] if measured else None,
    )


class StartingRow(Protocol):
    """A row of counts or measurements of an hour."""

    @property
    def start(self) -> int:
        """Start of the hour, in Unix seconds."""


R = TypeVar("R", bound=StartingRow)


class HourCache(Generic[R]):
    """Caches rows by hour. Past hours are read only once.

    Late events are counted in their own hour, so an hour is read again until it is ``late`` hours old, and all hours
    every ``keep`` seconds. Thread-safe.
    """

    def __init__(
        self, read: Callable[[float, float], Sequence[R]], *, late: int = LATE_HOURS, keep: float = HOUR
    ) -> None:
        """``read``: (since, until) → the rows of the hours that start in [since, until), at most one per hour."""
        self._read = read
        self._late = late
        self._keep = keep
        self._cached: dict[int, R | None] = {}
        self._since = -math.inf

    def rows(self, span: Window, now: float) -> list[R]:
        """The rows of a window that ends with the current hour. Queries the store."""
        cached = dict(self._cached) if abs(now - self._since) < self._keep else {}
        settled_until = span.end - self._late * HOUR
        missing = next((start for start in span.starts if start not in cached or start >= settled_until), span.end)
        read = {row.start: row for row in self._read(missing, span.end)}
        fresh = {start: read.get(start) for start in span.starts if start >= missing}
        rows_by_start = {start: cached.get(start) for start in span.starts} | fresh
        if not cached:
            self._since = now
        self._cached = {start: row for start, row in (cached | rows_by_start).items() if start < settled_until}
        return [row for row in rows_by_start.values() if row is not None]


class FleetHistory(HourCache[HistoryRow]):
    """Runs of all tasks by hour: a week of many tasks has 300,000 rows."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(partial(reader.history, step=HOUR))


def pairs(rows: Sequence[HistoryRow], span: Window) -> list[tuple[int, int]]:
    """(runs, failed) of each hour of one task."""
    by_hour = {row.start: row.counts for row in rows}
    none = (0,) * (max(FAILED, SUCCEEDED) + 1)
    counts = [by_hour.get(start, none) for start in span.starts]
    return [(count[SUCCEEDED] + count[FAILED], count[FAILED]) for count in counts]


def sparklines(reader: Reader, names: Sequence[str], now: float) -> dict[str, list[tuple[int, int]]]:
    """Task → (runs, failed) of each of the last 24 hours. Queries the store."""
    if not names:
        return {}
    span = window(now, DAY_HOURS)
    rows = reader.history(span.first, span.end, step=HOUR, names=names)
    by_name: dict[str, list[HistoryRow]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    return {name: pairs(by_name.get(name, []), span) for name in names}


def period_of(span: Window) -> str:
    """The window in words."""
    return _PERIODS.get(span.hours, f"Last {span.hours} hours")


def _description(period: str, bars: Sequence[Bar], executed: int, failed: int) -> str:
    text = f"{period}: {executed:,} executed, {failed:,} failed."
    if not failed:
        return text
    worst_bar = max(bars, key=lambda bar: bar.failed)
    return f"{text} Most failures in an hour: {worst_bar.title}."


def marks_of(span: Window) -> tuple[Mark, ...]:
    """The time marks below a chart."""
    step, form = _MARKS.get(span.hours, (span.hours, "clock"))
    return tuple(Mark(str(time(start)), form) for start in span.starts[::step])


def hours_of(zone: tzinfo) -> Callable[[int], str]:
    """A function that formats the hour with a given start, with its time zone."""

    def name(start: int) -> str:
        begin = datetime.fromtimestamp(start, zone)
        return f"{begin:%m-%d %H:%M} to {datetime.fromtimestamp(start + HOUR, zone):%H:%M} {begin.tzname()}"

    return name


def quantile(histogram: Histogram, share: float) -> float | None:
    """An estimate like Prometheus's histogram_quantile; None without observations or if above the last bound."""
    rank, seen = share * sum(histogram.counts), 0
    if not rank:
        return None
    below = 0.0
    for bound, count in zip(histogram.bounds, histogram.counts, strict=False):
        if count and seen + count >= rank:
            return below + (bound - below) * (rank - seen) / count
        seen, below = seen + count, bound
    return None
