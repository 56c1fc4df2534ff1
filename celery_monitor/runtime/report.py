"""A day's summary out of the store."""

import datetime as dt
import math
from collections.abc import Iterator
from itertools import chain
from typing import Final

from celery_monitor.core.model import BucketRow, CounterName
from celery_monitor.core.summarize import DAYS_BEFORE, day_bounds, summarize
from celery_monitor.core.summary import Summary
from celery_monitor.ports import Reader

MAX_INCIDENTS: Final = 10_000
_MAX_TASKS: Final = 1_000_000
"""Tasks and queues of a day: far more than metrics.max_series lets in."""


_CHUNK_SIZE: Final = 3600.0
"""Seconds of buckets that are in memory at a time: of a whole day they would be 300 MB at the bound of series."""


def _chunks(start: float, end: float) -> Iterator[tuple[float, float]]:
    while start < end:
        yield start, min(start + _CHUNK_SIZE, end)
        start += _CHUNK_SIZE


class DayReport:
    """Summaries of a fleet's local days. For any thread."""

    def __init__(self, reader: Reader, fleet: str, zone: dt.tzinfo, *, paging: bool) -> None:
        """``paging``: somebody is to be paged, so that an incident can be undelivered."""
        self._reader = reader
        self._fleet = fleet
        self._zone = zone
        self._paging = paging

    def summary(self, date: dt.date, now: float) -> Summary:
        """The day as it is known at ``now``. Raises StoreUnavailableError."""
        start, end = day_bounds(date, self._zone)
        # The newest there is, for ``now`` may be long ago; and before the rest, so that it promises no more than that.
        read_until = self._reader.counters(math.inf).get(CounterName.READ_UNTIL)
        return summarize(
            date=date,
            zone=self._zone,
            fleet=self._fleet,
            buckets=chain(
                chain.from_iterable(self._reader.buckets(*chunk) for chunk in _chunks(start, end)),
                *(self._whole_day(date - dt.timedelta(days=back)) for back in range(1, DAYS_BEFORE + 1)),
            ),
            groups=self._reader.groups(start, end),
            incidents=self._reader.incidents(since=start, until=end, limit=MAX_INCIDENTS).rows,
            counters=(self._reader.counters(start), self._reader.counters(min(end, now))),
            now=now,
            read_until=read_until,
            paging=self._paging,
        )

    def _whole_day(self, date: dt.date) -> Iterator[BucketRow]:
        """An earlier day, of which only the sums count: the store adds them up, which takes a tenth of the time."""
        start, end = day_bounds(date, self._zone)
        for row in self._reader.tasks(since=start, until=end, limit=_MAX_TASKS).rows:
            yield BucketRow(start, row.name, row.queue, row.counts, row.runtime_sum, row.runtime_count)
