"""The in-memory broker of the demo."""

import json

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.events.event import get_exchange
from kombu import Connection

from celery_monitor.adapters.broker.dial import event_exchange
from tests.adapters.broker.conftest import Listening, Probing, collect
from tests.servers import wait_until


def nothing() -> None:
    """A task."""


def test_celery_in_one_process(listening: Listening) -> None:
    """Events of a Celery worker in a thread of this process are received."""
    app = Celery(broker="memory://", backend="cache+memory://")
    app.conf.update(task_send_sent_event=True, broker_transport_options={"polling_interval": 0.01})

    app.task(name="memory.nothing")(nothing)

    source = listening("memory://")
    assert not source.acknowledges
    seen: list[str] = []
    with start_worker(app, pool="solo", perform_ping_check=False, task_events=True, shutdown_timeout=30):
        app.send_task("memory.nothing")

        def finished() -> bool:
            for delivery in collect(source, 1):
                body = json.loads(delivery.body)
                seen.extend(event["type"] for event in (body if isinstance(body, list) else [body]))
            return "task-succeeded" in seen

        wait_until(finished, 60)
    assert {"task-sent", "task-received", "task-started"} <= set(seen)


def test_connecting_again(listening: Listening, probing: Probing) -> None:
    """Abandoned sources leave at most one queue, and its events are not delivered."""
    from kombu.transport.memory import Channel

    source, probe = listening("memory://"), probing("memory://")
    for _ in range(3):
        source.abandon()
        probe.send(b"missed", 1)
        source.connect()
        probe.send(b"seen", 1)
        assert [delivery.body for delivery in collect(source, 1)] == [b"seen"]
    assert len([name for name in Channel.queues if name.startswith("celery-monitor")]) == 1


@pytest.mark.parametrize("url", ["memory://", "redis://", "rediss://", "sentinel://", "amqp://", "amqps://"])
@pytest.mark.parametrize("name", ["celeryev", "shop.events"])
def test_the_exchange_is_celerys(url: str, name: str) -> None:
    """The exchange that the monitor describes to kombu equals Celery's."""
    connection = Connection(url)
    assert event_exchange(connection, name) == get_exchange(connection, name)
    assert event_exchange(connection, name).as_dict() == get_exchange(connection, name).as_dict()
