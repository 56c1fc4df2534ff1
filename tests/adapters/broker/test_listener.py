"""A temporary reader of the stream beside the monitor."""

from typing import Any

import pytest
from celery.events.event import get_exchange
from kombu import Connection

from celery_monitor.adapters.broker.listener import Listener
from celery_monitor.core.model import Delivery
from tests.adapters.broker.conftest import Listening, settings
from tests.servers import RabbitMQ, Stopwatch, wait_until


def test_the_end_beside_a_frozen_broker(breakable_rabbitmq: RabbitMQ, listening: Listening) -> None:
    """A connection that cannot be closed is cut; no other one is opened for that."""
    server = breakable_rabbitmq
    listening(server.url())  # declares the exchange
    listener = Listener(settings(server.url()))
    listener.connect()
    server.pause()
    with Stopwatch() as watch:
        listener.close()
    assert watch.seconds < 4
    server.resume()


@pytest.mark.parametrize("kind", ["rabbitmq", "redis"])
def test_it_survives_every_message(kind: str, listening: Listening, request: pytest.FixtureRequest) -> None:
    """Unreadable messages are reported as such, whatever their headers contain, and later ones are shown."""
    url = request.getfixturevalue(f"{kind}_url")
    listening(url)  # declares the exchange
    listener = Listener(settings(url, max_message_bytes="64KiB"))
    listener.connect()
    odd: list[dict[str, Any]] = [
        {"headers": {"compression": "zlib"}},
        {"headers": {"compression": "bzip2", "x": 1}},
        {"content_type": "application/x-python-serialize"},
        {"content_encoding": "binary", "headers": {"a": [1, {"b": None}]}},
        {"body": b"x" * 100_000},
    ]
    with Connection(url) as connection:
        producer = connection.Producer(exchange=get_exchange(connection))
        for fields in (*odd, {}):
            plain = {"body": b"[]", "content_type": "application/json", "content_encoding": "utf-8"}
            producer.publish(routing_key="task.multi", **{**plain, **fields})
    found: list[Delivery] = []

    def all_came() -> bool:
        found.extend(listener.poll(0.2))
        return len(found) > len(odd)

    wait_until(all_came)
    listener.close()
    assert [one.refused for one in found] == ["compressed", "compressed", None, None, "too_large", None]
    assert found[-1] == Delivery(b"[]", tag=found[-1].tag)
