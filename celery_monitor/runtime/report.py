"""Builds the summary of a day from the store."""

import datetime as dt
import math
from typing import Final

from celery_monitor.core.model import BUCKET_SECONDS, CounterName
from celery_monitor.core.summarize import DAYS_BEFORE, DayRows, day_bounds, summarize
from celery_monitor.core.summary import Summary
from celery_monitor.ports import Reader
from celery_monitor.runtime.day_sums import DaySums

MAX_INCIDENTS: Final = 10_000
MAX_SAMPLES: Final = 200
"""Errors with message and traceback; no page or mail shows more."""


class DayReport:
    """Summaries of days in a fleet's local time zone. Safe from several threads."""

    def __init__(self, reader: Reader, fleet: str, zone: dt.tzinfo, *, paging: bool) -> None:
        """``paging``: whether incidents are sent to anyone, so that one can be undelivered."""
        self._reader = reader
        self._fleet = fleet
        self._zone = zone
        self._paging = paging
        self._sums = DaySums(reader)

    def summary(self, date: dt.date, now: float) -> Summary:
        """The summary of a day as known at ``now`` (Unix seconds). Raises StoreUnavailableError."""
        start, end = day_bounds(date, self._zone)
        # The newest value, for ``now`` may be long ago; read first, so that it never claims more than the rest holds.
        read_until = self._reader.counters(math.inf).get(CounterName.READ_UNTIL)
        return summarize(
            date=date,
            zone=self._zone,
            fleet=self._fleet,
            rows=self._rows(date, now),
            groups=self._reader.groups(start, end, samples=MAX_SAMPLES, new_first=True),
            incidents=self._reader.incidents(since=start, until=end, limit=MAX_INCIDENTS).rows,
            counters=(self._reader.counters(start), self._reader.counters(min(end, now))),
            now=now,
            counted_since=self._reader.counted_since(),
            read_until=read_until,
            paging=self._paging,
        )

    def prepare(self, date: dt.date, now: float) -> bool:
        """Cache what takes longest for the day's summary. Returns whether the day before is to be cached, too.

        It is not if there is no space for it, or if the store begins with this day.

        Raises StoreUnavailableError.
        """
        start, end = day_bounds(date, self._zone)
        self._sums.failing(start, end, self._reader.history(start, end, step=BUCKET_SECONDS), now)
        since = self._reader.counted_since()
        return not self._sums.full and since is not None and since < start

    def _rows(self, date: dt.date, now: float) -> DayRows:
        """The rows of a day, added up by the store: a large fleet has 50,000 buckets a day."""
        days = [day_bounds(date - dt.timedelta(days=back), self._zone) for back in range(DAYS_BEFORE, -1, -1)]
        (*before, day) = days
        fleet = self._reader.history(days[0][0], day[1], step=BUCKET_SECONDS)
        return DayRows(
            fleet=fleet,
            failing=self._sums.failing(*day, fleet, now),
            failed=[self._sums.failed(*bounds, fleet) for bounds in before],
        )
