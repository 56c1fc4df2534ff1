"""Which failures page, how they are grouped, and how often."""

import string
from collections import Counter
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from celery_monitor.settings.channels import ChannelName
from celery_monitor.settings.pagerduty import RoutingKey, RoutingKeyFile, check_one_routing_key
from celery_monitor.settings.secret import SecretSource
from celery_monitor.settings.section import Glob, HttpUrl, Section, Text, TimeZone
from celery_monitor.settings.units import HOUR, MINUTE, duration

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


def _once(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value))


class StormSettings(Section):
    """Grouping of failures when many tasks fail at once, usually for one common cause."""

    tasks: int = Field(default=20, ge=1)
    """If more than this number of distinct tasks of one severity (or a higher one) fail within the window, they
    become one incident."""
    window: Annotated[float, duration("1s", "1d")] = 5 * MINUTE
    """The time window for counting failing tasks."""


class RuleSettings(Section):
    """How to handle a failure. The first matching rule applies. An empty list matches everything."""

    name: Text
    """The name of the rule, in incidents, logs and the dedup key."""
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
        return check_one_routing_key(value, info)

    @field_validator("to")
    @classmethod
    def _one_way(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if value and (info.data.get("routing_key") or info.data.get("routing_key_file")):
            raise ValueError("set either to or routing_key: a channel in channels has a routing key of its own")
        return _once(value)

    def routing_key_source(self) -> SecretSource:
        """The rule's own routing key, from wherever it comes; None when there is none."""
        return SecretSource(self.routing_key, self.routing_key_file)


class AlertsSettings(Section):
    """From failures to incidents."""

    timezone: TimeZone = "UTC"
    """The time zone of the hour in the dedup key."""
    dedup_key: Annotated[Text, AfterValidator(_dedup_key)] = "{task}/{hour}"
    """The key that groups failures into one incident. Placeholders: ``{task}``, ``{hour}``, ``{fleet}``,
    ``{queue}``, ``{rule}``."""
    max_age: Annotated[float, duration("1s")] = 2 * HOUR
    """Failures that are older than this when the monitor reads them do not page. They are counted and reported."""
    max_incidents: int = Field(default=2_000, ge=1)
    """The maximum number of incidents that can still grow, sent or not. Beyond it, unsent incidents are dropped
    first; if all are open, failures of further tasks join a storm."""
    storm: StormSettings = StormSettings()
    to: Annotated[tuple[ChannelName, ...], AfterValidator(_once)] = ()
    """Names of the channels that incidents go to whose rule names none. Empty: ``pagerduty``."""
    rules: tuple[RuleSettings, ...] = ()
    """The rules. The first match applies. A failure that matches no rule pages with severity error."""

    @field_validator("rules")
    @classmethod
    def _unique_names(cls, value: tuple[RuleSettings, ...]) -> tuple[RuleSettings, ...]:
        if twice := sorted(name for name, count in Counter(rule.name for rule in value).items() if count > 1):
            raise ValueError(f"rule names must be unique; duplicates: {', '.join(twice)}")
        return value
