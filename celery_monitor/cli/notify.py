"""``celery-monitor notify``: does a notification arrive?"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from celery_monitor.cli.options import config_file
from celery_monitor.errors import ConfigError, MonitorError, Problem
from celery_monitor.settings import Settings, load

if TYPE_CHECKING:
    from celery_monitor.adapters.channels.email import SendResult, SmtpServer


@click.group()
def notify() -> None:
    """Send a marked test message."""


@notify.command()
@click.argument("channel", type=click.Choice(["pagerduty", "email"]))
@config_file
@click.option("--rule", help="PagerDuty: use the routing key of this rule of alerts.rules.")
def test(channel: str, config_path: Path | None, rule: str | None) -> None:
    """Send one marked test message, and say what came back.

    PagerDuty opens a test incident of severity info and resolves it at once; depending on the service's settings
    somebody may be notified. The test mail goes to all recipients of the daily mail.
    """
    settings = load(config_path)
    if channel == "email":
        if rule is not None:
            raise click.UsageError("--rule is for pagerduty")
        _email(settings)
    else:
        click.echo(_pagerduty(settings, rule))


def _pagerduty(settings: Settings, rule: str | None) -> str:
    from celery_monitor.adapters.channels import pagerduty  # noqa: PLC0415 - requests is slow to import
    from celery_monitor.adapters.clock import SystemClock  # noqa: PLC0415

    keys = pagerduty.routing_keys(settings.pagerduty, settings.alerts.rules)
    source = keys.get(rule or "")
    key = source.get() if source is not None else None
    if key is None:
        rules = ", ".join(name for name in keys if name) or "none"
        if rule is not None:
            raise click.UsageError(f"no rule {rule!r} has a routing key of its own (rules with one: {rules})")
        raise ConfigError([Problem("pagerduty.routing_key", f"is not set (rules with a key of their own: {rules})")])
    return pagerduty.send_test(
        url=pagerduty.endpoint(settings.pagerduty.region, settings.pagerduty.url),
        key=key,
        fleet=settings.fleet,
        clock=SystemClock(),
        timeout=settings.pagerduty.timeout,
    )


def _email(settings: Settings) -> None:
    from celery_monitor.adapters.channels import email  # noqa: PLC0415 - as above

    require_mail(settings)
    server = email.server_of(settings.email)
    tell(email.send_test(settings.email, settings.fleet, server), server)


def tell(delivery: "SendResult", server: "SmtpServer") -> None:
    """Print what became of a mail. Raises MonitorError when somebody did not get it, or nobody knows."""
    from celery_monitor.adapters.channels import email  # noqa: PLC0415 - as above

    click.echo(email.describe(delivery, server))
    if delivery.refused or delivery.unknown or delivery.left is not None:
        raise MonitorError(f"the mail did not reach everybody: {server} has it for {len(delivery.taken)} of them")


def require_mail(settings: Settings) -> None:
    """Raise ConfigError where mail is off: a command that is to send one can do nothing then."""
    if not settings.email.to:
        raise ConfigError([Problem("email.to", "must be set, and email.from with it: there is nobody to write to")])
