"""Runtimes, waiting times and queue lengths by hour for charts, descriptions and tables."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from celery_monitor.adapters.web import views
from celery_monitor.adapters.web.charts import Point
from celery_monitor.adapters.web.filters import number, seconds
from celery_monitor.adapters.web.trends import DAY_HOURS, HOUR, Mark, Window, hours_of, marks_of, period_of, window
from celery_monitor.core.model import Histogram, HourRow, QueueLengthRow
from celery_monitor.ports import Reader

SHARES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
_DRAWN: Final = 3
"""Number of queues in one chart."""
_LISTED: Final = 50
"""Number of queues whose lengths are read: the first ones on the overview."""
Estimate = tuple[float, bool]
"""(seconds, whether the value is above the last bound of the histogram and the seconds are that bound)."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a chart."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Curves:
    """A chart of values by hour."""

    title: str
    period: str
    curves: tuple[Curve, ...]
    titles: tuple[str, ...]
    """The title of each hour."""
    description: str
    marks: tuple[Mark, ...]
    peak: float


@dataclass(frozen=True, slots=True)
class TimesRow:
    """An hour in the table below the charts."""

    at: str
    runs: int
    runtime: tuple[str, ...]
    waits: int
    wait: tuple[str, ...]


def estimates(histogram: Histogram) -> dict[str, Estimate]:
    """Percentiles, estimated like Prometheus's histogram_quantile; {} without observations."""
    total = sum(histogram.counts)
    return {name: _estimate(histogram, share * total) for name, share in SHARES} if total else {}


def _estimate(histogram: Histogram, rank: float) -> Estimate:
    seen, below = 0, 0.0
    for bound, count in zip(histogram.bounds, histogram.counts, strict=False):
        if count and seen + count >= rank:
            return below + (bound - below) * (rank - seen) / count, False
        seen, below = seen + count, bound
    return below, True


def hour_view(row: HourRow) -> views.Json:
    """An hour for the API."""

    def percentiles(histogram: Histogram) -> views.Json:
        estimate_by_name = estimates(histogram)
        values = {name: None if beyond else value for name, (value, beyond) in estimate_by_name.items()}
        return {"count": sum(histogram.counts)} | {name: values.get(name) for name, _ in SHARES}

    return {"start": views.time(row.start), "runtime": percentiles(row.runtime), "wait": percentiles(row.wait)}


def length_view(row: QueueLengthRow) -> views.Json:
    """The length of a queue in an hour, for the API."""
    return {"queue": row.queue, "start": views.time(row.start), "mean": row.mean, "longest": row.longest}


def times(rows: Sequence[HourRow], span: Window, zone: tzinfo) -> list[Curves]:
    """Charts of the runtimes and of the waiting times in the queue, as far as they were measured."""
    made = (
        _percentiles("Run time", {row.start: estimates(row.runtime) for row in rows}, span, zone),
        _percentiles("Waiting time in the queue", {row.start: estimates(row.wait) for row in rows}, span, zone),
    )
    return [curves for curves in made if curves is not None]


def table_rows(rows: Iterable[HourRow]) -> list[TimesRow]:
    """The same as table rows, newest hour first."""
    return [
        TimesRow(
            at=str(views.time(row.start)),
            runs=sum(row.runtime.counts),
            runtime=_cells(estimates(row.runtime)),
            waits=sum(row.wait.counts),
            wait=_cells(estimates(row.wait)),
        )
        for row in sorted(rows, key=attrgetter("start"), reverse=True)
    ]


def _percentiles(title: str, hours: Mapping[int, Mapping[str, Estimate]], span: Window, zone: tzinfo) -> Curves | None:
    of_hour, titles = hours_of(zone), []
    values: dict[str, list[Point]] = {name: [] for name, _ in SHARES}
    for start in span.starts:
        estimates_by_name = hours.get(start, {})
        text = ", ".join(f"{name} {_seconds(estimate)}" for name, estimate in estimates_by_name.items())
        titles.append(f"{of_hour(start)}: {text}" if text else "")
        for name, points in values.items():
            points.append(Point("", estimates_by_name[name][0] if name in estimates_by_name else None))
    values_known = [(point.value, at) for at, point in enumerate(values["p99"]) if point.value is not None]
    if not values_known:
        return None
    peak, at = max(values_known)
    period = period_of(span)
    description = f"{title} by hour: p50, p95 and p99. {period}: the slowest hour was {titles[at]}."
    curves = tuple(Curve(name, tuple(points)) for name, points in values.items())
    return Curves(title, period, curves, tuple(titles), description, marks_of(span), peak)


def _cells(estimates_by_name: Mapping[str, Estimate]) -> tuple[str, ...]:
    return tuple(_seconds(estimates_by_name.get(name)) for name, _ in SHARES)


def _seconds(estimate: Estimate | None) -> str:
    if estimate is None:
        return seconds(None)
    value, beyond = estimate
    return f"over {seconds(value)}" if beyond else seconds(value)


@dataclass(frozen=True, slots=True)
class QueueTrends:
    """Lengths of queues by hour."""

    curves: Curves | None
    """The chart of the longest queues."""
    sparklines: Mapping[str, Sequence[tuple[int, int]]]
    """Queue → its maximum length in each of the last 24 hours."""
    longest: Mapping[str, int]
    """Queue → its maximum length in the last 24 hours."""


def queue_trends(reader: Reader, queues: Sequence[str], span: Window, now: float, zone: tzinfo) -> QueueTrends:
    """Trends of the first of these queues. Queries the store."""
    day = window(now, DAY_HOURS)
    lengths = _by_queue(reader, queues[:_LISTED], day)
    longest = {queue: max(row.longest for row in rows.values()) for queue, rows in lengths.items()}
    drawn = sorted(longest, key=lambda queue: (-longest[queue], queue))[:_DRAWN]
    rows_by_queue = lengths if span == day else _by_queue(reader, drawn, span)
    sparklines = {
        queue: [(rows[start].longest if start in rows else 0, 0) for start in day.starts]
        for queue, rows in lengths.items()
    }
    return QueueTrends(
        _lengths({queue: rows_by_queue.get(queue, {}) for queue in drawn}, span, zone), sparklines, longest
    )


def queue_lengths(reader: Reader, queue: str, span: Window, zone: tzinfo) -> Curves | None:
    """The lengths of one queue; None if none are known. Queries the store."""
    rows = _by_queue(reader, [queue], span).get(queue)
    return _lengths({queue: rows}, span, zone) if rows else None


def _by_queue(reader: Reader, queues: Sequence[str], span: Window) -> dict[str, dict[int, QueueLengthRow]]:
    if not queues:
        return {}
    limit = len(queues) * (span.hours + 1)
    rows = reader.queue_lengths(span.first, span.end, step=HOUR, limit=limit, queues=queues).rows
    return {
        queue: {row.start: row for row in queue_rows} for queue, queue_rows in groupby(rows, key=attrgetter("queue"))
    }


def _lengths(drawn: Mapping[str, Mapping[int, QueueLengthRow]], span: Window, zone: tzinfo) -> Curves | None:
    of_hour, period = hours_of(zone), period_of(span)
    points_of_all: list[Any] = [
        (row.longest, queue, start) for queue, rows in drawn.items() for start, row in rows.items()
    ]
    if not points_of_all:
        return None
    titles = []
    for start in span.starts:
        text = ", ".join(f"{queue} {number(rows[start].longest)}" for queue, rows in drawn.items() if start in rows)
        titles.append(f"{of_hour(start)}: at most {text}" if text else "")
    curves = tuple(
        Curve(queue, tuple(Point("", float(rows[start].longest) if start in rows else None) for start in span.starts))
        for queue, rows in drawn.items()
    )
    peak, queue, start = max(points_of_all)
    description = (
        f"Messages that wait in queues, by hour. {period}: at most {number(peak)} in {queue}, {of_hour(start)}."
    )
    return Curves("Queue length", period, curves, tuple(titles), description, marks_of(span), float(peak))
