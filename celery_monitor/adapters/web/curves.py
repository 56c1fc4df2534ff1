"""Run times, waiting times and queue lengths by hour as they are drawn, told and listed."""

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
"""Queues in one picture."""
_LISTED: Final = 50
"""Queues whose lengths are read: those that the overview shows first."""
Estimate = tuple[float, bool]
"""Seconds, and whether it is more than that: beyond the last bound of the histogram."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a picture."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Curves:
    """A picture of some values by hour."""

    title: str
    period: str
    curves: tuple[Curve, ...]
    titles: tuple[str, ...]
    """Of each hour."""
    told: str
    marks: tuple[Mark, ...]
    peak: float


@dataclass(frozen=True, slots=True)
class TimesRow:
    """An hour in the table below the pictures."""

    at: str
    runs: int
    runtime: tuple[str, ...]
    waits: int
    wait: tuple[str, ...]


def estimates(histogram: Histogram) -> dict[str, Estimate]:
    """The percentiles, as Prometheus's histogram_quantile estimates them; {} of nothing."""
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

    def told(histogram: Histogram) -> views.Json:
        found = estimates(histogram)
        values = {name: None if beyond else value for name, (value, beyond) in found.items()}
        return {"count": sum(histogram.counts)} | {name: values.get(name) for name, _ in SHARES}

    return {"start": views.time(row.start), "runtime": told(row.runtime), "wait": told(row.wait)}


def length_view(row: QueueLengthRow) -> views.Json:
    """The length of a queue in an hour, for the API."""
    return {"queue": row.queue, "start": views.time(row.start), "mean": row.mean, "longest": row.longest}


def times(rows: Sequence[HourRow], shown: Window, zone: tzinfo) -> list[Curves]:
    """Of a task: run times, and waiting times in the queue; those that were measured."""
    made = (
        _percentiles("Run time", {row.start: estimates(row.runtime) for row in rows}, shown, zone),
        _percentiles("Waiting time in the queue", {row.start: estimates(row.wait) for row in rows}, shown, zone),
    )
    return [curves for curves in made if curves is not None]


def listed(rows: Iterable[HourRow]) -> list[TimesRow]:
    """The same in figures, the newest hour first."""
    return [
        TimesRow(
            at=str(views.time(row.start)),
            runs=sum(row.runtime.counts),
            runtime=_told(estimates(row.runtime)),
            waits=sum(row.wait.counts),
            wait=_told(estimates(row.wait)),
        )
        for row in sorted(rows, key=attrgetter("start"), reverse=True)
    ]


def _percentiles(title: str, hours: Mapping[int, Mapping[str, Estimate]], shown: Window, zone: tzinfo) -> Curves | None:
    of_hour, titles = hours_of(zone), []
    values: dict[str, list[Point]] = {name: [] for name, _ in SHARES}
    for start in shown.starts:
        found = hours.get(start, {})
        said = ", ".join(f"{name} {_seconds(estimate)}" for name, estimate in found.items())
        titles.append(f"{of_hour(start)}: {said}" if said else "")
        for name, points in values.items():
            points.append(Point("", found[name][0] if name in found else None))
    known = [(point.value, at) for at, point in enumerate(values["p99"]) if point.value is not None]
    if not known:
        return None
    peak, at = max(known)
    period = period_of(shown)
    told = f"{title} by hour: p50, p95 and p99. {period}: the slowest hour was {titles[at]}."
    curves = tuple(Curve(name, tuple(points)) for name, points in values.items())
    return Curves(title, period, curves, tuple(titles), told, marks_of(shown), peak)


def _told(found: Mapping[str, Estimate]) -> tuple[str, ...]:
    return tuple(_seconds(found.get(name)) for name, _ in SHARES)


def _seconds(estimate: Estimate | None) -> str:
    if estimate is None:
        return seconds(None)
    value, beyond = estimate
    return f"over {seconds(value)}" if beyond else seconds(value)


@dataclass(frozen=True, slots=True)
class QueueTrends:
    """Lengths of queues by hour."""

    curves: Curves | None
    """Of the longest ones."""
    sparks: Mapping[str, Sequence[tuple[int, int]]]
    """Queue → its greatest length in each of the last 24 hours."""
    longest: Mapping[str, int]
    """Queue → its greatest length in these."""


def queue_trends(reader: Reader, queues: Sequence[str], shown: Window, now: float, zone: tzinfo) -> QueueTrends:
    """Of the first of these queues. Asks the store."""
    day = window(now, DAY_HOURS)
    lengths = _by_queue(reader, queues[:_LISTED], day)
    longest = {queue: max(row.longest for row in rows.values()) for queue, rows in lengths.items()}
    drawn = sorted(longest, key=lambda queue: (-longest[queue], queue))[:_DRAWN]
    wanted = lengths if shown == day else _by_queue(reader, drawn, shown)
    sparks = {
        queue: [(rows[start].longest if start in rows else 0, 0) for start in day.starts]
        for queue, rows in lengths.items()
    }
    return QueueTrends(_lengths({queue: wanted.get(queue, {}) for queue in drawn}, shown, zone), sparks, longest)


def _by_queue(reader: Reader, queues: Sequence[str], shown: Window) -> dict[str, dict[int, QueueLengthRow]]:
    if not queues:
        return {}
    most = len(queues) * (shown.hours + 1)
    rows = reader.queue_lengths(shown.first, shown.end, step=HOUR, limit=most, queues=queues).rows
    return {queue: {row.start: row for row in each} for queue, each in groupby(rows, key=attrgetter("queue"))}


def _lengths(drawn: Mapping[str, Mapping[int, QueueLengthRow]], shown: Window, zone: tzinfo) -> Curves | None:
    of_hour, period = hours_of(zone), period_of(shown)
    every: list[Any] = [(row.longest, queue, start) for queue, rows in drawn.items() for start, row in rows.items()]
    if not every:
        return None
    titles = []
    for start in shown.starts:
        said = ", ".join(f"{queue} {number(rows[start].longest)}" for queue, rows in drawn.items() if start in rows)
        titles.append(f"{of_hour(start)}: at most {said}" if said else "")
    curves = tuple(
        Curve(queue, tuple(Point("", float(rows[start].longest) if start in rows else None) for start in shown.starts))
        for queue, rows in drawn.items()
    )
    peak, queue, start = max(every)
    told = f"Messages that wait in queues, by hour. {period}: at most {number(peak)} in {queue}, {of_hour(start)}."
    return Curves("Queue length", period, curves, tuple(titles), told, marks_of(shown), float(peak))
