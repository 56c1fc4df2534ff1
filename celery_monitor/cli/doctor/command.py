"""The command: runs all checks and prints each result as soon as it is known."""

import os
from collections.abc import Iterator
from pathlib import Path

import click

from celery_monitor.adapters.channels import configured
from celery_monitor.cli.doctor import database, fleet, services
from celery_monitor.cli.doctor.finding import Finding, State, fail, ok, warn
from celery_monitor.cli.options import broker_url, config_file, store_url, web_port
from celery_monitor.errors import ConfigError
from celery_monitor.settings import Settings, load
from celery_monitor.settings.layers import CONFIG_VARIABLE
from celery_monitor.settings.lint import warnings_of


@click.command()
@config_file
@broker_url
@store_url
@web_port
@click.option(
    "--seconds", type=click.FloatRange(1, 300), default=6, show_default=True, help="How long to watch events."
)
@click.pass_context
def doctor(  # noqa: PLR0917 - one for each option
    ctx: click.Context,
    config_path: Path | None,
    broker: str | None,
    store: str | None,
    port: int | None,
    seconds: float,
) -> None:
    """Check everything that the daemon needs, and print one line for each check, with a remedy for each problem.

    The command changes nothing and sends no notifications. It can run beside the daemon. It exits with code 1 if a
    check fails, and with 2 if the configuration is invalid. Warnings do not change the exit code.
    """
    try:
        settings = load(config_path, {"broker.url": broker, "store.url": store, "web.port": port})
    except ConfigError as exc:
        for problem in exc.problems:
            click.echo(str(fail("configuration", str(problem))))
        ctx.exit(2)
    source = config_path or os.environ.get(CONFIG_VARIABLE)
    click.echo(str(ok("configuration", f"{source or 'defaults and environment'}: valid")))
    for warning in warnings_of(settings):
        click.echo(str(warn("configuration", str(warning))))
    failed = False
    for finding in _findings(settings, seconds):
        click.echo(str(finding))
        failed |= finding.state is State.FAIL
    ctx.exit(1 if failed else 0)


def _findings(settings: Settings, seconds: float) -> Iterator[Finding]:
    yield from fleet.findings(settings.broker, seconds)
    port = services.web(settings.web)
    yield services.store(settings, in_use=port.daemon)
    yield from database.findings(settings)
    yield services.limits(settings)
    for channel in configured(settings):
        yield services.channel(channel)
    yield port.finding
