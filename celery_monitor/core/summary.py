"""A day of the fleet, as the mail, the page and the API tell it. Times are unix seconds, durations seconds.

*Executed* is succeeded plus failed: the runs that came to an end of their own. Retries, rejections and
revocations are not in it. A rate is failed by executed, 0 to 1, and None where nothing was executed.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from celery_monitor.core.times import rfc3339

TOLERANCE: Final = 60.0
"""Seconds that a day may be unwatched without a word: a restart of the monitor takes less."""

_TIMES: Final = frozenset({"start", "end", "generated_at", "first_at", "last_at", "opened_at"})


@dataclass(frozen=True, slots=True)
class DayTotals:
    """The counts of one day."""

    executed: int = 0
    failed: int = 0
    retried: int = 0

    @property
    def rate(self) -> float | None:
        """Failed by executed."""
        return self.failed / self.executed if self.executed else None


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean day of ``days`` days; those without a single event are not among them."""

    days: int
    executed: float
    failed: float
    retried: float

    @property
    def rate(self) -> float | None:
        """All failures of these days by all that was executed in them."""
        return self.failed / self.executed if self.executed else None


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour of the strip, by the local clock: 24 of them in every day.

    The hour that comes twice in autumn holds both, the one that is left out in spring holds nothing.
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
    """On the day before; None when nothing at all is known of it."""
    failed_mean: float | None
    """Of the mean day; None without one."""
    exception: str
    """The class that most of the failures had, "" when unknown."""
    exceptions: int
    """Different classes."""
    new_errors: int
    first_at: float
    last_at: float
    """All failures lie between them. To the second where that is known, else to the quarter of an hour."""
    incidents: int
    """Opened on this day, not counting storms."""

    @property
    def rate(self) -> float:
        """Failed by executed, which is never 0 here."""
        return self.failed / self.executed


@dataclass(frozen=True, slots=True)
class DayError:
    """Failures of one task with one exception class at one place of the application."""

    id: str
    task: str
    exception: str
    frame: str
    count: int
    new: bool
    """Seen on this day for the first time within the retention."""
    uuid: str | None
    """Of the sample, as the next three."""
    hostname: str
    message: str
    traceback: str
    """Its useful end."""


@dataclass(frozen=True, slots=True)
class Undelivered:
    """An incident that was to be paged, and the receiver does not have it."""

    key: str
    task: str
    severity: str
    count: int
    opened_at: float
    error: str | None
    condition: str = "failure"
    """Of another one, ``task`` is its subject."""


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
    """Always empty when nobody is to be paged."""
    paging: bool
    """Somebody is to be paged."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Whether the day's numbers can be trusted. From counters that are kept by the quarter of an hour."""

    elapsed: float
    """Length of the day, or of the part of it that is over."""
    uptime: float
    """The monitor ran."""
    gap: float
    """What happened meanwhile is lost, for the broker keeps nothing; it may be in ``down`` as well."""
    unobserved: int
    """Tasks that workers say they began, and whose events never came."""
    unnamed: int
    """Failures of tasks whose name is not known."""
    restarts: int
    unread: float = 0.0
    """The end of a day that is over, which the broker may still hold events of."""
    too_old: int = 0
    """Failures that were too old to page anybody when they were read."""

    @property
    def down(self) -> float:
        """Seconds that the monitor did not run."""
        return self.elapsed - self.uptime

    @property
    def blind(self) -> bool:
        """Nothing of the day was watched."""
        return max(self.down, self.gap, self.unread) >= self.elapsed

    @property
    def complete(self) -> bool:
        """The whole day was watched, and nothing is known to be missing."""
        return max(self.down, self.unread) <= TOLERANCE and self.gap < 1 and not self.unobserved


@dataclass(frozen=True, slots=True)
class MissedSchedule:
    """A schedule that did not start as expected on this day."""

    name: str
    missed: int
    not_judged: int
    """Expected starts of which it is not known, because events of that time are lost."""


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
    """The day had ended when this was made."""
    day: DayTotals
    before: DayTotals | None
    """The day before; None when not a single event of it is known."""
    mean: Mean | None
    """Of those of the seven days before that have any events."""
    hours: tuple[Hour, ...]
    tasks: tuple[FailingTask, ...]
    """All failing tasks, worst first: by failures, then by rate."""
    errors: tuple[DayError, ...]
    """All error groups: new ones first, then by failures."""
    incidents: DayIncidents
    health: Coverage
    lost: tuple[LostTask, ...] = ()
    """Tasks that were lost with their worker, most first. They are neither failed nor executed."""
    schedules: tuple[MissedSchedule, ...] = ()
    """Those that have missed, the most first; then those of which it is not known."""
    silenced: int = 0
    """Failures that a silence or a mute window covered."""

    @property
    def missed(self) -> int:
        """Expected starts that did not happen."""
        return sum(schedule.missed for schedule in self.schedules)

    @property
    def new_errors(self) -> int:
        """Error groups that were never seen before in the retention."""
        return sum(error.new for error in self.errors)

    @property
    def unknown(self) -> bool:
        """Nothing was watched and nothing was counted: no numbers, rather than zeros."""
        return self.health.blind and not self.day.executed

    @property
    def quiet(self) -> bool:
        """Nothing failed, and that can be trusted."""
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
