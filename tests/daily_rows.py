"""The rows of a store for the daily report, from single buckets."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable

from celery_monitor.core.model import FAILED, RETRIED, SUCCEEDED, BucketRow, FailingRow, HistoryRow
from celery_monitor.core.summarize import DAYS_BEFORE, DayRows, day_bounds


def day_rows(buckets: Iterable[BucketRow], date: dt.date, zone: dt.tzinfo) -> DayRows:
    """The rows as DayReport reads them."""
    rows = list(buckets)
    days = [day_bounds(date - dt.timedelta(days=back), zone) for back in range(DAYS_BEFORE, -1, -1)]
    of_days = [[row for row in rows if begin <= row.start < end] for begin, end in days]
    failed = [Counter[str]() for _ in days]
    for day, found in zip(failed, of_days, strict=True):
        for row in found:
            day[row.name] += row.counts[FAILED]
    return DayRows(
        fleet=[HistoryRow("", row.start, row.counts, row.runtime_sum, row.runtime_count) for row in rows],
        failing=[_failing(name, [row for row in of_days[-1] if row.name == name]) for name in +failed[-1]],
        failed=failed[:-1],
    )


def _failing(name: str, rows: list[BucketRow]) -> FailingRow:
    starts = [row.start for row in rows if row.counts[FAILED]]
    succeeded, failed, retried = (sum(row.counts[kind] for row in rows) for kind in (SUCCEEDED, FAILED, RETRIED))
    return FailingRow(name, succeeded, failed, retried, min(starts), max(starts))
