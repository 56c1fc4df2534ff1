"""What the campaigns share: their sizes, their seed, a load that is published in the background, and the verdict.

A campaign's moments are positions in the load ("when so many messages are out"), drawn from a seed that is printed.
``CAMPAIGN_SEED`` in the environment gives the seed of a run that is to be repeated.
"""

import os
import random
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from bench.publish import Load, Publisher, body, paced, publisher
from tests import outcomes
from tests.e2e.daemon import Counts, Daemon
from tests.servers import RabbitMQ, wait_until

QUEUE = "celery-monitor"


@dataclass(frozen=True)
class Size:
    """The size of a campaign: tasks of 3.6 events each, faults, events per second."""

    tasks: int
    faults: int
    rate: float


def sizes(short: Size, long: Size) -> pytest.MarkDecorator:
    """Run a test in the short form with ``make test``, in the long one with ``make campaign``."""
    return pytest.mark.parametrize(
        "size", [pytest.param(short, id="short"), pytest.param(long, id="long", marks=pytest.mark.campaign)]
    )


def seeded() -> random.Random:
    """A source of random moments; its seed is printed and recorded."""
    seed = int(os.environ.get("CAMPAIGN_SEED") or secrets.randbits(32))
    outcomes.seed(seed)
    return random.Random(seed)


@dataclass
class Publishing:
    """A load that is being published by a separate thread."""

    load: Load
    sent: int = 0
    """Messages that are out."""
    ended: bool = False
    error: BaseException | None = None
    total: int = field(init=False)
    """Messages of the whole load, nearly."""

    def __post_init__(self) -> None:
        self.total = self.load.events // self.load.per_message

    def until(self, sent: int) -> None:
        """Wait until this many messages are published, or all."""
        wait_until(lambda: self.ended or self.sent >= sent, 600, every=0.005, what=f"message {sent} of {self.total}")

    def moments(self, randomly: random.Random, number: int, part: float = 1.0) -> Iterator[int]:
        """Yield at this many random positions in the first part of the load, with the number of published messages."""
        for moment in sorted(randomly.randrange(int(self.total * part)) for _ in range(number)):
            self.until(moment)
            yield self.sent

    def finish(self) -> None:
        """Wait for the end. Raises what the publisher raised."""
        wait_until(lambda: self.ended, 600, what="the end of the load")
        if self.error is not None:
            raise self.error

    def run(self, publish: Callable[["Publishing"], None]) -> None:
        """Publish in this thread, and record the result."""
        try:
            publish(self)
        except BaseException as exc:  # noqa: BLE001 - it is raised again where it is waited for
            self.error = exc
        finally:
            self.ended = True


@contextmanager
def publishing(url: str, load: Load, rate: float) -> Iterator[Publishing]:
    """Publish a load in the background on a broker that stays up; the end of the block waits for it."""

    def all_of_it(state: Publishing) -> None:
        to = publisher(url)
        try:
            _publish(to, state, rate)
        finally:
            to.close()

    with in_background(load, all_of_it) as state:
        yield state


@contextmanager
def in_background(load: Load, publish: Callable[[Publishing], None]) -> Iterator[Publishing]:
    """Publish a load in the background by calling ``publish``."""
    state = Publishing(load)
    threading.Thread(target=state.run, args=(publish,), name="publisher", daemon=True).start()
    yield state
    state.finish()


def _publish(to: Publisher, state: Publishing, rate: float) -> None:
    for events in paced(state.load.messages(), rate):
        to.publish(body(events))
        state.sent += 1
    to.settle()


def classes(load: Load) -> dict[str, dict[str, int]]:
    """The expected failures: task → class → number."""
    return {task: {"ValueError": numbers["failed"]} for task, numbers in load.counts().items() if numbers["failed"]}


def assert_exact(daemon: Daemon, load: Load, others: Counts | None = None, timeout: float = 90.0) -> None:
    """Everything is counted exactly, and every failure has its name and class. ``others``: other tasks."""
    exact(daemon, load, others, timeout)
    broker = "Redis" if daemon.settings["broker"]["url"].startswith("redis") else "RabbitMQ"
    outcomes.figures(broker, events=load.events, off=0)


def exact(daemon: Daemon, load: Load, others: Counts | None = None, timeout: float = 90.0) -> None:
    """Like assert_exact, without recording figures of the test."""
    daemon.until_counts(load.counts() | dict(others or {}), timeout)
    assert daemon.exceptions() == classes(load)
    assert daemon.metric("monitor_unnamed_failures_total") == 0
    failed_events = sum(load.stages(task).count("failed") for task in range(load.tasks))
    assert daemon.metric("monitor_events_total", type="task-failed") == failed_events


def assert_drained(rabbitmq: RabbitMQ, url: str) -> None:
    """Everything is acknowledged: the monitor's queue contains at most a probe."""
    wait_until(lambda: rabbitmq.queues(vhost(url))[QUEUE] <= 1, 60, every=0.2, what="an empty queue")


def vhost(url: str) -> str:
    """The vhost of a URL of ``new_vhost``."""
    return url.rpartition("/")[2] or "/"
