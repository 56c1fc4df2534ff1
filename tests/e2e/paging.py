"""Helpers for the tests of paging: failures to publish, a daemon that pages a test server, and the expected pages."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from bench.publish import body, paced, publisher
from celery_monitor.cli import main
from tests.e2e.daemon import Daemon
from tests.servers.pagerduty import PagerDutyServer
from tests.servers.waiting import wait_until

KEY = "R" * 32
"""The routing key that ``pager`` sends with."""
HOUR = 3600.0
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Failing:
    """A failure to publish. ``at``: its event's timestamp."""

    task: str
    at: float
    message: str = "card declined"
    uuid: str = field(default_factory=lambda: f"failing-{next(_numbers):06}")

    @property
    def key(self) -> str:
        """The dedup key, in UTC."""
        return f"{self.task}/{datetime.fromtimestamp(self.at, UTC):%Y-%m-%dT%HZ}"

    def events(self) -> list[dict[str, Any]]:
        """The events that a worker sends: only the first one has the name."""
        both = {"hostname": "celery@box", "uuid": self.uuid, "utcoffset": 0, "pid": 1, "clock": 1, "timestamp": self.at}
        frame = '  File "/srv/shop/billing.py", line 41, in charge\n    raise error\n'
        return [
            both | {"type": "task-received", "name": self.task, "args": "()", "kwargs": "{}", "retries": 0},
            both
            | {
                "type": "task-failed",
                "exception": f"ValueError({self.message!r})",
                "traceback": f"Traceback (most recent call last):\n{frame}ValueError: {self.message}\n",
            },
        ]


def succeeding(task: str, at: float) -> list[dict[str, Any]]:
    """The events of a task that succeeds."""
    both = {"hostname": "celery@box", "uuid": f"succeeding-{next(_numbers):06}", "timestamp": at}
    return [
        both | {"type": "task-received", "name": task},
        both | {"type": "task-succeeded", "result": "None", "runtime": 0.1},
    ]


def publish(url: str, failures: Sequence[Failing], *, rate: float = 4000.0, per_message: int = 1) -> None:
    """Publish failures at ``rate`` events per second in messages of ``per_message``, and wait for the broker."""
    with publishing(url, failures, rate=rate, per_message=per_message):
        pass


def publish_events(url: str, events: list[dict[str, Any]]) -> None:
    """Publish one message."""
    to = publisher(url)
    to.publish(body(events))
    to.settle()
    to.close()


@dataclass
class Progress:
    """Failures that are being published."""

    sent: int = 0
    ended: bool = False
    error: BaseException | None = None

    def until(self, sent: int) -> None:
        """Wait until this many failures are published, or all."""
        wait_until(lambda: self.ended or self.sent >= sent, 3600, every=0.005, what=f"failure {sent}")


@contextmanager
def publishing(url: str, failures: Sequence[Failing], *, rate: float, per_message: int = 1) -> Iterator[Progress]:
    """Publish failures in the background; the end of the block waits until the broker has all."""
    progress = Progress()

    def run() -> None:
        messages = (
            [event for failing in failures[start : start + per_message] for event in failing.events()]
            for start in range(0, len(failures), per_message)
        )
        to = publisher(url)
        try:
            for events in paced(messages, rate):
                to.publish(body(events))
                progress.sent += per_message
            to.settle()
        except BaseException as exc:  # noqa: BLE001 - it is raised again below
            progress.error = exc
        finally:
            to.close()
            progress.ended = True

    thread = threading.Thread(target=run, name="publisher", daemon=True)
    thread.start()
    yield progress
    thread.join()
    if progress.error is not None:
        raise progress.error


def pager(
    directory: Path, broker_url: str, server: PagerDutyServer, settings: Mapping[str, Mapping[str, Any]] | None = None
) -> Daemon:
    """A daemon that pages ``server``; ``settings`` override its configuration, section by section."""
    pagerduty = {"url": server.url, "routing_key": KEY, "timeout": "30s"}
    wanted = dict(settings or {})
    wanted["pagerduty"] = pagerduty | dict(wanted.get("pagerduty", {}))
    return Daemon(directory, broker_url, wanted)


def reported_failures(server: PagerDutyServer) -> dict[str, int]:
    """Dedup key → failures, according to the newest accepted trigger."""
    return {seen.key: int(seen.details["failures"]) for seen in server.taken() if seen.action == "trigger"}


def wait_until_reported(server: PagerDutyServer, failures: Sequence[Failing], timeout: float = 90.0) -> None:
    """Wait until each incident was opened and includes all of its failures. Raises with every difference."""
    expected = Counter(failing.key for failing in failures)
    try:
        wait_until(lambda: reported_failures(server) == expected, timeout, every=0.05)
    except TimeoutError:
        found = reported_failures(server)
        wrong = {key: (found.get(key), expected.get(key)) for key in {*found, *expected}}
        message = f"(told, true): { {key: pair for key, pair in wrong.items() if pair[0] != pair[1]} }"
        raise AssertionError(message) from None


def assert_opened_once(server: PagerDutyServer, failures: Sequence[Failing]) -> None:
    """One incident for each task and hour, opened once, without violations of the contract."""
    assert server.opened() == dict.fromkeys((failing.key for failing in failures), 1)
    assert server.violations == []


def command(daemon: Daemon, *arguments: str) -> Result:
    """Run a command of the monitor with the daemon's configuration, in this process, to be quick."""
    return CliRunner().invoke(main, [*arguments, "--config", str(daemon.config)])


def in_one_hour(seconds: float) -> float:
    """The current time, once the hour (in UTC) will last for ``seconds``: failures until then share one incident."""
    wait_until(lambda: time.time() % HOUR < HOUR - seconds, seconds + 1, every=0.1, what="the next hour")
    return time.time()


def whole_hours(number: int) -> float:
    """The beginning of the last ``number`` whole hours (UTC)."""
    return time.time() // HOUR * HOUR - number * HOUR
