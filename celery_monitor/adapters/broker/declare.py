"""Declares and consumes the monitor's queue on RabbitMQ: named, bounded, and with manual acknowledgements."""

import time
from dataclasses import dataclass
from shlex import quote
from typing import Any, Final

from amqp import Channel
from amqp.exceptions import AccessRefused, NotFound, PreconditionFailed

from celery_monitor.adapters.broker.faults import describe, lost
from celery_monitor.errors import SourceLostError
from celery_monitor.settings.broker import BrokerSettings

_PREVIOUS_CONSUMER_TIMEOUT: Final = 2.0
"""Seconds that the broker may need to notice that this monitor's previous connection has ended."""
_UNLIMITED_DELIVERIES: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Target:
    """Where to declare. ``permissions``: advice if the user lacks permissions."""

    channel: Channel
    vhost: str
    permissions: str


@dataclass(frozen=True, slots=True)
class Consumer:
    """The result of ``OwnQueue.consume``."""

    standby: bool = False
    """Whether another consumer receives the messages."""
    created: bool = False
    """Whether the queue did not exist, so that it contains nothing that was published before."""


class OwnQueue:
    """The monitor's queue, over all connections of a source. For use by one thread."""

    def __init__(self) -> None:
        self._created = False
        """Whether an attempt created the queue and then failed: the next one finds the queue."""

    def consume(self, target: Target, settings: BrokerSettings) -> Consumer:
        """Declare and consume. Raises SourceLostError and errors of the library."""
        declaration = Declaration(target, settings)
        declaration.exchange()
        missing = not declaration.exists()
        declared = declaration.queue()
        self._created |= missing
        standby = declaration.consume(declared=declared)
        created, self._created = self._created, False
        return Consumer(standby=standby, created=created)


class Declaration:
    """Declares exchange, queue, binding and consumer. An error of the broker is raised with advice."""

    def __init__(self, target: Target, settings: BrokerSettings) -> None:
        self._channel = target.channel
        self._settings = settings
        self._queue = settings.queue
        self._shared = settings.queue.type == "quorum"
        self._target = target

    def consume(self, *, declared: bool) -> bool:
        """Bind and consume the queue; ``declared``: the result of ``queue``. Returns whether another one consumes it.

        Raises SourceLostError and errors of the library.
        """
        self._step("bind the queue", self._channel.queue_bind, self._queue.name, self._settings.exchange, "#")
        deadline = time.monotonic() + _PREVIOUS_CONSUMER_TIMEOUT
        # A queue that an administrator has declared may lack the arguments that exclude a second consumer.
        standby = (self._shared or not declared) and self._consumed(deadline)
        if standby and not declared:
            raise SourceLostError("cannot consume: the queue already has a consumer", self._queue_in_use())
        while not self._consume(last_try=time.monotonic() > deadline):
            time.sleep(_PREVIOUS_CONSUMER_TIMEOUT / 20)
        return standby

    def _consumed(self, deadline: float) -> bool:
        """Whether the queue still has a consumer at this monotonic time."""
        while self._channel.queue_declare(self._queue.name, passive=True).consumer_count:
            if time.monotonic() > deadline:
                return True
            time.sleep(_PREVIOUS_CONSUMER_TIMEOUT / 20)
        return False

    def _consume(self, *, last_try: bool) -> bool:
        """Start to consume. Returns False if another consumer has exclusive access."""
        try:
            self._channel.basic_qos(0, self._settings.prefetch, a_global=False)
            # Without exclusive access, a second monitor on this queue would receive half of the events. RabbitMQ
            # supports it only for classic queues; a quorum queue is declared with a single active consumer instead.
            self._channel.basic_consume(self._queue.name, exclusive=not self._shared)
        except AccessRefused as exc:
            if "exclusive" not in exc.reply_text:
                raise lost(exc, "cannot consume", self._target.permissions) from exc
            if last_try:
                raise SourceLostError(f"cannot consume: {describe(exc)}", self._queue_in_use()) from exc
            return False
        return True

    def exchange(self) -> None:
        """Declare the event exchange. Raises SourceLostError and errors of the library."""
        name = self._settings.exchange
        try:
            # Usually the fleet has declared it. Then no permission is needed, and its arguments do not matter.
            self._channel.exchange_declare(name, "topic", passive=True)
        except NotFound:
            self._step(
                "declare the exchange", self._channel.exchange_declare, name, "topic", durable=True, auto_delete=False
            )

    def exists(self) -> bool:
        """Whether the queue exists, or the user may not know. Raises errors of the library."""
        try:
            self._channel.queue_declare(self._queue.name, passive=True)
        except NotFound:
            return False
        except AccessRefused:
            return True  # unknown; the next step reports the error
        return True

    def queue(self) -> bool:
        """Declare the queue. Returns False if the user may not declare it but it exists.

        Raises SourceLostError and errors of the library.
        """
        name = self._queue.name
        try:
            self._channel.queue_declare(
                name, durable=self._queue.durable, auto_delete=False, arguments=self._arguments()
            )
        except PreconditionFailed as exc:
            if "inequivalent arg" not in str(exc.reply_text):
                raise lost(exc, "cannot declare the queue", self._target.permissions) from exc
            raise SourceLostError(
                f"the queue {name} already exists with different arguments ({describe(exc)})",
                f"drain it and delete it (rabbitmqctl delete_queue -p {quote(self._target.vhost)} {quote(name)}), or "
                "choose another broker.queue.name",
            ) from exc
        except AccessRefused as exc:
            try:
                self._channel.queue_declare(name, passive=True)
            except NotFound:
                raise lost(exc, "cannot declare the queue", self._target.permissions) from exc
            return False
        return True

    def _arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "x-queue-type": self._queue.type,
            "x-expires": int(self._queue.expires * 1000),
            "x-max-length-bytes": self._queue.max_bytes,
            "x-overflow": "drop-head",
        }
        if self._queue.type == "quorum":
            # From version 4, RabbitMQ drops a message that was returned twenty times, and each restart of the monitor
            # returns its unacknowledged messages. All versions accept a large limit; those before 4 reject -1, which
            # would mean no limit.
            arguments["x-delivery-limit"] = _UNLIMITED_DELIVERIES
            arguments["x-single-active-consumer"] = True
        return arguments

    def _step(self, doing: str, call: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - py-amqp has no types
        try:
            call(*args, **kwargs)
        except AccessRefused as exc:
            raise lost(exc, f"cannot {doing}", self._target.permissions) from exc

    def _queue_in_use(self) -> str:
        return (
            f"another monitor is consuming the queue {self._queue.name}: stop it, or set a different "
            "broker.queue.name for this one (the broker drops a dead connection after two missed heartbeats)"
        )
