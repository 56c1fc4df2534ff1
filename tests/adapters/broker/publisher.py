"""Publishes like a fleet: with kombu, on the event exchange as Celery declares it."""

from collections.abc import Iterable
from typing import Any

from celery.events.event import get_exchange
from kombu import Connection, Producer


def publish(
    url: str,
    bodies: Iterable[bytes | str],
    *,
    content_type: str | None = "application/json",
    exchange: str = "celeryev",
    **options: Any,
) -> None:
    """Send each body as one message. ``options`` are kombu's for a Connection."""
    with Connection(url, **options) as connection:
        producer = Producer(connection.default_channel, get_exchange(connection, exchange))
        for body in bodies:
            producer.publish(
                body, "task.test", content_type=content_type, content_encoding="utf-8", delivery_mode=1, retry=False
            )


def numbered(count: int, first: int = 0) -> list[bytes]:
    """Bodies that contain their number."""
    return [b'{"type": "test", "n": %d}' % number for number in range(first, first + count)]
