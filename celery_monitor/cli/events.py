"""``celery-monitor events``: prints the live stream of events. It does not affect a running monitor."""

import fnmatch
import math
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import click

from celery_monitor.adapters.broker import BrokerFleet
from celery_monitor.adapters.broker.listener import Listener
from celery_monitor.adapters.clock import SystemClock
from celery_monitor.adapters.redaction import Redaction
from celery_monitor.cli import output
from celery_monitor.cli.options import broker_url, config_file
from celery_monitor.core.classify import MAX_MESSAGE_LENGTH, classify, unregistered_name
from celery_monitor.core.decode import Discarded, events_of
from celery_monitor.core.model import Delivery, Event, FleetTask
from celery_monitor.core.monitor import PROBE
from celery_monitor.core.text import Pattern, printable
from celery_monitor.core.times import rfc3339
from celery_monitor.core.track import Tracker
from celery_monitor.core.transitions import KINDS
from celery_monitor.errors import SourceLostError
from celery_monitor.settings import BrokerSettings, load

_MAX_TASKS: Final = 100_000
_MAX_AGE: Final = 86_400.0
_LINGER: Final = 60.0
_INSPECT_TIMEOUT: Final = 1.0
"""Seconds that workers have to report the tasks that they already hold."""
_POLL: Final = 0.25
_WIDTH: Final = 200
_TYPE_WIDTH: Final = 16
_NAME_WIDTH: Final = 28
_UUID_WIDTH: Final = 36
_RETRY: Final = re.compile(r"Retry\((?:Retry\(\.\.\.\), )?(.*), (?:[^,()]*|datetime\.datetime\(.*\))\)", re.DOTALL)
"""The ``repr`` of Celery's Retry exception: itself, the cause, the time."""
_RETRY_LINE: Final = re.compile(
    r"^celery\.exceptions\.Retry: Retry (?:in \S+|at \S+(?: \S+)?): (.+)\Z", re.MULTILINE | re.DOTALL
)
"""The last line of its traceback, for events without the cause."""
_UNKNOWN: Final = "(unknown)"
_COLOURS: Final = {
    "task-succeeded": "green",
    "task-failed": "red",
    "task-retried": "yellow",
    "task-rejected": "magenta",
    "task-revoked": "magenta",
    "worker-heartbeat": "bright_black",
}


@click.command()
@config_file
@broker_url
@click.option("--follow", "-f", is_flag=True, help="Run until Ctrl-C instead of for --seconds.")
@click.option("--seconds", type=click.FloatRange(min=0), default=10, show_default=True, help="Stop after this time.")
@click.option("--limit", "-n", type=click.IntRange(1), help="Stop after this many events.")
@click.option("--task", "glob", metavar="GLOB", help="Only tasks with a matching name, for example 'shop.billing.*'.")
def events(
    config_path: Path | None, broker: str | None, seconds: float, limit: int | None, glob: str | None, *, follow: bool
) -> None:
    """Print the live stream of events, one per line: time (UTC), type, task, task ID, worker and details.

    It can run beside a monitor, and does not consume the monitor's events. The names of tasks that are already running
    are requested from the workers.
    """
    settings = load(config_path, {"broker.url": broker})
    stream = _EventPrinter(glob, Redaction(settings.tracking.redact).patterns)
    with _quiet():
        deadline = math.inf if follow else SystemClock().monotonic() + seconds
        _show(settings.broker, stream, deadline, limit or sys.maxsize)
    if not follow and not stream.tasks_seen:
        click.echo("no task events received: run `celery-monitor doctor`", err=True)


def _show(settings: BrokerSettings, stream: "_EventPrinter", deadline: float, limit: int) -> None:
    """Print events until ``deadline`` or ``limit``. Raises SourceLostError."""
    clock = SystemClock()
    address, listener = _connected(settings)
    with closing(listener):
        stream.learn(_tasks_of_workers(address), clock.now())
        while limit > 0 and (remaining := deadline - clock.monotonic()) > 0:
            for line in stream.lines(listener.poll(min(_POLL, remaining)), clock.now()):
                click.echo(line)
                limit -= 1
                if not limit:
                    break


def _connected(settings: BrokerSettings) -> tuple[BrokerSettings, Listener]:
    """Connect to the first reachable address of the broker. Raises the SourceLostError of the first address."""
    refusals = []
    for address in settings.each_address():
        listener = Listener(address)
        try:
            listener.connect()
        except SourceLostError as exc:
            listener.close()
            refusals.append(exc)
        else:
            return address, listener
    raise refusals[0]


def _tasks_of_workers(settings: BrokerSettings) -> Sequence[FleetTask]:
    """The workers' tasks; empty if they do not answer, because the stream is useful without them."""
    with closing(BrokerFleet(settings)) as fleet, suppress(SourceLostError):
        return fleet.tasks(_INSPECT_TIMEOUT)
    return ()


@contextmanager
def _quiet() -> Iterator[None]:
    """End normally on Ctrl-C and when the reader of the output is gone (`| head`)."""
    try:
        yield
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        output.give_up()


class _EventPrinter:
    """Formats messages as lines. ``glob`` selects tasks by name."""

    def __init__(self, glob: str | None, redact: Sequence[Pattern]) -> None:
        self.tasks_seen = False
        self._glob = glob
        self._redact = redact
        self._tracker = Tracker(max_tasks=_MAX_TASKS, max_age=_MAX_AGE, linger=_LINGER)

    def learn(self, tasks: Sequence[FleetTask], now: float) -> None:
        """Learn the names of tasks that started before."""
        self._tracker.tick(now)  # a task's age counts from here
        self._tracker.learn(tasks)

    def lines(self, deliveries: Sequence[Delivery], now: float) -> Iterator[str]:
        """A line for each selected event."""
        self._tracker.tick(now)
        for delivery in deliveries:
            for event in events_of(delivery):
                line = self._discarded(event) if isinstance(event, Discarded) else self._line(event)
                if line is not None:
                    yield line

    def _discarded(self, discarded: Discarded) -> str | None:
        if self._glob is not None:
            return None
        return click.style(f"discarded message: {discarded.reason}", fg="red")

    def _line(self, event: Event) -> str | None:
        if event.type == PROBE:
            return None  # from a running monitor
        kind = KINDS.get(event.type)
        name: str | None = None
        measured: float | None = None
        if kind is not None and event.uuid:
            self.tasks_seen = True
            step = self._tracker.advance(event, kind)
            ref = step[0] if step is not None else self._tracker.tasks[event.uuid]
            measured = step[1] if step is not None else None
            name = ref.name or unregistered_name(event.exception)
        if self._glob is not None and (name is None or not fnmatch.fnmatchcase(name, self._glob)):
            return None
        columns = [event.hostname, *self._facts(event, measured)]
        if kind is not None:
            columns = [
                f"{printable(name or _UNKNOWN, _WIDTH):<{_NAME_WIDTH}}",
                f"{event.uuid:<{_UUID_WIDTH}}",
                *columns,
            ]
        label = click.style(f"{printable(event.type, _WIDTH):<{_TYPE_WIDTH}}", fg=_COLOURS.get(event.type))
        at = rfc3339(event.timestamp, "milliseconds") or ""
        return "  ".join([at, label, *(printable(column, _WIDTH) for column in columns)])

    def _facts(self, event: Event, measured: float | None) -> Iterator[str]:
        """The event's details: queue, times, exception, counts."""
        if event.type == "task-sent" and event.queue:
            yield f"to {event.queue}"
        if event.type == "task-started" and measured is not None:
            yield f"after {measured:.3f} s in the queue"
        if event.type == "task-succeeded" and measured is not None:
            yield f"in {measured:.3f} s"
        exception = _cause(event) if event.type == "task-retried" else event.exception
        if exception is not None:
            failure = classify(exception, event.traceback, self._redact)
            yield f"{failure.exception}: {' '.join(failure.message.split())}".removesuffix(": ")
        if event.type.startswith("worker-"):
            yield f"active {event.active or 0}, processed {event.processed or 0}"


def _cause(event: Event) -> str | None:
    """The cause of a retry. Depending on its version, Celery sends the cause, the Retry exception, or nothing."""
    match = _RETRY.fullmatch(event.exception or "")
    cause = match[1] if match else event.exception
    if cause in {None, "None"}:
        last = _RETRY_LINE.search((event.traceback or "").rstrip()[-MAX_MESSAGE_LENGTH:])
        cause = last[1] if last else None
    return cause
