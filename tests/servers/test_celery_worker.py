"""The fleet's workers send, on both brokers, what ``OUTCOMES`` says of each outcome."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import kombu
from celery.events.event import get_exchange

from tests.conftest import Start
from tests.fleet.outcomes import OUTCOMES, client, send_outcomes
from tests.servers import CeleryWorker, wait_until

Drain = Callable[[Callable[[list[dict[str, Any]]], bool]], list[dict[str, Any]]]


@contextmanager
def events_of(url: str) -> Iterator[Drain]:
    """Subscribe, and give a function that receives until its argument is true of all events so far."""
    events: list[dict[str, Any]] = []

    def receive(body: Any, message: Any) -> None:
        events.extend(body if isinstance(body, list) else [body])
        message.ack()

    def drain(done: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        deadline = time.monotonic() + 180
        while not done(events):
            assert time.monotonic() < deadline, Counter(event["type"] for event in events)
            with suppress(TimeoutError):
                connection.drain_events(timeout=1)
        return events

    with kombu.Connection(url) as connection:
        queue = kombu.Queue("events", exchange=get_exchange(connection), routing_key="#")
        with kombu.Consumer(connection.channel(), [queue], callbacks=[receive]):
            # Redis is subscribed to by the first drain.
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.1)
            yield drain


def counts_of(events: list[dict[str, Any]], uuid: str) -> dict[str, int]:
    """How many task events of each type this uuid has; a hard limit's or a Reject's twin counts as it came."""
    return dict(Counter(event["type"].removeprefix("task-") for event in events if event.get("uuid") == uuid))


def test_every_outcome_is_sent_as_the_table_says(broker_url: str, start: Start, tmp_path: Path) -> None:
    """Each task's events are those of its outcome; only a hard limit's failure comes twice."""
    expected = {name: dict(outcome.counts) for name, outcome in OUTCOMES.items()}
    expected["hard limit"]["failed"] = 2
    with events_of(broker_url) as drain:
        start(CeleryWorker(tmp_path, broker_url))
        uuids = send_outcomes(client(broker_url))

        def found(events: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
            return {name: counts_of(events, uuid) for name, uuid in uuids.items()}

        events = drain(
            lambda events: all(
                sum(have.values()) >= sum(expected[name].values()) for name, have in found(events).items()
            )
        )
    assert found(events) == expected


def test_a_killed_worker_comes_back(broker_url: str, start: Start, tmp_path: Path) -> None:
    """The parent's death is silent; a restarted worker says that it is online, and takes tasks."""
    with events_of(broker_url) as drain:
        worker = start(CeleryWorker(tmp_path, broker_url, hostname="one", concurrency=1, pool="threads"))
        worker.signal(signal.SIGKILL)
        wait_until(lambda: not worker.running, what="the death of the parent")
        worker.kill()
        worker.start()
        client(broker_url).send_task("fleet.succeed")
        events = drain(lambda events: any(event["type"] == "task-succeeded" for event in events))
    kinds = Counter(event["type"] for event in events if event["hostname"] == "celery@one")
    assert kinds["worker-online"] == 2
    assert kinds["worker-offline"] == 0
