"""A day's summary out of the store."""

import datetime as dt
import math
from collections.abc import Iterator
from itertools import chain
from typing import Final

from celery_monitor.core.model import CounterName
from celery_monitor.core.summarize import DAYS_BEFORE, day_bounds, summarize
from celery_monitor.core.summary import Summary
from celery_monitor.ports import Reader

MAX_INCIDENTS: Final = 10_000


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
        days = [day_bounds(date - dt.timedelta(days=back), self._zone) for back in range(DAYS_BEFORE + 1)]
        # The newest there is, for ``now`` may be long ago; and before the rest, so that it promises no more than that.
        read_until = self._reader.counters(math.inf).get(CounterName.READ_UNTIL)
        return summarize(
            date=date,
            zone=self._zone,
            fleet=self._fleet,
            buckets=chain.from_iterable(self._reader.buckets(*chunk) for day in days for chunk in _chunks(*day)),
            groups=self._reader.groups(start, end),
            incidents=self._reader.incidents(since=start, until=end, limit=MAX_INCIDENTS),
            counters=(self._reader.counters(start), self._reader.counters(min(end, now))),
            now=now,
            read_until=read_until,
            paging=self._paging,
        )
