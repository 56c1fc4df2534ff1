"""Which failures page, how they are grouped, and how often."""

import string
from collections import Counter
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

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


class StormSettings(Section):
    """When many tasks fail at once, the cause is one: they become one incident."""

    tasks: int = Field(default=20, ge=1)
    """More distinct tasks of one severity (or a more severe one) than this that fail within the window become one
    incident."""
    window: Annotated[float, duration("1s", "1d")] = 5 * MINUTE
    """The time in which they are counted."""


class RuleSettings(Section):
    """What to do with a failure; the first rule that matches decides. An empty list matches everything."""

    name: Text
    """The name of the rule, in incidents, logs and the dedup key."""
    match: tuple[Glob, ...] = ()
    """Globs on the task's name, such as ``shop.billing.*``; one has to match."""
    exclude: tuple[Glob, ...] = ()
    """Globs on the task's name; none may match."""
    queues: tuple[Glob, ...] = ()
    """Globs on the queue; one has to match."""
    exceptions: tuple[Glob, ...] = ()
    """Globs on the class of the exception; one has to match."""
    threshold: int = Field(default=1, ge=1)
    """How many failures of a task within the hour make it page."""
    severity: Literal["critical", "error", "warning", "info"] = "error"
    """The severity of the incident."""
    routing_key: RoutingKey = None
    """Another PagerDuty service than that of ``pagerduty.routing_key``."""
    routing_key_file: RoutingKeyFile = None
    """A file that holds the routing key, instead of ``routing_key``; it is read again when it changes."""
    runbook_url: HttpUrl | None = None
    """A link in the incident to what the person on call should do."""
    page: bool = True
    """False: count and report, never page."""

    @field_validator("routing_key_file")
    @classmethod
    def _one_routing_key(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return check_one_routing_key(value, info)

    def routing_key_source(self) -> SecretSource:
        """The rule's own routing key, from wherever it comes; None when there is none."""
        return SecretSource(self.routing_key, self.routing_key_file)


class AlertsSettings(Section):
    """From failures to incidents."""

    timezone: TimeZone = "UTC"
    """The time zone of the hour in the dedup key."""
    dedup_key: Annotated[Text, AfterValidator(_dedup_key)] = "{task}/{hour}"
    """What makes failures one incident: text with ``{task}``, ``{hour}``, ``{fleet}``, ``{queue}``,
    ``{rule}``."""
    max_age: Annotated[float, duration("1s")] = 2 * HOUR
    """Failures older than this when they are read go to the report only: nobody is woken for the past."""
    max_incidents: int = Field(default=2_000, ge=1)
    """Incidents whose failures may still grow, sent or not. Beyond it those that were not sent are forgotten, and
    where all are open, failures of further tasks join a storm."""
    storm: StormSettings = StormSettings()
    rules: tuple[RuleSettings, ...] = ()
    """The rules, first match first. Without any, and where none matches, every failure pages as error."""

    @field_validator("rules")
    @classmethod
    def _unique_names(cls, value: tuple[RuleSettings, ...]) -> tuple[RuleSettings, ...]:
        if twice := sorted(name for name, count in Counter(rule.name for rule in value).items() if count > 1):
            raise ValueError(f"rule names must be unique; duplicates: {', '.join(twice)}")
        return value
