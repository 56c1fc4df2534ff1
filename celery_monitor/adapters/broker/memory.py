"""The event stream of kombu's in-memory broker, which runs in this process. For the demo."""

import contextlib
from typing import Any

from kombu import Consumer, Queue

from celery_monitor.adapters.broker.dial import Dialer, event_exchange
from celery_monitor.adapters.broker.faults import IGNORE_ERRORS
from celery_monitor.core.model import Delivery
from celery_monitor.ports import Batch
from celery_monitor.settings.broker import BrokerSettings


class MemoryLink:
    """A kombu consumer on the monitor's queue."""

    standby: bool = False
    created: bool = False

    def __init__(self, dialer: Dialer, settings: BrokerSettings) -> None:
        """Declares the queue and starts to consume. Raises errors of the library."""
        self._limit = settings.prefetch // 2
        self._found: list[Delivery] = []
        client = dialer.dial()
        self._transport = client.transport
        self._transport.establish_connection()
        self._channel = self._transport.create_channel(self._transport)
        exchange = event_exchange(client, settings.exchange)
        # Always the same name, because kombu never deletes an in-memory binding and would fill all earlier queues.
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
        """As EventSource.poll. Raises errors of the library."""
        self._found = []
        deliveries = self._found
        with contextlib.suppress(TimeoutError):
            while len(deliveries) < self._limit:
                self._transport.drain_events(self._transport, timeout=0 if deliveries else timeout)
        return Batch(deliveries, 0) if deliveries else None

    def ack(self, tag: int) -> None:
        """Does nothing: there are no acknowledgements."""

    def cut(self) -> None:
        """Does nothing: there is no connection."""

    def release(self) -> None:
        """Delete the queue."""
        with IGNORE_ERRORS:
            self._consumer.cancel()
            self._queue.delete()
            self._channel.close()

    def leave(self, deadline: float) -> None:
        """Does nothing: there is no connection."""
