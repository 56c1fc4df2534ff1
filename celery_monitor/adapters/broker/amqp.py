"""The event stream on RabbitMQ: a named, bounded queue of the monitor's own, acknowledged by hand."""

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from amqp import Channel, spec
from amqp import Connection as AmqpConnection
from amqp.exceptions import AccessRefused, NotFound, PreconditionFailed

from celery_monitor.adapters.broker.dial import CONNECT_TIMEOUT, Dialer
from celery_monitor.adapters.broker.faults import UNHEEDED, describe, lost
from celery_monitor.adapters.broker.frames import LONGEST_FRAME, FrameReader, StreamClosedError
from celery_monitor.adapters.broker.wire import POLL_BYTES, Wire
from celery_monitor.errors import SourceLostError
from celery_monitor.ports import Batch
from celery_monitor.settings.broker import BrokerSettings

if TYPE_CHECKING:
    from celery_monitor.core.model import Delivery

_TICKS_PER_HEARTBEAT: Final = 4
_FAREWELL: Final = 2.0
"""Seconds that the broker may need to see that this monitor's last connection is gone."""
_NEVER_GIVE_UP: Final = 2**31 - 1


class AmqpLink:
    """One connection that consumes. py-amqp opens it and writes; the reading is done here."""

    def __init__(self, dialer: Dialer, settings: BrokerSettings) -> None:
        """Connects, declares, and consumes within some seconds. Raises SourceLostError, or what py-amqp does."""
        self._limit = settings.prefetch // 2
        client = dialer.dial(heartbeat=settings.heartbeat)
        self._amqp: AmqpConnection = client.transport.establish_connection()
        with contextlib.ExitStack() as undo:
            undo.callback(self._amqp.collect)
            self._wire = Wire(self._amqp.sock)
            self._wire.writing()
            # The last call that py-amqp reads an answer for is Basic.Consume; it reads exactly one frame at a time, so
            # that what follows is left to the FrameReader.
            with self._wire.bounded(CONNECT_TIMEOUT):
                self._channel: Channel = self._amqp.channel()
                vhost, permissions = client.virtual_host or "/", dialer.permissions(client)
                Declaration(self._channel, settings, vhost, permissions).run()
            undo.pop_all()
        self._reader = FrameReader(settings.max_message_bytes, max(LONGEST_FRAME, self._amqp.frame_max))
        self._tick_every = self._amqp.heartbeat / _TICKS_PER_HEARTBEAT
        self._next_tick = 0.0

    def read(self, timeout: float) -> Batch | None:
        """As EventSource.poll. Raises what the library raises."""
        found: list[Delivery] = []
        self._reader.feed(b"", self._limit, found)
        if self._tick_every:
            timeout = min(timeout, self._tick_every)
        until, left = time.monotonic() + timeout, POLL_BYTES
        while len(found) < self._limit and (left > 0 or not found):
            data = self._wire.receive(0 if found else max(0, until - time.monotonic()))
            if data is None:
                break
            left -= len(data)
            self._amqp.bytes_recv += 1  # what py-amqp looks at to see that the broker is alive
            self._reader.feed(data, self._limit, found)
            if self._wire.drained if found else time.monotonic() >= until:
                break
        self._check_heartbeat()
        moving = left < POLL_BYTES and self._reader.midway
        return Batch(found, self._reader.tag) if found or moving else None

    def _check_heartbeat(self) -> None:
        # Only after reading: when nobody has read for long, the broker's signs of life are what was not read.
        now = time.monotonic()
        if self._tick_every and now >= self._next_tick:
            self._next_tick = now + self._tick_every
            self._wire.writing()
            self._amqp.heartbeat_tick()

    def ack(self, tag: int) -> None:
        """Everything up to ``tag``. Raises what the library raises."""
        self._wire.writing()
        self._channel.basic_ack(tag, multiple=True)

    def cut(self) -> None:
        """End it without a word. Never blocks; any thread."""
        self._wire.cut()

    def release(self) -> None:
        """Free what is left after ``cut``."""
        with UNHEEDED:
            self._amqp.collect()

    def leave(self, until: float) -> None:
        """Say good-bye and wait for the answer, until this monotonic time. Raises what the library raises."""
        self._wire.writing()
        self._amqp.send_method(spec.Connection.Close, "BsBB", (0, "", 0, 0))
        with contextlib.suppress(StreamClosedError):
            while (left := until - time.monotonic()) > 0:
                self._reader.feed(self._wire.receive(left) or b"", self._limit, [])


class Declaration:
    """Exchange, queue, binding, consumer; each refusal is told with the remedy."""

    def __init__(self, channel: Channel, settings: BrokerSettings, vhost: str, permissions: str) -> None:
        self._channel = channel
        self._settings = settings
        self._queue = settings.queue
        self._vhost = vhost
        self._permissions = permissions

    def run(self) -> None:
        """Declare and consume. Raises SourceLostError, and what the library raises."""
        self._exchange()
        self.queue()
        self._step("bind the queue", self._channel.queue_bind, self._queue.name, self._settings.exchange, "#")
        patience = time.monotonic() + _FAREWELL
        while not self._consume(last_try=time.monotonic() > patience):
            time.sleep(_FAREWELL / 20)

    def _consume(self, *, last_try: bool) -> bool:
        """Begin to consume; False when somebody else does."""
        try:
            self._channel.basic_qos(0, self._settings.prefetch, a_global=False)
            # Exclusive: a second monitor on this queue would silently take half of the events.
            self._channel.basic_consume(self._queue.name, exclusive=True)
        except AccessRefused as exc:
            if "exclusive" not in exc.reply_text:
                raise lost(exc, "cannot consume", self._permissions) from exc
            if last_try:
                raise SourceLostError(f"cannot consume: {describe(exc)}", self._taken()) from exc
            return False
        return True

    def _exchange(self) -> None:
        name = self._settings.exchange
        try:
            # Usually the fleet has declared it: then no permission is needed, and its arguments are the fleet's choice.
            self._channel.exchange_declare(name, "topic", passive=True)
        except NotFound:
            self._step(
                "declare the exchange", self._channel.exchange_declare, name, "topic", durable=True, auto_delete=False
            )

    def queue(self) -> None:
        """Declare the queue; it may be there already. Raises SourceLostError, and what the library raises."""
        name = self._queue.name
        try:
            self._channel.queue_declare(
                name, durable=self._queue.durable, auto_delete=False, arguments=self._arguments()
            )
        except PreconditionFailed as exc:
            raise SourceLostError(
                f"the queue {name} exists and was declared differently ({describe(exc)})",
                f"when it is drained, delete it (rabbitmqctl delete_queue -p {self._vhost} {name}), or choose another "
                "broker.queue.name",
            ) from exc
        except AccessRefused as exc:
            try:
                self._channel.queue_declare(name, passive=True)
            except NotFound:
                raise lost(exc, "cannot declare the queue", self._permissions) from exc

    def _arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "x-queue-type": self._queue.type,
            "x-expires": int(self._queue.expires * 1000),
            "x-max-length-bytes": self._queue.max_bytes,
            "x-overflow": "drop-head",
        }
        if self._queue.type == "quorum":
            # From version 4 on RabbitMQ drops what came back twenty times, and each restart of the monitor brings it
            # back once. A great number means never to every version; -1 is refused by those before 4.
            arguments["x-delivery-limit"] = _NEVER_GIVE_UP
        return arguments

    def _step(self, doing: str, call: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - py-amqp has no types
        try:
            call(*args, **kwargs)
        except AccessRefused as exc:
            raise lost(exc, f"cannot {doing}", self._permissions) from exc

    def _taken(self) -> str:
        return (
            f"another monitor consumes the queue {self._queue.name}: stop it, or give this one another "
            "broker.queue.name (a connection that died silently is forgotten by the broker after two heartbeats)"
        )
