"""Summarizes a local calendar day from 15-minute buckets. A day runs from midnight to midnight: 23 to 25 hours.

All current time zone offsets are multiples of 15 minutes, so no bucket spans a midnight and the sums are exact. The day
is compared with the previous day, and with the mean of the previous seven days without those that have no events, as
they may be from before the monitor was installed.
"""

import datetime as dt
import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from celery_monitor.core.excerpt import relevant_tail
from celery_monitor.core.model import (
    BUCKET_SECONDS,
    FAILED,
    RETRIED,
    SUCCEEDED,
    Condition,
    CounterFamily,
    CounterName,
    FailingRow,
    GroupRow,
    HistoryRow,
    IncidentRow,
    IncidentState,
)
from celery_monitor.core.summary import (
    Coverage,
    DayError,
    DayIncidents,
    DayTotals,
    FailingTask,
    Hour,
    LostTask,
    Mean,
    MissedSchedule,
    Summary,
    Undelivered,
)

DAYS_BEFORE: Final = 7
"""Number of earlier days that the buckets must cover."""
_TODAY: Final = DAYS_BEFORE


def day_bounds(date: dt.date, zone: dt.tzinfo) -> tuple[int, int]:
    """Start and end of the local day, [start, end) in Unix seconds.

    If midnight is skipped (some zones change at 00:00), the day starts at the change; if it occurs twice, at the first.
    """
    midnight = dt.time()
    start, end = (dt.datetime.combine(day, midnight, zone).timestamp() for day in (date, date + dt.timedelta(days=1)))
    return int(start), int(end)


@dataclass(frozen=True, slots=True)
class DayRows:
    """What ran on a day and on the previous DAYS_BEFORE days, as the store sums it up."""

    fleet: Iterable[HistoryRow]
    """Totals of all tasks by bucket, in any order. Buckets of other days are ignored."""
    failing: Sequence[FailingRow]
    """The day's failing tasks."""
    failed: Sequence[Mapping[str, int]]
    """Failures by task of each previous day, oldest first."""


def summarize(
    *,
    date: dt.date,
    zone: dt.tzinfo,
    fleet: str,
    rows: DayRows,
    groups: Sequence[GroupRow],
    incidents: Sequence[IncidentRow],
    counters: tuple[Mapping[str, float], Mapping[str, float]],
    now: float,
    counted_since: float | None,
    read_until: float | None = None,
    paging: bool = True,
) -> Summary:
    """The day's summary.

    Args:
        date: The local day.
        zone: Its time zone.
        fleet: The fleet's name.
        rows: What ran.
        groups: Error groups with failures on the day.
        incidents: Incidents; those whose first failure was not on the day are ignored.
        counters: The monitor's own counters at the day's start and at its end.
        now: Unix seconds.
        counted_since: When counting began; None if nothing is counted. On a day that begins before it no error is new,
            because the earlier errors are unknown.
        read_until: Time before which all published events are counted; None if unknown.
        paging: Whether incidents are sent to a channel; otherwise none counts as undelivered.
    """
    start, end = day_bounds(date, zone)
    sums = _Sums(date, zone)
    for row in rows.fleet:
        sums.add(row)
    opened = [
        row
        for row in incidents
        if row.incident.state is not IncidentState.SUPPRESSED and start <= row.incident.first_at < end
    ]
    new_since = start if counted_since is not None and counted_since < start else math.inf
    errors = sorted(
        (_error(row, new_since) for row in groups), key=lambda error: (not error.new, -error.count, error.id)
    )
    return Summary(
        fleet=fleet,
        date=date,
        timezone=str(zone),
        start=start,
        end=end,
        generated_at=now,
        over=now >= end,
        day=sums.totals(_TODAY),
        before=sums.day_before(),
        mean=sums.mean(),
        hours=sums.hours(),
        tasks=tuple(_failing(sums, rows, errors, _moments(groups, incidents), opened)),
        errors=tuple(errors),
        incidents=_incidents(opened, paging=paging),
        schedules=_schedules(*counters),
        silenced=round(_grown(*counters, CounterName.SILENCED_FAILURES)),
        health=_health(*counters, max(0.0, min(now, end) - start), _unread(start, end, now, read_until)),
        lost=_lost(*counters),
    )


class _Sums:
    """Sums all tasks by day and by hour of the day."""

    def __init__(self, date: dt.date, zone: dt.tzinfo) -> None:
        days = [date - dt.timedelta(days=back) for back in range(DAYS_BEFORE, -1, -1)]
        self._zone = zone
        self._edges = [day_bounds(day, zone)[0] for day in days]
        self._end = day_bounds(date, zone)[1]
        self._days = [Counter[int]() for _ in days]
        self._hours = [Counter[int]() for _ in range(24)]
        self._hour_of: dict[int, int] = {}

    def add(self, row: HistoryRow) -> None:
        day = bisect_right(self._edges, row.start) - 1
        if day < 0 or row.start >= self._end:
            return
        counts = {kind: row.counts[kind] for kind in (SUCCEEDED, FAILED, RETRIED)}
        self._days[day].update(counts)
        if day == _TODAY:
            self._hours[self._hour(row.start)].update(counts)

    def _hour(self, at: int) -> int:
        if at not in self._hour_of:
            self._hour_of[at] = dt.datetime.fromtimestamp(at, self._zone).hour
        return self._hour_of[at]

    def totals(self, day: int) -> DayTotals:
        return _totals(self._days[day])

    def day_before(self) -> DayTotals | None:
        return self.totals(_TODAY - 1) if self._days[_TODAY - 1] else None

    def mean(self) -> Mean | None:
        known_days = [self.totals(day) for day in range(_TODAY) if self._days[day]]
        if not known_days:
            return None
        size = len(known_days)
        return Mean(
            days=size,
            executed=sum(day.executed for day in known_days) / size,
            failed=sum(day.failed for day in known_days) / size,
            retried=sum(day.retried for day in known_days) / size,
        )

    def hours(self) -> tuple[Hour, ...]:
        totals = map(_totals, self._hours)
        return tuple(Hour(hour, total.executed, total.failed, total.retried) for hour, total in enumerate(totals))


def _totals(counts: Counter[int]) -> DayTotals:
    return DayTotals(counts[SUCCEEDED] + counts[FAILED], counts[FAILED], counts[RETRIED])


def _failing(
    sums: _Sums,
    rows: DayRows,
    errors: Sequence[DayError],
    moments: Mapping[str, Sequence[float]],
    opened: Sequence[IncidentRow],
) -> list[FailingTask]:
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    new: Counter[str] = Counter()
    for error in errors:
        classes[error.task][error.exception] += error.count
        new[error.task] += error.new
    incidents = Counter(row.incident.task for row in opened if _is_of_failures(row))
    before, mean = sums.day_before(), sums.mean()
    tasks = []
    for row in rows.failing:
        first_at, last_at = _between(row, moments.get(row.name, ()))
        top = classes[row.name].most_common(1)
        earlier = [day.get(row.name, 0) for day in rows.failed]
        tasks.append(
            FailingTask(
                name=row.name,
                executed=row.succeeded + row.failed,
                failed=row.failed,
                retried=row.retried,
                failed_before=earlier[-1] if before else None,
                failed_mean=sum(earlier) / mean.days if mean else None,
                exception=top[0][0] if top else "",
                exceptions=len(classes[row.name]),
                new_errors=new[row.name],
                first_at=first_at,
                last_at=last_at,
                incidents=incidents[row.name],
            )
        )
    return sorted(tasks, key=lambda task: (-task.failed, -task.rate, task.name))


def _moments(groups: Iterable[GroupRow], incidents: Iterable[IncidentRow]) -> Mapping[str, Sequence[float]]:
    """Task name → exact times of some of its failures."""
    moments: dict[str, list[float]] = defaultdict(list)
    for group in groups:
        moments[group.name] += (group.first_at, group.last_at)
    for row in filter(_is_of_failures, incidents):
        moments[row.incident.task] += (row.incident.first_at, row.incident.last_at)
    return moments


def _is_of_failures(row: IncidentRow) -> bool:
    """Whether the incident is about failures of one task."""
    return row.incident.condition is Condition.FAILURE and not row.incident.is_storm


def _between(row: FailingRow, moments: Sequence[float]) -> tuple[float, float]:
    """First and last failure in these buckets: exact if in ``moments``, else the edges of the buckets."""
    first, last = row.first, row.last
    opening = [at for at in moments if first <= at < first + BUCKET_SECONDS]
    closing = [at for at in moments if last <= at < last + BUCKET_SECONDS]
    return min(opening, default=float(first)), max(closing, default=float(last + BUCKET_SECONDS))


def _error(row: GroupRow, new_since: float) -> DayError:
    sample = row.sample
    return DayError(
        id=row.id,
        task=row.name,
        exception=row.exception,
        frame=row.frame,
        count=row.count,
        new=row.first_at >= new_since,
        uuid=sample.uuid if sample else None,
        hostname=sample.hostname if sample else "",
        message=sample.message if sample else "",
        traceback=relevant_tail(sample.traceback, row.frame) if sample else "",
    )


def _incidents(opened: Sequence[IncidentRow], *, paging: bool) -> DayIncidents:
    waiting = [row for row in opened if row.delivered_at is None] if paging else []
    return DayIncidents(
        opened=len(opened),
        undelivered=tuple(
            Undelivered(
                key=row.incident.key,
                task=row.incident.subject or row.incident.task,
                severity=row.incident.severity.value,
                count=row.incident.count,
                opened_at=row.incident.opened_at,
                error=row.error,
                condition=row.incident.condition.value,
            )
            for row in waiting
        ),
        paging=paging,
    )


def _lost(opening: Mapping[str, float], closing: Mapping[str, float]) -> tuple[LostTask, ...]:
    before = CounterFamily.LOST.of(opening)
    grown = [(name, round(number - before.get(name, 0.0))) for name, number in CounterFamily.LOST.of(closing).items()]
    return tuple(
        LostTask(name, number) for name, number in sorted(grown, key=lambda pair: (-pair[1], pair[0])) if number > 0
    )


def _unread(start: int, end: int, now: float, read_until: float | None) -> float:
    if now < end or read_until is None:
        return 0.0
    return max(0.0, end - max(start, read_until))


def _grown(opening: Mapping[str, float], closing: Mapping[str, float], name: str) -> float:
    return max(0.0, closing.get(name, 0.0) - opening.get(name, 0.0))


def _schedules(opening: Mapping[str, float], closing: Mapping[str, float]) -> tuple[MissedSchedule, ...]:
    families = CounterFamily.MISSED, CounterFamily.UNJUDGED
    names = {name for family in families for name in family.of(closing)}
    rows = [
        MissedSchedule(name, *(round(_grown(opening, closing, family.counter(name))) for family in families))
        for name in sorted(names)
    ]
    affected = [row for row in rows if row.missed or row.not_judged]
    return tuple(sorted(affected, key=lambda row: (-row.missed, -row.not_judged)))


def _health(opening: Mapping[str, float], closing: Mapping[str, float], elapsed: float, unread: float) -> Coverage:
    def grown(name: str) -> float:
        return max(0.0, closing.get(name, 0.0) - opening.get(name, 0.0))

    return Coverage(
        elapsed=elapsed,
        uptime=min(elapsed, grown(CounterName.UPTIME)),
        gap=min(elapsed, grown(CounterName.STREAM_GAP)),
        unobserved=round(grown(CounterName.UNOBSERVED)),
        unnamed=round(grown(CounterName.UNNAMED_FAILURES)),
        restarts=round(grown(CounterName.STARTS)),
        unread=unread,
        too_old=round(grown(CounterName.TOO_OLD_FAILURES)),
    )
