"""The ``alerts`` settings as the core uses them: which rule a failure matches, and the key of its incident."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from fnmatch import translate
from functools import lru_cache
from hashlib import sha256
from typing import Final

from celery_monitor.core.model import STORM, Condition, Severity

MAX_KEY_LENGTH: Final = 255
KEY_HEAD: Final = 238
DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of ``alerts.rules``; globs match whole names, an empty list matches all."""

    name: str = ""
    match: Sequence[str] = ()
    queues: Sequence[str] = ()
    exceptions: Sequence[str] = ()
    exclude: Sequence[str] = ()
    threshold: int = 1
    severity: Severity = Severity.ERROR
    route: str = ""
    """Identifies the receivers of its incidents: rules with the same route share storms. "" is the default."""
    to: Sequence[str] = ()
    """Names of the channels that its incidents are sent to. Without any they are stored and shown, but not sent."""
    runbook_url: str | None = None
    page: bool = True
    on: Condition = Condition.FAILURE
    """The condition that it applies to."""
    longer_than: float = 0.0
    """Threshold of a runtime or waiting time, in seconds."""
    more_than: int = 0
    """Threshold of a queue's length, in messages."""
    fewer_than: int = 0
    """Minimum number of workers of a queue; 0: at least one, but only while the queue contains tasks."""
    lasting: float = 0.0
    """Seconds for which the condition must hold."""
    silent_for: float = 0.0
    """Seconds without a sign of life after which a worker counts as gone."""
    finishing_for: float = 0.0
    """Seconds after worker-offline after which a worker counts as finished."""
    resolve_after: float = 0.0
    """Seconds without the condition after which its incident resolves."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The ``alerts`` settings, and how incidents are refreshed and resolved. Times in seconds."""

    fleet: str = "celery"
    zone: tzinfo = UTC
    dedup_key: str = "{task}/{hour}"
    max_age: float = 7200.0
    storm_tasks: int = 20
    storm_window: float = 300.0
    rules: Sequence[Rule] = ()
    default: Rule = field(default_factory=Rule)
    update_interval: float = 600.0
    resolve_on_success: bool = False
    resolve_after: float = 1800.0
    channels: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """All channels that can send incidents, each with its routes ("" for all of them)."""

    def joinable_until(self, at: float) -> float:
        """Time after which no failure that may page can join the incident of a failure at ``at``.

        By then its hour has ended in every time zone, and failures of that hour are too old. With a key without the
        hour, an incident ends after a day.
        """
        return at + (3600.0 if "{hour}" in self.dedup_key else DAY) + self.max_age


class RuleSet:
    """Finds the rule for a failure, or for a subject of another condition. Not thread-safe."""

    def __init__(self, policy: Policy, on: Condition = Condition.FAILURE) -> None:
        """Use the rules for this condition."""
        self.on = on
        self._all = policy.rules
        self._rules = [rule for rule in policy.rules if rule.on is on]
        self._default = policy.default
        every = (*policy.rules, policy.default)
        self._channels = {rule.route: rule.to for rule in every}
        self._sends = {**{name: frozenset({""}) for rule in every for name in rule.to}, **policy.channels}
        """Channel → its routes."""
        self._matchers = [
            (rule, matcher(rule.match), matcher(rule.queues), matcher(rule.exceptions), matcher(rule.exclude))
            for rule in self._rules
        ]
        self.find = lru_cache(maxsize=5_000)(self._find)
        """(task, queue, exception) → the first rule that matches, or the default."""
        self.match = lru_cache(maxsize=5_000)(self._match)
        """(task, queue, exception) → the first rule that matches, or None."""

    def __len__(self) -> int:
        """Number of rules for this condition."""
        return len(self._rules)

    def __iter__(self) -> Iterator[Rule]:
        """The rules for this condition."""
        return iter(self._rules)

    def by_name(self, name: str, route: str) -> Rule:
        """The rule of a stored incident with its route. If it was removed, the default rule with that route."""
        rule = self.named(name)
        return rule if rule.route == route else replace(rule, route=route)

    def named(self, name: str) -> Rule:
        """The rule of this name as it is configured now. If it was removed, the default rule."""
        return next((rule for rule in self._rules if rule.name == name), self._default)

    def current(self, name: str, on: Condition, route: str) -> Rule | None:
        """The configured rule of this name for a condition, with the given route; None if it was removed."""
        rule_found = next((rule for rule in self._all if rule.name == name and rule.on is on), None)
        return None if rule_found is None else replace(rule_found, route=route)

    def channels(self, route: str) -> Sequence[str]:
        """The channels of a route; none if the route was removed."""
        return self._channels.get(route, ())

    def recipients(self, rule: Rule, opened_on: Sequence[str]) -> Sequence[str]:
        """The channels that get an incident's messages: those that it was opened on and that still exist.

        Its receivers expect the resolution there, whatever the rule names by now. If none exists any more, the channels
        of its rule: they may be the same receivers under other names.
        """
        remaining = [name for name in opened_on if not self._sends.get(name, frozenset()).isdisjoint({"", rule.route})]
        return remaining or self.channels(rule.route) or rule.to

    def _find(self, task: str, queue: str, exception: str) -> Rule:
        return self._match(task, queue, exception) or self._default

    def _match(self, task: str, queue: str, exception: str = "") -> Rule | None:
        for rule, tasks, queues, exceptions, excluded in self._matchers:
            if (
                (not rule.match or tasks(task))
                and (not rule.queues or queues(queue))
                and (not rule.exceptions or exceptions(exception))
                and not (rule.exclude and excluded(task))
            ):
                return rule
        return None


def matcher(globs: Sequence[str]) -> Callable[[str], object]:
    """A predicate: whether a whole name matches one of the globs; without globs nothing matches."""
    return re.compile("|".join(map(translate, globs)) or r"(?!)").match


def window(at: float, zone: tzinfo) -> str:
    """The hour of ``at`` (unix seconds) in a zone: ``2026-11-23T14Z``, ``2026-11-23T14+05:30``."""
    return _window(int(at // 900), zone)


@lru_cache(maxsize=4096)
def _window(quarter: int, zone: tzinfo) -> str:
    local = datetime.fromtimestamp(quarter * 900, zone)
    offset = local.strftime("%z")
    name = "Z" if zone is UTC or str(zone) == "UTC" else f"{offset[:3]}:{offset[3:5]}"
    return f"{local:%Y-%m-%dT%H}{name}"


def storm_key(route: str, severity: Severity, hour: str, fleet: str = "") -> str:
    """The key of a storm. It cannot equal a task's key, which by the default template ends with the hour."""
    severity_part = "" if severity is Severity.ERROR else severity.value  # older versions named none
    return dedup_key(
        "{storm}", {"storm": "/".join(part for part in (STORM, fleet, route, hour, severity_part, "*") if part)}
    )


def episode_key(on: Condition, subject: str, rule: str, since: float, fleet: str = "") -> str:
    """The key of one episode of a condition other than failure. It contains the start time in milliseconds."""
    started = datetime.fromtimestamp(since, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    parts = on.value, fleet, subject, rule, started
    return dedup_key("{episode}", {"episode": "/".join(part for part in parts if part)})


def dedup_key(template: str, names: Mapping[str, str]) -> str:
    """Fill a template (``{{`` is a brace). Over 255 characters: the first 238, ``~``, 16 hex digits of its SHA-256."""
    key = template.format_map(names)
    if len(key) <= MAX_KEY_LENGTH:
        return key
    return f"{key[:KEY_HEAD]}~{sha256(key.encode('utf-8', 'replace')).hexdigest()[:16]}"
