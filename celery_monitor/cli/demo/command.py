"""``celery-monitor demo``: starts the parts one after the other, prints events, and stops them in reverse order."""

import contextlib
import datetime as dt
import errno
import logging
import math
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from celery_monitor.adapters import log
from celery_monitor.adapters.clock import SystemClock
from celery_monitor.cli.demo import history
from celery_monitor.cli.demo.application import Shop
from celery_monitor.cli.demo.daemon import FLEET, Daemon, configure
from celery_monitor.cli.demo.fleet import WORKERS, Fleet
from celery_monitor.cli.demo.receivers import Mailbox, Pager
from celery_monitor.cli.demo.screen import introduce, say
from celery_monitor.cli.run import stop_signals
from celery_monitor.errors import MonitorError
from celery_monitor.policy import secrets_of
from celery_monitor.runtime.report import DayReport

_PORTS: Final = 100
_COUNTS_INTERVAL: Final = 10.0
_MAIL_INTERVAL: Final = 60.0
_FIRST_MAIL: Final = 25.0
_CHECK_INTERVAL: Final = 0.1
_SHOWN: Final = ("sent", "received", "started", "succeeded", "failed", "retried")
_FLEET_ENDS_WITHIN: Final = 2.5
_COUNTED_WITHIN: Final = 1.5


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address that the page listens on.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=9808,
    show_default=True,
    help="Port of the page, or the next free one.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0.1, 100),
    default=3,
    show_default=True,
    help="Orders and other requests per second; an order is four tasks.",
)
@click.option(
    "--days",
    type=click.IntRange(0, 14),
    default=7,
    show_default=True,
    help="Days of generated history before the start, so that there is something to see; 0 for none.",
)
@click.option("--seconds", type=click.FloatRange(1), help="Stop after this time. Default: run until Ctrl-C.")
def demo(host: str, port: int, rate: float, days: int, seconds: float | None) -> None:
    """Run a broker, a failing fleet, the monitor and its receivers in one process.

    It installs nothing and leaves nothing behind: its files are in a temporary directory that is removed at the end.
    """
    stop = threading.Event()
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(_stopped_by_signals(stop))
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="celery-monitor-demo-")))
        pager = Pager()
        pager.start()
        cleanup.callback(pager.stop)
        now = SystemClock().now()
        notice = _notice(now, days)
        settings = configure(directory, host=host, port=_free_port(host, port), pager=pager.url, notice=notice)
        # Not closed: a thread that did not stop in time may still write to it.
        file = (directory / "monitor.log").open("w", encoding="utf-8")
        log.configure("info", "console", secrets_of(settings), to=file)
        logging.captureWarnings(capture=True)
        shop = Shop(directory)
        if days:
            history.write(settings, shop, SystemClock(), days)
        daemon, fleet = Daemon(settings), Fleet(shop, rate)
        url = settings.web.external_url or ""
        cleanup.callback(_stop, daemon, fleet)
        daemon.start(stop)
        _introduce(url, directory, notice)  # now that its addresses answer
        fleet.start()
        report = DayReport(daemon.app.store.reader, FLEET, dt.UTC, paging=True)
        mailbox = Mailbox(report, SystemClock(), directory / "mail.html", url)
        _watch(daemon, mailbox, stop, seconds)


def _notice(now: float, days: int) -> str:
    """The notice at the top of every page."""
    started_at = f"{dt.datetime.fromtimestamp(now, dt.UTC):%H:%M} UTC"
    span = f"{days} days" if days > 1 else "day"
    generated = f"The data of the {span} before {started_at} is generated; newer data" if days else "The data"
    return f"Demonstration. {generated} is counted from a small fleet in the demo's own process."


def _introduce(url: str, directory: Path, notice: str) -> None:
    introduce(
        f"celery-monitor demo: an in-memory broker, a shop with {len(WORKERS)} workers, and the monitor",
        {
            "page": f"{url}/",
            "metrics": f"{url}/metrics",
            "tasks as JSON": f"{url}/api/v1/tasks",
            "daily mail": f"{directory}/mail.html",
            "the shop's code": f"{directory}/app/shop/",
            "configuration": f"{directory}/celery-monitor.yaml",
            "log": f"{directory}/monitor.log",
            "to stop": "Ctrl-C",
        },
        notice,
    )


def _watch(daemon: Daemon, mailbox: Mailbox, stop: threading.Event, seconds: float | None) -> None:
    """Print counts and write mails until ``stop`` or after ``seconds``. Raises MonitorError if the monitor ends."""
    started_at = time.monotonic()
    deadline = math.inf if seconds is None else started_at + seconds
    counts_at, mail_at = started_at + _COUNTS_INTERVAL, started_at + _FIRST_MAIL
    while not stop.is_set() and time.monotonic() < deadline:
        daemon.check()
        stop.wait(max(0.0, min(_CHECK_INTERVAL, deadline - time.monotonic())))
        if time.monotonic() >= counts_at:
            counts_at += _COUNTS_INTERVAL
            _say_counts(daemon)
        if time.monotonic() >= mail_at:
            mail_at += _MAIL_INTERVAL
            mailbox.deliver()


def _say_counts(daemon: Daemon) -> None:
    counts = daemon.counts()
    say("counts", "  ".join(f"{name} {counts[name]:<6,}" for name in _SHOWN).rstrip())


def _stop(daemon: Daemon, fleet: Fleet) -> None:
    """Stop the fleet first, so that the monitor can count all of its tasks."""
    fleet.stop(_FLEET_ENDS_WITHIN)
    deadline = time.monotonic() + _COUNTED_WITHIN
    counts = daemon.counts()
    while counts["sent"] != fleet.sent + counts["retried"] and time.monotonic() < deadline:
        time.sleep(_CHECK_INTERVAL)
        counts = daemon.counts()
    if fleet.sent:
        _say_counts(daemon)
        shop, retries = f"{fleet.sent:,}", f"{counts['retried']:,}"
        say("end", f"{shop} tasks sent by the shop, {retries} retried by workers: {counts['sent']:,} counted")
    daemon.stop()


def _free_port(host: str, first: int) -> int:
    """The first free port from ``first`` on. Raises MonitorError."""
    reason = "invalid port"
    for port in range(first, min(first + _PORTS, 65536)):
        try:
            with socket.create_server((host, port)):
                return port
        except OSError as exc:
            reason = exc.strerror or str(exc)
            if exc.errno != errno.EADDRINUSE:
                break
    raise MonitorError(f"cannot listen on {host}, port {first} or one of the next {_PORTS}: {reason}")


@contextlib.contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM, SIGINT and SIGHUP set ``stop``; a second signal has its normal effect."""

    def ask(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.signal(number, ask) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
