"""Reads the event stream beside a running monitor, without taking messages from its queue or leaving anything behind.

On AMQP, it uses a temporary queue that is deleted with the connection. On other transports, all subscribers receive all
messages. It uses the monitor's reader, so it is as robust against invalid messages.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final
from uuid import uuid4

from amqp.exceptions import NotFound

from celery_monitor.adapters.broker.amqp import AmqpLink
from celery_monitor.adapters.broker.declare import Consumer, Target
from celery_monitor.adapters.broker.faults import Boundary, lost
from celery_monitor.adapters.broker.source import BrokerSource
from celery_monitor.core.model import Delivery
from celery_monitor.errors import SourceLostError
from celery_monitor.settings.broker import BrokerSettings

_MAX_BYTES: Final = 32 << 20
"""Maximum bytes of the queue, if the reader is slower than the stream. The broker drops the oldest messages first."""


class Listener:
    """The event stream, for a person. For use by one thread. If it is not polled for long, messages are lost."""

    def __init__(self, settings: BrokerSettings) -> None:
        """Does no I/O."""
        self._source = BrokerSource(settings, amqp=partial(AmqpLink, consume=_consume))

    def connect(self) -> None:
        """Open the stream. Raises SourceLostError. Bounded in time."""
        self._source.connect()

    def poll(self, timeout: float) -> Sequence[Delivery]:
        """The messages that have arrived, after waiting at most ``timeout`` seconds for any. Raises SourceLostError."""
        deliveries = self._source.poll(timeout)
        return () if deliveries is None else deliveries.deliveries

    def close(self) -> None:
        """Close the stream, within 2 s."""
        self._source.close()


def _consume(target: Target, settings: BrokerSettings) -> Consumer:
    """Consume an exclusive queue on the event exchange, without acknowledgements."""
    # The name ends like a reply queue of remote control, because the monitor's user may always declare these.
    name, channel = f"{settings.queue.name}-{uuid4().hex[:12]}.reply.celery.pidbox", target.channel
    with Boundary(partial(_refused, target, settings.exchange)):
        channel.exchange_declare(settings.exchange, "topic", passive=True)
        arguments = {"x-max-length-bytes": _MAX_BYTES}
        channel.queue_declare(name, durable=False, exclusive=True, auto_delete=True, arguments=arguments)
        channel.queue_bind(name, settings.exchange, "#")
        channel.basic_consume(name, no_ack=True)
    return Consumer()


def _refused(target: Target, exchange: str, exc: Exception) -> SourceLostError:
    if isinstance(exc, NotFound):
        return SourceLostError(
            f"the event exchange {exchange} does not exist",
            "the first worker or monitor creates it; check broker.exchange and the virtual host in broker.url",
        )
    return lost(exc, "cannot listen to the event exchange", target.permissions)
