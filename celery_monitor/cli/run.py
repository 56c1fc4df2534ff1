"""``celery-monitor run``: the daemon."""

import gc
import signal
from pathlib import Path
from typing import Final

import click

from celery_monitor.adapters import log
from celery_monitor.app import App
from celery_monitor.cli.options import broker_url, config_file, store_url, web_port
from celery_monitor.policy import secrets_of
from celery_monitor.runtime.interpreter import InterpreterGuard
from celery_monitor.settings import Settings, load

COLLECT: Final = (10_000, 20, 50)
"""Thresholds of the garbage collector. The program creates hardly any reference cycles, and scanning is expensive: with
the default thresholds a large fleet pauses the daemon for a tenth of a second every few thousand tasks."""


@click.command()
@config_file
@broker_url
@store_url
@web_port
@click.option("--log-level", metavar="LEVEL", help="Overrides log.level.")
@click.option("--log-format", metavar="FORMAT", help="Overrides log.format: json or console.")
def run(  # noqa: PLR0917  # one for each option
    config_path: Path | None,
    broker: str | None,
    store: str | None,
    port: int | None,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Run the daemon until SIGTERM, SIGINT or SIGHUP."""
    overrides = {
        "broker.url": broker,
        "store.url": store,
        "web.port": port,
        "log.level": log_level,
        "log.format": log_format,
    }
    settings = load(config_path, overrides)
    configure_log(settings)
    gc.set_threshold(*COLLECT)
    guard = InterpreterGuard()
    app = App(settings, guard=guard)
    for number in stop_signals():
        signal.signal(number, lambda *_: app.stop())
    try:
        code = app.run()
    finally:
        guard.release()
    raise SystemExit(code)


def stop_signals() -> list[signal.Signals]:
    """The signals that shut the daemon down gracefully.

    SIGHUP is sent when a terminal closes, or to reload the configuration: the service manager then restarts the
    daemon. With `nohup` it is ignored.
    """
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([] if ignored else [signal.SIGHUP])]


def configure_log(settings: Settings) -> None:
    """Configure logging from the settings, with all their secrets redacted."""
    log.configure(settings.log.level, settings.log.format, secrets_of(settings))
