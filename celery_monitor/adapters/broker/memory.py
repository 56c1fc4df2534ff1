"""The event stream of kombu's in-memory broker, for the demo: everything happens in this process."""

import contextlib
from typing import Any

from kombu import Consumer, Queue

from celery_monitor.adapters.broker.dial import Dialer, event_exchange
from celery_monitor.adapters.broker.faults import UNHEEDED
from celery_monitor.core.model import Delivery
from celery_monitor.ports import Batch
from celery_monitor.settings.broker import BrokerSettings


class MemoryLink:
    """A kombu consumer on a queue of its own."""

    standby: bool = False
    created: bool = False

    def __init__(self, dialer: Dialer, settings: BrokerSettings) -> None:
        """Declares and begins to consume. Raises what the library raises."""
        self._limit = settings.prefetch // 2
        self._found: list[Delivery] = []
        client = dialer.dial()
        self._transport = client.transport
        self._transport.establish_connection()
        self._channel = self._transport.create_channel(self._transport)
        exchange = event_exchange(client, settings.exchange)
        # Always the same name: kombu never forgets a binding in memory, and would fill each queue that ever was.
        self._queue = Queue(settings.queue.name, exchange, routing_key="#", durable=False)(self._channel)
        self._queue.declare()
        self._queue.purge()
        self._consumer = Consumer(self._channel, [self._queue], no_ack=True, on_message=self._on_message)
        self._consumer.consume()

    def _on_message(self, message: Any) -> None:  # noqa: ANN401 - kombu has no types
        body = message.body
        self._found.append(
            Delivery(body.encode() if isinstance(body, str) else bytes(body), message.content_type or "")
        )

    def read(self, timeout: float) -> Batch | None:
        """As EventSource.poll. Raises what the library raises."""
        self._found = []
        deliveries = self._found
        with contextlib.suppress(TimeoutError):
            while len(deliveries) < self._limit:
                self._transport.drain_events(self._transport, timeout=0 if deliveries else timeout)
        return Batch(deliveries, 0) if deliveries else None

    def ack(self, tag: int) -> None:
        """Nothing: what was read is gone."""

    def cut(self) -> None:
        """Nothing: there is no connection."""

    def release(self) -> None:
        """Delete the queue."""
        with UNHEEDED:
            self._consumer.cancel()
            self._queue.delete()
            self._channel.close()

    def leave(self, deadline: float) -> None:
        """Nobody to say good-bye to."""
