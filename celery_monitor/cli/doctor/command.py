"""The command: every check in turn, a line each as soon as it is known."""

import os
from collections.abc import Iterator
from pathlib import Path

import click

from celery_monitor.cli.doctor import fleet, outside
from celery_monitor.cli.doctor.finding import Finding, State, fail, ok
from celery_monitor.cli.options import config_file
from celery_monitor.errors import ConfigError
from celery_monitor.settings import load
from celery_monitor.settings.layers import CONFIG_VARIABLE


@click.command()
@config_file
@click.option("--broker", metavar="URL", help="broker.url")
@click.option("--seconds", type=click.FloatRange(1, 300), default=6, show_default=True, help="Watch events so long.")
@click.pass_context
def doctor(ctx: click.Context, config_path: Path | None, broker: str | None, seconds: float) -> None:
    """Check everything that the daemon needs, one line each, with what to do about it.

    Nothing is changed and nothing is sent: no page, no mail. A running daemon is not disturbed. Exits with 1 if any
    check fails; warnings are no failure.
    """
    failed = False
    for finding in _findings(config_path, broker, seconds):
        click.echo(str(finding))
        failed |= finding.state is State.FAIL
    ctx.exit(1 if failed else 0)


def _findings(config_path: Path | None, broker: str | None, seconds: float) -> Iterator[Finding]:
    try:
        settings = load(config_path, {"broker.url": broker})
    except ConfigError as exc:
        for problem in exc.problems:
            yield fail("configuration", str(problem))
        return
    source = config_path or os.environ.get(CONFIG_VARIABLE)
    yield ok("configuration", f"{source or 'defaults and environment'}: valid")
    yield from fleet.findings(settings.broker, seconds)
    yield outside.store(settings.store)
    yield outside.pagerduty(settings.pagerduty, settings.alerts)
    yield outside.email(settings.email)
    yield outside.web(settings.web)
