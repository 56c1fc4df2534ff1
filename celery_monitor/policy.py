"""Translates the settings into the core's policy and limits, and lists the secrets that the log must redact."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo

from celery_monitor.adapters import channels
from celery_monitor.adapters.channels import Channel
from celery_monitor.adapters.redaction import Redaction
from celery_monitor.core.conditions.lost import FINISHING_FOR, SILENT_FOR
from celery_monitor.core.model import Condition, Severity
from celery_monitor.core.monitor import Limits
from celery_monitor.core.rules import Policy, Rule
from celery_monitor.core.schedules.calendar import Schedule
from celery_monitor.core.schedules.judge import SCHEDULER
from celery_monitor.core.silences import MuteWindow
from celery_monitor.runtime.schedule import last_due, next_due
from celery_monitor.settings import Settings
from celery_monitor.settings.alerts import RuleSettings
from celery_monitor.settings.secret import url_parts
from celery_monitor.settings.units import MINUTE, duration

_LASTING: Final = {Condition.BACKLOG: 5 * MINUTE, Condition.NO_WORKER: 2 * MINUTE}
_RESOLVE_AFTER: Final = {Condition.RUNTIME: 30 * MINUTE}
T = TypeVar("T")


def limits_of(settings: Settings) -> Limits:
    """The core's limits, from the settings."""
    tracking, metrics = settings.tracking, settings.metrics
    return Limits(
        prefetch=settings.broker.prefetch,
        max_tasks=tracking.max_tasks,
        max_age=tracking.max_age,
        linger=tracking.linger,
        max_ended_tasks=tracking.max_ended_tasks,
        name_wait=tracking.name_wait,
        capture_arguments=tracking.capture_arguments,
        redact=Redaction(tracking.redact).patterns,
        hostname_label=metrics.hostname_label,
        runtime_bounds=tuple(metrics.runtime_buckets),
        wait_bounds=tuple(metrics.queue_wait_buckets),
        default_queue=metrics.default_queue_name,
        max_task_names=metrics.max_task_names,
        max_series=metrics.max_series,
        max_workers=metrics.max_workers,
        max_error_groups=tracking.max_error_groups,
        max_sample_bytes=tracking.max_sample_bytes,
        max_argument_bytes=tracking.max_argument_bytes,
        max_incidents=settings.alerts.max_incidents,
        worker_timeout=metrics.worker_timeout,
        worker_purge=metrics.worker_purge,
        stream_kept=settings.broker.queue.expires,
        policy=policy_of(settings),
        mutes=[
            MuteWindow(
                window.match,
                window.reason,
                window.lasting,
                partial(last_due, window.cron, ZoneInfo(window.timezone)),
                window.queues,
            )
            for window in settings.alerts.mute
        ],
        schedules=schedules_of(settings),
        scheduler=scheduler_of(settings),
    )


def policy_of(settings: Settings) -> Policy:
    """The alert rules, from the settings. A rule with a receiver of its own has a route of the rule's name."""
    alerts, pagerduty = settings.alerts, settings.pagerduty
    configured = channels.of_incidents(channels.configured(settings))
    rules = []
    for rule in alerts.rules:
        own = rule.name if rule.name in configured[0].routes else ""
        route, to = (own, _sending([configured[0]], own)) if own else _destination(rule.to or alerts.to, configured)
        rules.append(
            Rule(
                name=rule.name,
                match=rule.match,
                queues=rule.queues,
                exceptions=rule.exceptions,
                exclude=rule.exclude,
                threshold=rule.threshold,
                severity=Severity(rule.severity),
                route=route,
                to=to,
                runbook_url=rule.runbook_url,
                page=rule.page,
                **_condition_of(rule),
            )
        )
    rules += [schedule.rule for schedule in schedules_of(settings)]
    if (scheduler := scheduler_of(settings)) is not None:
        rules.append(scheduler)
    route, to = _destination(alerts.to, configured)
    return Policy(
        fleet=settings.fleet,
        zone=ZoneInfo(alerts.timezone),
        dedup_key=alerts.dedup_key,
        max_age=alerts.max_age,
        storm_tasks=alerts.storm.tasks,
        storm_window=alerts.storm.window,
        rules=rules,
        default=Rule(route=route, to=to),
        update_interval=_either(alerts.update_interval, pagerduty.update_interval),
        resolve_on_success=_either(alerts.resolve, pagerduty.resolve) == "on_success",
        resolve_after=_either(alerts.resolve_after, pagerduty.resolve_after),
        channels={channel.name: channel.routes for channel in configured},
    )


def schedules_of(settings: Settings) -> list[Schedule]:
    """``schedules``, from the settings. Each has a rule of the same name."""
    configured = channels.of_incidents(channels.configured(settings))
    schedules = []
    for schedule in settings.schedules:
        zone = schedule.timezone or ("UTC" if schedule.cron else settings.alerts.timezone)
        route, to = _destination(schedule.to or settings.alerts.to, configured)
        rule = Rule(
            schedule.title, severity=Severity(schedule.severity), route=route, to=to, runbook_url=schedule.runbook_url,
            on=Condition.MISSED,
        )  # fmt: skip
        schedules.append(
            Schedule(
                name=schedule.title,
                task=schedule.task,
                spec=f"every {duration().render(schedule.every)}" if schedule.every else f"{schedule.cron} {zone}",
                rule=rule,
                grace=schedule.grace,
                every=schedule.every or 0.0,
                next_time=None if schedule.cron is None else partial(next_due, schedule.cron, ZoneInfo(zone)),
                zone=ZoneInfo(zone),
                max_runtime=schedule.max_runtime or 0.0,
            )
        )
    return schedules


def scheduler_of(settings: Settings) -> Rule | None:
    """The rule of the incident that no schedule runs. It is sent to all receivers of the single schedules."""
    if not settings.schedules:
        return None
    configured = channels.of_incidents(channels.configured(settings))
    names = {
        name for schedule in settings.schedules for name in schedule.to or settings.alerts.to or (configured[0].name,)
    }
    route, to = _destination(sorted(names), configured)
    severity = min((Severity(schedule.severity) for schedule in settings.schedules), key=list(Severity).index)
    return Rule(SCHEDULER, severity=severity, route=route, to=to, on=Condition.MISSED)


def _either(own: T | None, older: T) -> T:
    """A setting for all channels; ``older`` is its value from the section of a single channel, where it used to be."""
    return older if own is None else own


def _condition_of(rule: RuleSettings) -> dict[str, Any]:
    """The condition of a rule and its parameters, with the defaults of that condition."""
    on = Condition(rule.on)
    lasting, resolve_after = _LASTING.get(on, 0.0), _RESOLVE_AFTER.get(on, 0.0)
    return {
        "on": on,
        "longer_than": rule.longer_than or 0.0,
        "more_than": rule.more_than or 0,
        "fewer_than": rule.fewer_than or 0,
        "lasting": lasting if rule.lasting is None else rule.lasting,
        "silent_for": rule.silent_for or SILENT_FOR,
        "finishing_for": rule.finishing_for or FINISHING_FOR,
        "resolve_after": resolve_after if rule.resolve_after is None else rule.resolve_after,
    }


def _destination(names: Sequence[str], configured: Sequence[Channel]) -> tuple[str, tuple[str, ...]]:
    """The route of incidents for these channels, and those of the channels that are enabled.

    The first channel alone is the default route, named or not.
    """
    selected = [channel for channel in configured if channel.name in names] if names else [configured[0]]
    route = "" if selected == [configured[0]] else ",".join(sorted(channel.name for channel in selected))
    return route, _sending(selected, route)


def _sending(selected: Sequence[Channel], route: str) -> tuple[str, ...]:
    return tuple(channel.name for channel in selected if channel.sends(route))


def pages(policy: Policy) -> bool:
    """Whether any incident is sent to somebody."""
    return any(rule.to for rule in (policy.default, *policy.rules))


def secrets_of(settings: Settings) -> Callable[[], Iterator[str]]:
    """Returns a function that yields every configured secret with its present value, for the log's redaction."""
    sources = [settings.broker.url_source(), settings.web.password_source()]
    of_channels = [source for channel in channels.configured(settings) for source in channel.secrets]

    def secrets() -> Iterator[str]:
        for source in of_channels:
            yield from url_parts(source.get() or "")
        for source in (*sources, *of_channels):
            secret = source.get()
            if secret is not None and "://" not in secret:
                yield secret
            for url in (secret or "").split(";"):
                with contextlib.suppress(ValueError):
                    password = urlsplit(url).password
                    if password:
                        yield from (password, unquote(password))

    return secrets
