"""What the monitor declares on RabbitMQ: a named, bounded queue of its own, acknowledged by hand."""

import time
from dataclasses import dataclass
from shlex import quote
from typing import Any, Final

from amqp import Channel
from amqp.exceptions import AccessRefused, NotFound, PreconditionFailed

from celery_monitor.adapters.broker.faults import describe, lost
from celery_monitor.errors import SourceLostError
from celery_monitor.settings.broker import BrokerSettings

_FAREWELL: Final = 2.0
"""Seconds that the broker may need to see that this monitor's last connection is gone."""
_NEVER_GIVE_UP: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Target:
    """Where to declare. ``permissions``: what to run for a user who may not."""

    channel: Channel
    vhost: str
    permissions: str


@dataclass(frozen=True, slots=True)
class Consumer:
    """How the queue was found."""

    standby: bool = False
    """Another consumer is served, and this one stands by."""
    created: bool = False
    """There was no queue: it has kept nothing of what was published before."""


class Declaration:
    """Exchange, queue, binding, consumer; each refusal is told with the remedy."""

    def __init__(self, target: Target, settings: BrokerSettings) -> None:
        self._channel = target.channel
        self._settings = settings
        self._queue = settings.queue
        self._shared = settings.queue.type == "quorum"
        self._target = target

    @classmethod
    def consume(cls, target: Target, settings: BrokerSettings) -> Consumer:
        """Declare and consume.

        Raises SourceLostError, and what the library raises.
        """
        return cls(target, settings).run()

    def run(self) -> Consumer:
        """See ``consume``."""
        self._exchange()
        created = not self._exists()
        declared = self.queue()
        self._step("bind the queue", self._channel.queue_bind, self._queue.name, self._settings.exchange, "#")
        deadline = time.monotonic() + _FAREWELL
        # What nobody but an administrator may declare need not be as it is configured: nothing is known to protect it.
        standby = (self._shared or not declared) and self._consumed(deadline)
        if standby and not declared:
            raise SourceLostError("cannot consume: the queue already has a consumer", self._queue_in_use())
        while not self._consume(last_try=time.monotonic() > deadline):
            time.sleep(_FAREWELL / 20)
        return Consumer(standby=standby, created=created)

    def _consumed(self, deadline: float) -> bool:
        """Whether the queue has a consumer, still at this monotonic time."""
        while self._channel.queue_declare(self._queue.name, passive=True).consumer_count:
            if time.monotonic() > deadline:
                return True
            time.sleep(_FAREWELL / 20)
        return False

    def _consume(self, *, last_try: bool) -> bool:
        """Begin to consume; False when somebody else does."""
        try:
            self._channel.basic_qos(0, self._settings.prefetch, a_global=False)
            # A second monitor on this queue would silently take half of the events. RabbitMQ enforces exclusive
            # consumers on classic queues only; a quorum queue is declared with a single active consumer.
            self._channel.basic_consume(self._queue.name, exclusive=not self._shared)
        except AccessRefused as exc:
            if "exclusive" not in exc.reply_text:
                raise lost(exc, "cannot consume", self._target.permissions) from exc
            if last_try:
                raise SourceLostError(f"cannot consume: {describe(exc)}", self._queue_in_use()) from exc
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

    def _exists(self) -> bool:
        try:
            self._channel.queue_declare(self._queue.name, passive=True)
        except NotFound:
            return False
        except AccessRefused:
            return True  # nothing is known, and what is refused is told by the next step
        return True

    def queue(self) -> bool:
        """Declare the queue; it may be there already. False when it may not be declared, and is there.

        Raises SourceLostError, and what the library raises.
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
            # From version 4 on RabbitMQ drops what came back twenty times, and each restart of the monitor brings it
            # back once. A great number means never to every version; -1 is refused by those before 4.
            arguments["x-delivery-limit"] = _NEVER_GIVE_UP
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
