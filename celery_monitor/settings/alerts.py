"""Which failures page, how they are grouped, and how often."""

import string
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from celery_monitor.settings.channels import ChannelName
from celery_monitor.settings.cron import Cron, never_end, sample_times
from celery_monitor.settings.pagerduty import RoutingKey, RoutingKeyFile
from celery_monitor.settings.secret import SecretSource
from celery_monitor.settings.section import FieldError, Glob, HttpUrl, Section, Text, TimeZone, check_one_source
from celery_monitor.settings.units import HOUR, MINUTE, Duration, duration

_PLACEHOLDERS: Final = ("task", "hour", "fleet", "queue", "rule")


def _dedup_key(value: str) -> str:
    known = ", ".join(f"{{{name}}}" for name in _PLACEHOLDERS)
    try:
        parts = list(string.Formatter().parse(value))
    except ValueError:
        raise ValueError(f"has an unmatched brace; write {{{{ or }}}} for a literal brace, or one of {known}") from None
    for _, name, spec, conversion in parts:
        if name is not None and (name not in _PLACEHOLDERS or spec or conversion):
            raise ValueError(f"may contain only the placeholders {known}")
    return value


def _unique(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value))


class StormSettings(Section):
    """Grouping of failures when many tasks fail at once, usually for one common cause."""

    tasks: int = Field(default=20, ge=1)
    """If more than this number of distinct tasks of one severity (or a higher one) fail within the window, they
    become one incident."""
    window: Annotated[float, duration("1s", "1d")] = 5 * MINUTE
    """The time window for counting failing tasks."""


HELM_ON: Final = "true"
"""The key ``on`` as Helm passes it."""
_REQUIRED: Final = {"runtime": "longer_than", "waiting": "longer_than", "backlog": "more_than"}
"""The parameter that is required for each condition."""
_CONDITIONS_OF: Final = {
    "match": ("failure", "runtime", "waiting", "lost"),
    "exclude": ("failure", "runtime", "waiting", "lost"),
    "exceptions": ("failure",),
    "threshold": ("failure",),
    "longer_than": ("runtime", "waiting"),
    "more_than": ("backlog",),
    "fewer_than": ("no_worker",),
    "lasting": ("backlog", "no_worker"),
    "silent_for": ("lost",),
    "finishing_for": ("lost",),
    "resolve_after": ("runtime", "waiting", "backlog", "no_worker"),
}
"""The conditions for which each field of a rule is valid; other fields are valid for all conditions."""


def _condition(value: object) -> object:
    if value == "missed":
        raise ValueError("missed needs no rule: add the task to schedules, and list the channels in its to")
    return value


class RuleSettings(Section):
    """What opens an incident. For each condition, the first matching rule applies. Empty lists match everything."""

    name: Text
    """The name of the rule, in incidents, logs and the dedup key."""
    on: Annotated[
        Literal["failure", "runtime", "waiting", "lost", "backlog", "no_worker"], BeforeValidator(_condition)
    ] = "failure"
    """The condition: ``failure`` (a task failed), ``runtime`` (a task runs too long), ``waiting`` (a task waits too
    long), ``lost`` (tasks were lost with their worker), ``backlog`` (a queue is too long), ``no_worker``
    (a queue has too few workers). Missed schedules are configured in ``schedules``."""
    longer_than: Annotated[float, duration("1s", "365d")] | None = None
    """For ``runtime`` and ``waiting``: the limit."""
    more_than: int | None = Field(default=None, ge=0)
    """For ``backlog``: the number of messages that a queue may hold."""
    fewer_than: int | None = Field(default=None, ge=1)
    """For ``no_worker``: also opens an incident for fewer workers than this, whether or not the queue holds tasks.
    Unset: only for a queue that holds tasks and has no worker at all."""
    lasting: Annotated[float, duration("0", "7d")] | None = None
    """For ``backlog`` and ``no_worker``: how long the condition must hold before an incident opens. Unset: 5m, and 2m
    for ``no_worker``.
    """
    silent_for: Annotated[float, duration("10s", "1d")] | None = None
    """For ``lost``: how long a worker must be silent (no heartbeat, no reply) before it counts as lost. Unset: 1m."""
    finishing_for: Annotated[float, duration("10s", "7d")] | None = None
    """For ``lost``: how long a worker may take to finish its tasks after a warm shutdown; tasks that have not ended by
    then are lost. Set it slightly longer than the time after which the worker is killed
    (``terminationGracePeriodSeconds`` of Kubernetes, ``TimeoutStopSec`` of systemd). Unset: 1h.
    """
    resolve_after: Annotated[float, duration("0", "30d")] | None = None
    """How long the condition must be over before its incident is resolved. Unset: 30m for ``runtime``, counted from the
    last run that took too long; 0 for the others. For ``failure`` see ``alerts.resolve_after``.
    """
    match: tuple[Glob, ...] = ()
    """Globs on the task name, such as ``shop.billing.*``. At least one must match."""
    exclude: tuple[Glob, ...] = ()
    """Globs on the task name. None may match."""
    queues: tuple[Glob, ...] = ()
    """Globs on the queue name. At least one must match."""
    exceptions: tuple[Glob, ...] = ()
    """Globs on the exception class. At least one must match."""
    threshold: int = Field(default=1, ge=1)
    """Number of failures of a task within the hour before it pages."""
    severity: Literal["critical", "error", "warning", "info"] = "error"
    """The severity of the incident."""
    routing_key: RoutingKey = None
    """Overrides ``pagerduty.routing_key``, to page another PagerDuty service."""
    routing_key_file: RoutingKeyFile = None
    """A file that contains the routing key, instead of ``routing_key``. It is reloaded when it changes."""
    runbook_url: HttpUrl | None = None
    """A link to the runbook, shown in the incident."""
    to: tuple[ChannelName, ...] = ()
    """Names of the channels that its incidents go to. Empty: those of ``alerts.to``."""
    page: bool = True
    """If false, failures are counted and reported but never page."""

    @field_validator("routing_key_file")
    @classmethod
    def _one_routing_key(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return check_one_source(value, info)

    @field_validator("to")
    @classmethod
    def _check_receiver(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if value and (info.data.get("routing_key") or info.data.get("routing_key_file")):
            raise ValueError("set either to or routing_key: a channel in channels has a routing key of its own")
        return _unique(value)

    @model_validator(mode="before")
    @classmethod
    def _on_is_a_key(cls, value: Any) -> Any:  # noqa: ANN401 - any input
        """In YAML 1.1, which Helm uses for values, the key ``on`` is true, and arrives here as a string."""
        if isinstance(value, dict) and HELM_ON in value and "on" not in value:
            return {"on" if key == HELM_ON else key: item for key, item in value.items()}
        return value

    @model_validator(mode="after")
    def _fits_its_condition(self) -> Self:
        required = _REQUIRED.get(self.on)
        if required is not None and getattr(self, required) is None:
            raise FieldError(required, f"is required with on: {self.on}")
        for name, conditions in _CONDITIONS_OF.items():
            if self.on not in conditions and getattr(self, name) != type(self).model_fields[name].default:
                raise FieldError(
                    name, f"cannot be used with on: {self.on}, only with {', '.join(conditions)}; remove it"
                )
        return self

    def routing_key_source(self) -> SecretSource:
        """The source of the rule's own routing key."""
        return SecretSource(self.routing_key, self.routing_key_file)


class MuteSettings(Section):
    """A recurring window in which nothing pages, such as a nightly maintenance."""

    match: Annotated[tuple[Glob, ...], Field(min_length=1)]
    """Globs on the task name, such as ``shop.billing.*``. At least one must match."""
    queues: tuple[Glob, ...] = ()
    """Globs on the queue name. At least one must match; an empty list matches everything."""
    cron: Cron
    """When the window begins, as a cron expression (minute hour day month weekday) in ``timezone``."""
    lasting: Annotated[float, duration("1m", "7d")]
    """How long the window lasts."""
    timezone: TimeZone = "UTC"
    """The time zone of ``cron``."""
    reason: Text
    """The reason, shown on the page ``/silences``."""

    def covers(self, other: "MuteSettings") -> bool:
        """Whether it certainly silences everything that the other one silences."""
        tasks = "*" in self.match or set(other.match) <= set(self.match)
        queues = bool(other.queues) and set(other.queues) <= set(self.queues)
        return tasks and (queues or not self.queues or "*" in self.queues)

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if next(sample_times(self.cron, self.timezone), None) is None:
            raise FieldError("cron", "never matches any date, like 30 February")
        if never_end([(self.cron, self.timezone, self.lasting)]):
            raise FieldError(
                "lasting",
                "is not shorter than the time from one start to the next, so the window would never end; for failures "
                "that must never page, write a rule with page: false",
            )
        return self


class AlertsSettings(Section):
    """Which failures page, and how they are grouped into incidents."""

    timezone: TimeZone = "UTC"
    """The time zone of the hour in the dedup key."""
    dedup_key: Annotated[Text, AfterValidator(_dedup_key)] = "{task}/{hour}"
    """The key that groups failures into one incident. Placeholders: ``{task}``, ``{hour}``, ``{fleet}``,
    ``{queue}``, ``{rule}``."""
    max_age: Annotated[float, duration("1s")] = 2 * HOUR
    """Failures that are older than this when the monitor reads them do not page. They are counted and reported."""
    max_incidents: int = Field(default=2_000, ge=1)
    """The maximum number of incidents to which failures can still be added, sent or not. Beyond it, unsent incidents
    are dropped first; if all are open, failures of further tasks join a storm.
    """
    storm: StormSettings = StormSettings()
    to: Annotated[tuple[ChannelName, ...], AfterValidator(_unique)] = ()
    """Names of the channels for incidents whose rule names none. Empty: ``pagerduty``."""
    update_interval: Duration | None = None
    """The minimum time between two updates of an open incident on a channel. Unset: ``pagerduty.update_interval``."""
    resolve: Literal["never", "on_success"] | None = None
    """``on_success``: resolve an incident of failures when the task has succeeded after its last failure and has had no
    failure for ``resolve_after``. ``never``: the incident ends with its hour. Unset: ``pagerduty.resolve``.
    """
    resolve_after: Duration | None = None
    """How long a task must be without failures before its incident is resolved. Unset: ``pagerduty.resolve_after``."""
    rules: tuple[RuleSettings, ...] = ()
    """The rules. For each condition, the first matching rule applies. A failure that matches no rule pages with
    severity error; other conditions open incidents only where a rule matches.
    """

    mute: tuple[MuteSettings, ...] = ()
    """Maintenance windows: failures in them are counted and reported, and page when the window ends unless the task
    has succeeded since."""

    @field_validator("mute")
    @classmethod
    def _ends_together(cls, value: tuple[MuteSettings, ...]) -> tuple[MuteSettings, ...]:
        for window in value:
            known = {number: other for number, other in enumerate(value) if other.covers(window)}
            if never_end([(other.cron, other.timezone, other.lasting) for other in known.values()]):
                raise ValueError(
                    f"the windows {', '.join(f'mute[{number}]' for number in known)} together cover all the time, so "
                    "that tasks that match all of them would never page; shorten one, or write a rule with page: false "
                    "for failures that must never page"
                )
        return value

    @field_validator("rules")
    @classmethod
    def _unique_names(cls, value: tuple[RuleSettings, ...]) -> tuple[RuleSettings, ...]:
        if twice := sorted(name for name, count in Counter(rule.name for rule in value).items() if count > 1):
            raise ValueError(f"rule names must be unique; duplicates: {', '.join(twice)}")
        return value
