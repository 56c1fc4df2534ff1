"""One connection to RabbitMQ that consumes a queue. ``declare`` defines the queue."""

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from amqp import Channel, spec
from amqp import Connection as AmqpConnection

from celery_monitor.adapters.broker.declare import Consumer, Target
from celery_monitor.adapters.broker.dial import CONNECT_TIMEOUT, Dialer
from celery_monitor.adapters.broker.faults import IGNORE_ERRORS
from celery_monitor.adapters.broker.frames import MAX_FRAME_SIZE, FrameReader, StreamClosedError
from celery_monitor.adapters.broker.wire import POLL_BYTES, Wire
from celery_monitor.ports import Batch
from celery_monitor.settings.broker import BrokerSettings

if TYPE_CHECKING:
    from celery_monitor.core.model import Delivery

_TICKS_PER_HEARTBEAT: Final = 4


class AmqpLink:
    """One connection that consumes. py-amqp connects and writes; this class reads."""

    def __init__(
        self,
        dialer: Dialer,
        settings: BrokerSettings,
        consume: Callable[[Target, BrokerSettings], Consumer],
    ) -> None:
        """Connects, declares and starts to consume within some seconds. Raises SourceLostError or errors of py-amqp."""
        self._limit = settings.prefetch // 2
        client = dialer.dial(heartbeat=settings.heartbeat)
        self._amqp: AmqpConnection = client.transport.establish_connection()
        with contextlib.ExitStack() as undo:
            undo.callback(self._amqp.collect)
            self._wire = Wire(self._amqp.sock)
            self._wire.writing()
            # Basic.Consume is the last call whose answer py-amqp reads. It reads exactly one frame at a time, so all
            # later frames are left for the FrameReader.
            with self._wire.bounded(CONNECT_TIMEOUT):
                self._channel: Channel = self._amqp.channel()
                target = Target(self._channel, client.virtual_host or "/", dialer.permissions(client))
                consumer = consume(target, settings)
            undo.pop_all()
        self.standby, self.created = consumer.standby, consumer.created
        self._reader = FrameReader(settings.max_message_bytes, max(MAX_FRAME_SIZE, self._amqp.frame_max))
        self._tick_interval = self._amqp.heartbeat / _TICKS_PER_HEARTBEAT
        self._next_tick = 0.0

    def read(self, timeout: float) -> Batch | None:
        """As EventSource.poll. Raises errors of the library."""
        deliveries: list[Delivery] = []
        self._reader.feed(b"", self._limit, deliveries)
        if self._tick_interval:
            timeout = min(timeout, self._tick_interval)
        deadline, bytes_left = time.monotonic() + timeout, POLL_BYTES
        while len(deliveries) < self._limit and (bytes_left > 0 or not deliveries):
            data = self._wire.receive(0 if deliveries else max(0, deadline - time.monotonic()))
            if data is None:
                break
            bytes_left -= len(data)
            self._amqp.bytes_recv += 1  # py-amqp uses this to check that the broker is alive
            self._reader.feed(data, self._limit, deliveries)
            if self._wire.drained if deliveries else time.monotonic() >= deadline:
                break
        self._check_heartbeat()
        if deliveries:
            self.standby = False
        moving = bytes_left < POLL_BYTES and self._reader.is_mid_message
        return Batch(deliveries, self._reader.tag) if deliveries or moving else None

    def _check_heartbeat(self) -> None:
        # Only after reading: if this process has not read for long, the broker's heartbeats are among the unread data.
        now = time.monotonic()
        if self._tick_interval and now >= self._next_tick:
            self._next_tick = now + self._tick_interval
            self._wire.writing()
            self._amqp.heartbeat_tick()

    def ack(self, tag: int) -> None:
        """Acknowledge all messages up to ``tag``. Raises errors of the library."""
        self._wire.writing()
        self._channel.basic_ack(tag, multiple=True)

    def cut(self) -> None:
        """See Link."""
        self._wire.cut()

    def release(self) -> None:
        """See Link."""
        with IGNORE_ERRORS:
            self._amqp.collect()

    def leave(self, deadline: float) -> None:
        """See Link. Raises errors of the library."""
        self._wire.writing()
        self._amqp.send_method(spec.Connection.Close, "BsBB", (0, "", 0, 0))
        with contextlib.suppress(StreamClosedError):
            while (timeout := deadline - time.monotonic()) > 0:
                self._reader.feed(self._wire.receive(timeout) or b"", self._limit, [])
