"""``celery-monitor run``: the daemon."""

import signal
from pathlib import Path

import click

from celery_monitor.adapters import log
from celery_monitor.app import App
from celery_monitor.cli.options import config_file
from celery_monitor.policy import secrets_of
from celery_monitor.settings import Settings, load


@click.command()
@config_file
@click.option("--broker", metavar="URL", help="broker.url")
@click.option("--store", metavar="URL", help="store.url")
@click.option("--port", type=int, help="web.port")
@click.option("--log-level", help="log.level")
@click.option("--log-format", help="log.format: json or console")
def run(  # noqa: PLR0917  # one for each option
    config_path: Path | None,
    broker: str | None,
    store: str | None,
    port: int | None,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Run the daemon until SIGTERM or SIGINT."""
    overrides = {
        "broker.url": broker,
        "store.url": store,
        "web.port": port,
        "log.level": log_level,
        "log.format": log_format,
    }
    settings = load(config_path, overrides)
    configure_log(settings)
    app = App(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: app.stop())
    raise SystemExit(app.run())


def configure_log(settings: Settings) -> None:
    """Logging as the settings say, with every secret of theirs hidden."""
    log.configure(settings.log.level, settings.log.format, secrets_of(settings))
