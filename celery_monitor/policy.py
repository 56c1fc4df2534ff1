"""The settings in the words of the core, and what of them the log must not tell."""

import contextlib
from collections.abc import Callable, Iterator
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo

from celery_monitor.adapters.redaction import Redaction
from celery_monitor.core.model import Severity
from celery_monitor.core.monitor import Limits
from celery_monitor.core.rules import Policy, Rule
from celery_monitor.settings import PagerDutySettings, RuleSettings, Settings


def limits_of(settings: Settings) -> Limits:
    """What the pure core is told of the settings."""
    tracking, metrics = settings.tracking, settings.metrics
    return Limits(
        prefetch=settings.broker.prefetch,
        max_tasks=tracking.max_tasks,
        max_age=tracking.max_age,
        linger=tracking.linger,
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
        policy=policy_of(settings),
    )


def policy_of(settings: Settings) -> Policy:
    """The rules of alerts. A rule with a routing key of its own is a route of its own name."""
    alerts, pagerduty = settings.alerts, settings.pagerduty
    default_sends = pagerduty.routing_key_source().get() is not None
    rules = []
    for rule in alerts.rules:
        own = rule.routing_key_source().get() is not None
        rules.append(
            Rule(
                name=rule.name,
                match=rule.match,
                queues=rule.queues,
                exceptions=rule.exceptions,
                exclude=rule.exclude,
                threshold=rule.threshold,
                severity=Severity(rule.severity),
                route=rule.name if own else "",
                sends=own or default_sends,
                runbook_url=rule.runbook_url,
                page=rule.page,
            )
        )
    return Policy(
        fleet=settings.fleet,
        zone=ZoneInfo(alerts.timezone),
        dedup_key=alerts.dedup_key,
        max_age=alerts.max_age,
        storm_tasks=alerts.storm.tasks,
        storm_window=alerts.storm.window,
        rules=rules,
        default=Rule(sends=default_sends),
        update_interval=pagerduty.update_interval,
        resolve_on_success=pagerduty.resolve == "on_success",
        resolve_after=pagerduty.resolve_after,
    )


def channels_of(settings: Settings) -> dict[str, str]:
    """Whom the monitor tells, in words: ``pagerduty`` and ``mail``, each on or off."""
    services: list[PagerDutySettings | RuleSettings] = [settings.pagerduty, *settings.alerts.rules]
    keys = sum(service.routing_key_source().get() is not None for service in services)
    email = settings.email
    return {
        "pagerduty": f"on, {keys} routing key{'s' * (keys > 1)}" if keys else "off: no routing key is set",
        "mail": f"on, to {', '.join(email.to)} at {email.schedule} ({email.timezone})"
        if email.to
        else "off: email.to is empty",
    }


def secrets_of(settings: Settings) -> Callable[[], Iterator[str]]:
    """Every secret that is configured, as it is at each call: for the log's last defence."""
    sources = [
        settings.broker.url_source(),
        settings.pagerduty.routing_key_source(),
        settings.email.password_source(),
        settings.web.password_source(),
        *(rule.routing_key_source() for rule in settings.alerts.rules),
    ]

    def secrets() -> Iterator[str]:
        for source in sources:
            secret = source.get()
            if secret is not None and "://" not in secret:
                yield secret
            for url in (secret or "").split(";"):
                with contextlib.suppress(ValueError):
                    password = urlsplit(url).password
                    if password:
                        yield from (password, unquote(password))

    return secrets
