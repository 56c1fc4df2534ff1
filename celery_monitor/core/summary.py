"""A day of the fleet as shown by the mail, the web page and the API. Times are Unix seconds, durations seconds.

*Executed* is succeeded plus failed: runs that ended by themselves. It does not include retries, rejections and
revocations. A rate is failed divided by executed, 0 to 1, and None if nothing was executed.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from celery_monitor.core.times import rfc3339

FIRST_DAY: Final = dt.date(2000, 1, 1)
"""Earlier than any Celery event: earlier days are mistakes."""
TOLERANCE: Final = 60.0
"""Seconds of a day that may be unwatched without a warning: a restart of the monitor takes less."""

_TIMES: Final = frozenset({"start", "end", "generated_at", "first_at", "last_at", "opened_at"})


@dataclass(frozen=True, slots=True)
class DayTotals:
    """The counts of one day."""

    executed: int = 0
    failed: int = 0
    retried: int = 0

    @property
    def rate(self) -> float | None:
        """Failed divided by executed."""
        return self.failed / self.executed if self.executed else None


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of ``days`` days; days without any event are excluded."""

    days: int
    executed: float
    failed: float
    retried: float

    @property
    def rate(self) -> float | None:
        """All failures of these days divided by everything executed in them."""
        return self.failed / self.executed if self.executed else None


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour by the local clock: every day has 24 of them.

    The hour that occurs twice in autumn is counted once with both, and the one skipped in spring is empty.
    """

    hour: int
    executed: int
    failed: int
    retried: int


@dataclass(frozen=True, slots=True)
class FailingTask:
    """A task with failures on this day."""

    name: str
    executed: int
    failed: int
    retried: int
    failed_before: int | None
    """Failures on the previous day; None if nothing is known of that day."""
    failed_mean: float | None
    """Mean failures per day; None without a mean."""
    exception: str
    """The most frequent exception class, "" if unknown."""
    exceptions: int
    """Number of distinct exception classes."""
    new_errors: int
    first_at: float
    last_at: float
    """Times of the first and last failure: exact if known, else rounded outward to quarters of an hour."""
    incidents: int
    """Number of incidents opened on this day, without storms."""

    @property
    def rate(self) -> float:
        """Failed divided by executed, which is never 0 here."""
        return self.failed / self.executed


@dataclass(frozen=True, slots=True)
class DayError:
    """Failures of one task with one exception class in one frame of the application."""

    id: str
    task: str
    exception: str
    frame: str
    count: int
    new: bool
    """Whether it was seen on this day for the first time in the retention period; never on the first counted day."""
    uuid: str | None
    """Task ID of the sample; the next three fields are of the same sample."""
    hostname: str
    message: str
    traceback: str
    """The relevant end of the traceback."""


@dataclass(frozen=True, slots=True)
class Undelivered:
    """An incident whose notification has not been delivered."""

    key: str
    task: str
    severity: str
    count: int
    opened_at: float
    error: str | None
    condition: str = "failure"
    """For a condition other than failure, ``task`` is the subject."""


@dataclass(frozen=True, slots=True)
class LostTask:
    """Executions of a task that were lost with their worker."""

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class DayIncidents:
    """Incidents whose first failure was on this day."""

    opened: int
    undelivered: tuple[Undelivered, ...]
    """Always empty if no channel is configured."""
    paging: bool
    """Whether incidents are sent to a channel."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How complete the day's numbers are, from counters with a resolution of a quarter of an hour."""

    elapsed: float
    """Length of the day, or of the part that has passed."""
    uptime: float
    """Seconds in which the monitor ran."""
    gap: float
    """Seconds whose events are lost because the broker kept nothing; may overlap with ``down``."""
    unobserved: int
    """Tasks that workers started but whose events never arrived."""
    unnamed: int
    """Failures of tasks whose name is unknown."""
    restarts: int
    unread: float = 0.0
    """Seconds at the end of a past day whose events may still be in the broker."""
    too_old: int = 0
    """Failures that were too old to page when they were read."""

    @property
    def down(self) -> float:
        """Seconds in which the monitor did not run."""
        return self.elapsed - self.uptime

    @property
    def blind(self) -> bool:
        """Whether no part of the day was watched."""
        return max(self.down, self.gap, self.unread) >= self.elapsed

    @property
    def complete(self) -> bool:
        """Whether the whole day was watched and nothing is known to be missing."""
        return max(self.down, self.unread) <= TOLERANCE and self.gap < 1 and not self.unobserved


@dataclass(frozen=True, slots=True)
class MissedSchedule:
    """A schedule with missed or unknown starts on this day."""

    name: str
    missed: int
    not_judged: int
    """Expected starts for which it is unknown whether they happened, because events of that time are lost."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A local calendar day."""

    fleet: str
    date: dt.date
    timezone: str
    start: int
    end: int
    generated_at: float
    over: bool
    """Whether the day had ended when the summary was generated."""
    day: DayTotals
    before: DayTotals | None
    """The previous day; None if it has no known events."""
    mean: Mean | None
    """Mean of those of the previous seven days that have events."""
    hours: tuple[Hour, ...]
    tasks: tuple[FailingTask, ...]
    """All failing tasks, worst first: by failures, then by rate."""
    errors: tuple[DayError, ...]
    """All error groups: new ones first, then by failures."""
    incidents: DayIncidents
    health: Coverage
    lost: tuple[LostTask, ...] = ()
    """Tasks that were lost with their worker, most first. They count neither as failed nor as executed."""
    schedules: tuple[MissedSchedule, ...] = ()
    """Schedules with missed starts, most first; then those with unknown ones."""
    silenced: int = 0
    """Failures covered by a silence or a mute window."""

    @property
    def missed(self) -> int:
        """Expected starts that did not happen."""
        return sum(schedule.missed for schedule in self.schedules)

    @property
    def new_errors(self) -> int:
        """Number of error groups that were first seen on this day."""
        return sum(error.new for error in self.errors)

    @property
    def unknown(self) -> bool:
        """Whether nothing was watched or counted, so that no numbers are shown instead of zeros."""
        return self.health.blind and not self.day.executed

    @property
    def quiet(self) -> bool:
        """Whether nothing failed and the day was completely watched."""
        failed = self.day.failed or self.missed or self.lost or self.incidents.undelivered
        return not failed and self.health.complete


def summary_to_dict(summary: Summary) -> dict[str, Any]:
    """The summary for JSON: times in RFC 3339 (UTC), durations in seconds, rates from 0 to 1."""
    document: dict[str, Any] = _plain(msgspec.to_builtins(summary))
    for part, value in (("day", summary.day), ("before", summary.before), ("mean", summary.mean)):
        if value is not None:
            document[part]["rate"] = value.rate
    for row, task in zip(document["tasks"], summary.tasks, strict=True):
        row["rate"] = task.rate
    document["health"]["complete"] = summary.health.complete
    document["new_errors"] = summary.new_errors
    return document


def _plain(value: Any, key: str = "") -> Any:  # noqa: ANN401  # any part of a document
    if isinstance(value, dict):
        return {name: _plain(item, name) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if key in _TIMES:
        return rfc3339(value, "auto")
    return value
