"""A look at the event stream beside a running monitor: takes nothing from its queue, and leaves nothing behind.

On AMQP it has a queue of its own, which ends with its connection. On other transports every subscriber has one anyway.
It is read as the monitor reads its own: what the monitor survives, a person who looks at it survives, too.
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
"""Kept by the broker for a reader that is slower than the stream; the oldest go first."""


class Listener:
    """The event stream, for a person. For one thread. Messages are lost while nobody polls for long."""

    def __init__(self, settings: BrokerSettings) -> None:
        """Does no I/O."""
        self._source = BrokerSource(settings, amqp=partial(AmqpLink, consume=_consume))

    def connect(self) -> None:
        """Open the stream. Raises SourceLostError. Bounded in time."""
        self._source.connect()

    def poll(self, timeout: float) -> Sequence[Delivery]:
        """What came, waiting at most ``timeout`` seconds for it. Raises SourceLostError."""
        deliveries = self._source.poll(timeout)
        return () if deliveries is None else deliveries.deliveries

    def close(self) -> None:
        """End it, at most 2 s."""
        self._source.close()


def _consume(target: Target, settings: BrokerSettings) -> Consumer:
    """A queue on the event exchange that nobody else can use, without acknowledgements."""
    # Ends like the reply queues of remote control: those are what the monitor's user may declare everywhere.
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
