"""``celery-monitor notify``: sends a test message."""

import difflib
from pathlib import Path

import click

from celery_monitor.adapters.channels import Channel, TestResult, configured
from celery_monitor.adapters.clock import SystemClock
from celery_monitor.cli.options import config_file
from celery_monitor.errors import MonitorError
from celery_monitor.settings import load


@click.group()
def notify() -> None:
    """Send a marked test message."""


@notify.command()
@click.argument("channel")
@config_file
@click.option("--rule", help="Send to the receiver of this rule in alerts.rules.")
def test(channel: str, config_path: Path | None, rule: str | None) -> None:
    """Send one marked test message to CHANNEL, and print the receiver's response.

    CHANNEL is the name of a configured channel, such as pagerduty or email. A test of PagerDuty opens an incident of
    severity info and resolves it at once; depending on the service's settings, somebody may be notified. A test of
    email sends a mail to all recipients of the daily mail.
    """
    settings = load(config_path)
    print_result(_channel_named(channel, configured(settings)).test(settings.fleet, SystemClock(), rule))


def _channel_named(name: str, channels: list[Channel]) -> Channel:
    channels_by_name = {channel.name: channel for channel in channels}
    if name not in channels_by_name:
        near = difflib.get_close_matches(name, channels_by_name, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(channels_by_name)}"
        raise click.BadParameter(f"no channel has the name {name!r}; {hint}", param_hint="CHANNEL")
    return channels_by_name[name]


def print_result(result: TestResult) -> None:
    """Print the receiver's response. Raises MonitorError if the message was not, or perhaps not, delivered."""
    click.echo(result.text)
    if result.problem is not None:
        raise MonitorError(result.problem)
