"""``celery-monitor schedules``: suggests ``schedules`` from the daemon's store. Can run while it is running."""

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
        by_task = opened.reader.starts()
    configured = {schedule.task for schedule in settings.schedules}
    suggestions = [
        suggestion(starts.name, sorted(starts.starts), zone) for starts in by_task if starts.name not in configured
    ]
    suggested = [item for item in suggestions if item is not None]
    if not suggested:
        click.echo(
            f"no regular tasks found among {len(by_task)} tasks: try again after more runs, such as in a few days"
        )
        return
    click.echo("schedules:")
    for item in suggested:
        click.echo(_entry(item, str(zone)))


def _entry(item: Suggestion, zone: str) -> str:
    """A YAML entry. Its strings are JSON strings, which are valid YAML whatever they contain."""
    when = (
        f"cron: {json.dumps(item.cron)}, timezone: {zone}"
        if item.cron
        else f"every: {_duration.render(item.every or 0)}"
    )
    grace = _duration.render(item.grace)
    return f"  # {line(item.evidence)}\n  - {{task: {json.dumps(item.task)}, {when}, grace: {grace}}}"
