"""The monitor's own events, published on a second connection: they show that the stream is alive."""

import contextlib
import time
from typing import Any, Final

from celery.events.event import get_exchange
from kombu import Producer

from celery_monitor.adapters.broker.dial import Dialer
from celery_monitor.adapters.broker.faults import FOREIGN, lost
from celery_monitor.adapters.broker.wire import Wire
from celery_monitor.errors import SourceLostError
from celery_monitor.settings.broker import BrokerSettings

ROUTING_KEY: Final = "monitor.probe"
_LEAST_TIMEOUT: Final = 0.01


class BrokerProbe:
    """Publishes to the event exchange (a Probe). For one thread."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._dialer = Dialer(settings)
        self._exchange = settings.exchange
        self._amqp: Any = None
        self._channel: Any = None
        self._producer: Any = None
        self._blocked = False

    def send(self, body: bytes, timeout: float) -> None:
        """As Probe.send. On AMQP the broker has confirmed it when this returns."""
        until = time.monotonic() + timeout
        try:
            if self._producer is None:
                self._open(timeout)
            if self._amqp is not None:
                self._amqp.sock.settimeout(max(_LEAST_TIMEOUT, until - time.monotonic()))
            self._producer.publish(
                body, ROUTING_KEY, delivery_mode=1, content_type="application/json", content_encoding="utf-8"
            )
        except FOREIGN as exc:
            blocked = self._blocked
            self.close()
            if blocked:
                raise SourceLostError(
                    "the broker takes no messages (a memory or disk alarm)",
                    "see rabbitmqctl list_alarms, and give the broker memory or disk",
                ) from exc
            raise lost(exc, "cannot publish to the event exchange") from exc

    def _open(self, timeout: float) -> None:
        """Connect, in about ``timeout`` seconds at most. Raises FOREIGN."""
        amqp = self._dialer.kind == "amqp"
        options: dict[str, Any] = {"confirm_publish": True, "on_blocked": self._on_blocked} if amqp else {}
        client = self._dialer.dial(timeout=timeout / 2, **options)
        exchange = get_exchange(client, self._exchange)
        connection = client.transport.establish_connection()
        if amqp:
            self._amqp = connection
            connection.sock.settimeout(timeout / 2)
        self._channel = client.transport.create_channel(connection)
        # Elsewhere declaring tells kombu alone that the exchange is a fanout; on AMQP it would need a permission.
        self._producer = Producer(self._channel, exchange, auto_declare=not amqp)

    def _on_blocked(self, _reason: str) -> None:
        self._blocked = True

    def close(self) -> None:
        """As Probe.close."""
        amqp, channel = self._amqp, self._channel
        self._amqp = self._channel = self._producer = None
        self._blocked = False
        with contextlib.suppress(*FOREIGN):
            if amqp is not None:
                Wire(amqp.sock).cut()
                amqp.collect()
            elif channel is not None:
                channel.close()
