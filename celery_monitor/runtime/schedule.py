"""Decides when the daily report is due, and for which day.

At each time of the cron expression the newest complete local day is reported: the day before the local date. A report
is queued as an outbox row, which exists at most once per date, so a report that is due twice, by two schedules or after
a crash, is sent once. After downtime only the newest missed day is reported, because nobody reads a pile of old mails.
It is not queued before the events of that day that the broker has kept are counted.
"""

import datetime as dt
import math
from typing import Final

import structlog
from cronsim import CronSim

from celery_monitor.core.model import BUCKET_SECONDS, Action, CounterName, OutboxRequest
from celery_monitor.core.summarize import day_bounds
from celery_monitor.errors import StoreUnavailableError
from celery_monitor.ports import Outbox, Reader

RETRY: Final = 10.0
"""Seconds until queueing a report is retried after the store failed."""
SETTLE: Final = 60.0
"""Seconds after midnight before a day is summarized, because its last events may still arrive."""
CHECK_INTERVAL: Final = 1.0
"""Seconds between two checks whether the stream has been read to the end of the day."""
MAX_REPORT_DELAY: Final = 3600.0
"""Maximum seconds that a report waits for that. If the broker is down the report is sent anyway, and says so."""
NEVER: Final = 366 * 86_400.0
"""Seconds until an expression without a next time is evaluated again."""

_log: Final = structlog.get_logger()


def last_due(expression: str, zone: dt.tzinfo, now: float) -> float | None:
    """The newest time of the expression that is not after ``now``; None when there is none."""
    # The search starts a second later, because it only returns times before its start.
    times = CronSim(expression, dt.datetime.fromtimestamp(int(now) + 1, zone), reverse=True)
    return next((at.timestamp() for at in times if at.timestamp() <= now), None)


def next_due(expression: str, zone: dt.tzinfo, now: float) -> float | None:
    """The earliest time of the expression after ``now``; None when there is none."""
    # In the hour that occurs twice, the next time by the local clock can be an hour ago.
    times = CronSim(expression, dt.datetime.fromtimestamp(int(now), zone))
    return next((at.timestamp() for at in times if at.timestamp() > now), None)


def reported_date(expression: str, zone: dt.tzinfo, due_at: float) -> dt.date:
    """The local day before the day of the expression's time ``due_at``: the last one that is complete then.

    If the clock skips the last hour of a day (Nuuk, Scoresbysund), a time in it is due at midnight but belongs to that
    day.
    """
    due_on = dt.datetime.fromtimestamp(due_at, zone).date()
    before = dt.datetime.fromtimestamp(due_at - 1, zone).replace(tzinfo=None)
    on_calendar = next(CronSim(expression, before)).date()  # as if no clock was changed
    # It is later than due_at if the clock was set back to due_at from midnight.
    return min(due_on, on_calendar) - dt.timedelta(days=1)


class ReportSchedule:
    """Queues each day's report in the outbox when it is due. Belongs to one thread."""

    def __init__(
        self, outbox: Outbox, reader: Reader, channel: str, expression: str, zone: dt.tzinfo, *, new: bool = False
    ) -> None:
        """``channel`` carries the report. ``new``: the store was empty when the monitor started."""
        self._outbox = outbox
        self._reader = reader
        self._channel = channel
        self._expression = expression
        self._zone = zone
        self._first = True
        self._new = new
        self._claimed: dt.date | None = None
        self._waiting_since: float | None = None

    def run_once(self, now: float) -> float:
        """Queue a report that is due. Returns when to call again, in Unix seconds (earlier does no harm)."""
        due_at = last_due(self._expression, self._zone, now)
        date = reported_date(self._expression, self._zone, due_at) if due_at is not None else None
        if due_at is not None and date is not None and date != self._claimed:
            try:
                if not self._claim(date, due_at, now):
                    return now + CHECK_INTERVAL
            except StoreUnavailableError as exc:
                _log.warning("Cannot queue the report; retrying", date=str(date), error=str(exc))
                return now + RETRY
            self._claimed = date
            self._waiting_since = None
        self._first = False
        return next_due(self._expression, self._zone, now) or now + NEVER

    def _claim(self, date: dt.date, due_at: float, now: float) -> bool:
        """Queue the report of a day; False if it has to wait."""
        # Counters are stored per quarter of an hour, at its last update, so they may be that much newer.
        # Before the first report, or if the clock was set back, an older day may be due.
        may_precede = self._first or (self._claimed is not None and date < self._claimed)
        is_new = self._first and self._new
        if may_precede and (is_new or not self._reader.counters(due_at + BUCKET_SECONDS)):
            return True  # a new monitor did not exist when this was due, so it missed nothing
        end = day_bounds(date, self._zone)[1]
        if not self._may_claim(end, now):
            return False
        complete_at = end + SETTLE
        entry = OutboxRequest(self._channel, str(date), Action.REPORT, due_at=complete_at if complete_at > now else 0.0)
        if self._outbox.enqueue(entry, now):
            _log.info("The report is due", date=str(date), late=round(now - due_at))
        return True

    def _may_claim(self, end: float, now: float) -> bool:
        """Whether the stream has been read to the end of the day, or MAX_REPORT_DELAY has passed."""
        read_until = self._reader.counters(math.inf).get(CounterName.READ_UNTIL)
        if read_until is None or read_until >= end:
            return True
        if self._waiting_since is None:
            self._waiting_since = now
            _log.info("The report waits until the event stream has been read to the end of its day")
        return now - self._waiting_since >= MAX_REPORT_DELAY
