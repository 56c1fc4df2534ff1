"""``celery-monitor schedules``: what runs regularly, as configuration. Works beside the daemon, on its store."""

import json
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import click

from celery_monitor.cli.attached import attached_store
from celery_monitor.cli.options import config_file, store_url
from celery_monitor.core.headline import line
from celery_monitor.core.regular import Suggestion, suggestion
from celery_monitor.settings import load
from celery_monitor.settings.units import duration

_duration: Final = duration()


@click.group()
def schedules() -> None:
    """Tasks that run regularly."""


@schedules.command()
@config_file
@store_url
@click.option(
    "--timezone",
    metavar="ZONE",
    help="The time zone of the suggested schedules: Celery's timezone setting. Default: alerts.timezone.",
)
def suggest(config_path: Path | None, store: str | None, timezone: str | None) -> None:
    """Find tasks that run regularly, and print what to write into the configuration, with the evidence.

    The monitor keeps the newest 100 starts of each task; the daemon writes them every 5 minutes.
    """
    settings = load(config_path, {"store.url": store, "alerts.timezone": timezone})
    zone = ZoneInfo(settings.alerts.timezone)
    with attached_store(settings) as opened:
        known = opened.reader.starts()
    configured = {one.task for one in settings.schedules}
    found = [suggestion(one.name, sorted(one.starts), zone) for one in known if one.name not in configured]
    suggested = [one for one in found if one is not None]
    if not suggested:
        click.echo(
            f"no regular tasks found among {len(known)} tasks: give the monitor a few days, or runs, to see them"
        )
        return
    click.echo("schedules:")
    for one in suggested:
        click.echo(_entry(one, str(zone)))


def _entry(one: Suggestion, zone: str) -> str:
    """JSON's texts are YAML's, whatever is in them."""
    when = (
        f"cron: {json.dumps(one.cron)}, timezone: {zone}" if one.cron else f"every: {_duration.render(one.every or 0)}"
    )
    return (
        f"  # {line(one.evidence)}\n  - {{task: {json.dumps(one.task)}, {when}, grace: {_duration.render(one.grace)}}}"
    )
