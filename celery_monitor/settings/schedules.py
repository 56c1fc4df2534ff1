"""Settings of schedules: tasks that must run regularly. A missed start opens an incident."""

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, model_validator

from celery_monitor.settings.channels import ChannelName
from celery_monitor.settings.cron import Cron, sample_times, shortest_interval
from celery_monitor.settings.section import FieldError, HttpUrl, Section, Text, TimeZone
from celery_monitor.settings.units import MINUTE, duration


def _whole_name(value: str) -> str:
    if "*" in value or "?" in value:
        raise ValueError("must be the full name of one task; schedules do not support globs: write one for each task")
    return value


class ScheduleSettings(Section):
    """A task that runs regularly. If it does not start in time, an incident with the condition ``missed`` opens."""

    task: Annotated[Text, AfterValidator(_whole_name)]
    """The full name of the task."""
    name: Text | None = None
    """The name of the schedule, in incidents and metrics. Default: the task. Required if a task has several schedules.
    """
    cron: Cron | None = None
    """When the task starts, as a cron expression (minute hour day month weekday) in ``timezone``. Set either this or
    ``every``.
    """
    every: Annotated[float, duration("1s", "366d")] | None = None
    """The time from one start of the task to the next."""
    timezone: TimeZone | None = None
    """The time zone of ``cron``: Celery's ``timezone``. Default: UTC."""
    grace: Annotated[float, duration("1s", "7d")] = 5 * MINUTE
    """How late the task may start. Set it longer than tasks usually wait in its queue."""
    max_runtime: Annotated[float, duration("1s", "30d")] | None = None
    """How long the task may run. Unset: no limit."""
    severity: Literal["critical", "error", "warning", "info"] = "error"
    """The severity of its incidents."""
    runbook_url: HttpUrl | None = None
    """A link to the runbook, shown in the incident."""
    to: tuple[ChannelName, ...] = ()
    """Names of the channels that its incidents go to. Empty: those of ``alerts.to``."""

    @property
    def title(self) -> str:
        """The schedule's name, by default that of its task."""
        return self.name or self.task

    @model_validator(mode="after")
    def _times(self) -> Self:
        if (self.cron is None) == (self.every is None):
            raise FieldError("cron", "set either cron or every, such as 0 3 * * * or 5m")
        if self.cron is None:
            if self.timezone is not None:
                raise FieldError("timezone", "cannot be used with every; remove it")
            return self
        _, _, day, _, weekday = self.cron.split()
        if day != "*" and weekday != "*":
            raise FieldError(
                "cron",
                "has both a day and a weekday: cron matches either, but Celery's crontab matches only both. Use "
                "one of them, or two schedules",
            )
        zone = self.timezone or "UTC"
        if next(sample_times(self.cron, zone), None) is None:
            raise FieldError("cron", "never matches any date, like 30 February")
        if self.grace >= shortest_interval(self.cron, zone):
            raise FieldError("grace", "must be shorter than the time from one start to the next")
        return self


def _unique(value: tuple[ScheduleSettings, ...]) -> tuple[ScheduleSettings, ...]:
    names = Counter(schedule.title for schedule in value)
    if twice := sorted(name for name, count in names.items() if count > 1):
        raise ValueError(f"every schedule needs its own name: set name for the schedules of {', '.join(twice)}")
    if "scheduler" in names:
        raise ValueError("scheduler is the name of the incident for all schedules; give this one another name")
    return value


Schedules = Annotated[tuple[ScheduleSettings, ...], AfterValidator(_unique)]
