"""``celery-monitor report``: prints or mails the summary of a day. Can run while the daemon is running."""

import datetime as dt
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import click

from celery_monitor.adapters.channels import DailyReport, configured, of_report
from celery_monitor.adapters.clock import SystemClock
from celery_monitor.cli.attached import attached_store
from celery_monitor.cli.notify import print_result
from celery_monitor.cli.options import config_file, store_url
from celery_monitor.core.summary import FIRST_DAY, Summary, summary_to_dict
from celery_monitor.policy import pages, policy_of
from celery_monitor.runtime.report import DayReport
from celery_monitor.settings import Settings, load

YESTERDAY: Final = "yesterday"
_NAMED: Final = {YESTERDAY: dt.timedelta(days=1), "today": dt.timedelta(0)}


@click.command()
@config_file
@store_url
@click.option("--date", "day", metavar="YYYY-MM-DD|yesterday|today", default=YESTERDAY, show_default=True)
@click.option("--format", "form", type=click.Choice(["text", "html", "json"]), default="text", show_default=True)
@click.option("--send", is_flag=True, help="Mail it to email.to instead of printing it, even if it was sent before.")
def report(config_path: Path | None, store: str | None, day: str, form: str, *, send: bool) -> None:
    """Print the summary of a day, from midnight to midnight in email.timezone.

    A mail that is sent with --send does not replace the daily one.
    """
    settings = load(config_path, {"store.url": store})
    channel, daily = of_report(configured(settings))
    if send:
        channel.require()
    now, zone = SystemClock().now(), ZoneInfo(daily.timezone)
    date = _date(day, now, zone)
    with _reports(settings, zone) as reports:
        summary = reports.summary(date, now)
        if send:
            print_result(daily.resend(summary, settings.web.external_url))
        else:
            click.echo(_printed(summary, form, daily, settings.web.external_url), nl=False)


def _date(day: str, now: float, zone: ZoneInfo) -> dt.date:
    today = dt.datetime.fromtimestamp(now, zone).date()
    if day in _NAMED:
        return today - _NAMED[day]
    try:
        date = dt.date.fromisoformat(day)
    except ValueError as exc:
        message = f"{day!r} is not a date: use YYYY-MM-DD, {' or '.join(_NAMED)}"
        raise click.BadParameter(message, param_hint="--date") from exc
    if date < FIRST_DAY:
        raise click.BadParameter(f"{day} is before {FIRST_DAY}, the first possible day", param_hint="--date")
    if date > today:
        raise click.BadParameter(f"{day} has not started yet in {zone}", param_hint="--date")
    return date


@contextmanager
def _reports(settings: Settings, zone: ZoneInfo) -> Iterator[DayReport]:
    with attached_store(settings) as store:
        yield DayReport(store.reader, settings.fleet, zone, paging=pages(policy_of(settings)))


def _printed(summary: Summary, form: str, daily: DailyReport, external_url: str | None) -> str:
    if form == "json":
        # ASCII, so that no task name can control the terminal.
        return f"{json.dumps(summary_to_dict(summary), indent=2)}\n"
    return (daily.html if form == "html" else daily.text)(summary, external_url)
