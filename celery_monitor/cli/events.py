"""``celery-monitor events``: the live stream for a person, beside a running monitor and without disturbing it."""

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
_INTRODUCTION: Final = 1.0
"""Seconds that workers have to name what they hold already."""
_POLL: Final = 0.25
_WIDTH: Final = 200
_TYPE_WIDTH: Final = 16
_NAME_WIDTH: Final = 28
_UUID_WIDTH: Final = 36
_RETRY: Final = re.compile(r"Retry\((?:Retry\(\.\.\.\), )?(.*), (?:[^,()]*|datetime\.datetime\(.*\))\)", re.DOTALL)
"""How Celery's exception of a retry shows itself: itself, the cause, when."""
_RETRY_LINE: Final = re.compile(
    r"^celery\.exceptions\.Retry: Retry (?:in \S+|at \S+(?: \S+)?): (.+)\Z", re.MULTILINE | re.DOTALL
)
"""The end of its traceback, where the event itself does not say the cause."""
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
    """Raises SourceLostError."""
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
    """The first address of the broker that can be reached. Raises SourceLostError: the first one's."""
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
    """What the workers hold; nothing when they cannot be asked: the stream alone is worth showing."""
    with closing(BrokerFleet(settings)) as fleet, suppress(SourceLostError):
        return fleet.tasks(_INTRODUCTION)
    return ()


@contextmanager
def _quiet() -> Iterator[None]:
    """Ctrl-C and a reader that has gone (`| head`) are ends like any other."""
    try:
        yield
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        output.give_up()


class _EventPrinter:
    """Messages → lines. ``glob`` leaves only tasks with such a name."""

    def __init__(self, glob: str | None, redact: Sequence[Pattern]) -> None:
        self.tasks_seen = False
        self._glob = glob
        self._redact = redact
        self._tracker = Tracker(max_tasks=_MAX_TASKS, max_age=_MAX_AGE, linger=_LINGER)

    def learn(self, tasks: Sequence[FleetTask], now: float) -> None:
        """Names of what began before."""
        self._tracker.tick(now)  # a task's age counts from here
        self._tracker.learn(tasks)

    def lines(self, deliveries: Sequence[Delivery], now: float) -> Iterator[str]:
        """A line for each event that is wanted."""
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
            return None  # a running monitor's own
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
        words = [event.hostname, *self._facts(event, measured)]
        if kind is not None:
            words = [f"{printable(name or _UNKNOWN, _WIDTH):<{_NAME_WIDTH}}", f"{event.uuid:<{_UUID_WIDTH}}", *words]
        label = click.style(f"{printable(event.type, _WIDTH):<{_TYPE_WIDTH}}", fg=_COLOURS.get(event.type))
        at = rfc3339(event.timestamp, "milliseconds") or ""
        return "  ".join([at, label, *(printable(word, _WIDTH) for word in words)])

    def _facts(self, event: Event, measured: float | None) -> Iterator[str]:
        """What the event says beside who and when."""
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
    """What made a task be retried: versions of Celery send it, the exception that asks for the retry, or nothing."""
    match = _RETRY.fullmatch(event.exception or "")
    cause = match[1] if match else event.exception
    if cause in {None, "None"}:
        last = _RETRY_LINE.search((event.traceback or "").rstrip()[-MAX_MESSAGE_LENGTH:])
        cause = last[1] if last else None
    return cause
