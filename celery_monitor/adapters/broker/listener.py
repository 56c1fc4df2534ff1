"""A look at the event stream beside a running monitor: takes nothing from its queue, and leaves nothing behind.

On AMQP it has a queue of its own, which ends with its connection. On other transports every subscriber has one anyway.
"""

import time
from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

from amqp.exceptions import NotFound
from kombu import Consumer, Exchange, Queue

from celery_monitor.adapters.broker.dial import CONNECT_TIMEOUT, Dialer
from celery_monitor.adapters.broker.faults import boundary, lost
from celery_monitor.adapters.broker.session import Session
from celery_monitor.adapters.broker.source import BrokerSource
from celery_monitor.core.model import Delivery
from celery_monitor.errors import SourceLostError
from celery_monitor.settings.broker import BrokerSettings

CLOSE_TIMEOUT: Final = 1.0
_MOST: Final = 500
"""Messages of one poll."""
_NEXT: Final = 0.001
"""Seconds to wait for another message when there is one already: takes what has come, and waits for no more."""
_MOST_BYTES: Final = 32 << 20
"""Kept by the broker for a reader that is slower than the stream; the oldest go first."""


class Listener:
    """The event stream, for a person. For one thread. Messages are lost while nobody polls for long."""

    def __init__(self, settings: BrokerSettings) -> None:
        """Does no I/O."""
        amqp = Dialer(settings).kind == "amqp"
        self._source: _OwnQueue | BrokerSource = _OwnQueue(settings) if amqp else BrokerSource(settings)

    def connect(self) -> None:
        """Open the stream. Raises SourceLostError. Bounded in time."""
        self._source.connect()

    def poll(self, timeout: float) -> Sequence[Delivery]:
        """What came, waiting at most ``timeout`` seconds for it. Raises SourceLostError."""
        found = self._source.poll(timeout)
        if found is None:
            return ()
        return found if isinstance(found, list) else found.deliveries

    def close(self) -> None:
        """End it, at most 2 s."""
        self._source.close()


class _OwnQueue:
    """A connection with an exclusive queue on the event exchange."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._dialer = Dialer(settings)
        self._exchange = settings.exchange
        # Ends like the reply queues of remote control: those are what the monitor's user may declare everywhere.
        self._name = f"{settings.queue.name}-{uuid4().hex[:12]}.reply.celery.pidbox"
        self._session: Session | None = None
        self._found: list[Delivery] = []

    def connect(self) -> None:
        with boundary(self._refused):
            self._session = Session(self._dialer, time.monotonic() + CONNECT_TIMEOUT)
            self._consume(self._session.channel)

    def _refused(self, exc: Exception) -> SourceLostError:
        session = self._session
        self._cut()
        if isinstance(exc, NotFound):
            return SourceLostError(
                f"the event exchange {self._exchange} does not exist",
                "it comes with the first worker or monitor; check broker.exchange and the virtual host in broker.url",
            )
        permissions = None if session is None else session.permissions
        return lost(exc, "cannot listen to the event exchange", permissions, connecting=session is None)

    def _consume(self, channel: Any) -> None:  # noqa: ANN401 - kombu has no types
        exchange = Exchange(self._exchange, "topic", passive=True)
        queue = Queue(
            self._name,
            exchange,
            routing_key="#",
            durable=False,
            exclusive=True,
            auto_delete=True,
            queue_arguments={"x-max-length-bytes": _MOST_BYTES},
        )
        Consumer(channel, [queue], no_ack=True, on_message=self._on_message).consume()

    def _on_message(self, message: Any) -> None:  # noqa: ANN401 - as above
        body = message.body
        self._found.append(
            Delivery(body.encode() if isinstance(body, str) else bytes(body), message.content_type or "")
        )

    def poll(self, timeout: float) -> list[Delivery]:
        if self._session is None:
            raise SourceLostError("not connected to the broker")
        found = self._found = []
        until = time.monotonic() + timeout
        with boundary(self._broke_off):
            while len(found) < _MOST and self._session.drain(until):
                until = time.monotonic() + _NEXT
        return found

    def _broke_off(self, exc: Exception) -> SourceLostError:
        self._cut()
        return lost(exc, "the event stream broke off")

    def _cut(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.cut()

    def close(self) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        try:
            session.bound(time.monotonic() + CLOSE_TIMEOUT)
            session.channel.connection.close()
        except Exception:  # noqa: BLE001 - the boundary: it is given up anyway
            session.cut()
