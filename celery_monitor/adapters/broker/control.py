"""Celery's remote control (kombu.pidbox), spoken here because its own client waits once for each question.

A question is a broadcast to the fanout exchange ``celery.pidbox`` that says where to answer. All questions of a round
go out together, and their answers are collected until one deadline, however many come. There is one reply queue for
each connection: exclusive on AMQP, so that it ends with the connection; on Redis it has the same name for the life
of the process and is deleted at the end.
"""

import os
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any, Final
from uuid import NAMESPACE_DNS, uuid4, uuid5

import msgspec
from kombu import Consumer, Exchange, Producer, Queue

from celery_monitor.adapters.broker.dial import Dialer
from celery_monitor.adapters.broker.faults import UNHEEDED, boundary, lost
from celery_monitor.adapters.broker.session import Session
from celery_monitor.errors import SourceLostError
from celery_monitor.settings.broker import BrokerSettings

_DOING: Final = "cannot reach the workers by the broker"
_SEND_TIMEOUT: Final = 3.0
_REPLY_SECONDS: Final = 60
_REPLY_BYTES: Final = 64 << 20
_COMMANDS: Final = Exchange("celery.pidbox", "fanout", durable=False, delivery_mode="transient")
_REPLIES: Final = Exchange("reply.celery.pidbox", "direct", durable=False, delivery_mode="transient")

Replies = dict[str, dict[str, Any]]
"""command → hostname → what that worker answered: JSON of any shape."""


class RemoteControl:
    """Speaks to all workers at once. For one thread, but for ``close``."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._dialer = Dialer(settings)
        self._name = settings.queue.name
        self._line: _Line | None = None
        self._closing = threading.Lock()

    def session(self, until: float) -> Session:
        """The open connection, for others to use between two calls. Raises what the libraries do."""
        return self._open(until).session

    def tell(self, command: str) -> None:
        """Broadcast without asking for answers. Raises SourceLostError."""
        until = time.monotonic() + _SEND_TIMEOUT
        with boundary(self.failed):
            self._open(until).send(command, None, None, until)

    def ask(self, commands: Sequence[str], timeout: float, hostnames: Sequence[str] | None = None) -> Replies:
        """Ask all workers (or these) all of it, and collect the answers for ``timeout`` s. Raises SourceLostError.

        Connecting and asking have 3 s of their own: else a slow log-in would look like a fleet without workers.
        """
        until = time.monotonic() + _SEND_TIMEOUT
        with boundary(self.failed):
            return self._open(until).ask(commands, until, timeout, hostnames)

    def failed(self, exc: Exception) -> SourceLostError:
        """Drop the connection that raised ``exc``; the error to raise."""
        line = self._line
        self._cut()
        return lost(exc, _DOING, line.session.permissions if line else None, connecting=line is None)

    def _open(self, until: float) -> "_Line":
        if self._line is not None and self._line.session.outdated:
            self.close()
        if self._line is None:
            self._line = _Line(self._dialer, self._name, until)
        return self._line

    def _cut(self) -> None:
        with self._closing:
            line, self._line = self._line, None
        if line is not None:
            line.session.cut()

    def close(self) -> None:
        """Delete the reply queue where it would stay, and drop the connection."""
        line = self._line
        if line is not None:
            line.forget()
        self._cut()


class _Line:
    """One connection with its reply queue."""

    def __init__(self, dialer: Dialer, name: str, until: float) -> None:
        # Confirmed, because a broker that does not answer looks like a fleet without workers.
        self.session = Session(dialer, until, **({"confirm_publish": True} if dialer.kind == "amqp" else {}))
        with boundary(self._failed):
            amqp = self.session.acknowledges
            own = uuid4() if amqp else uuid5(NAMESPACE_DNS, f"{socket.gethostname()}/{os.getpid()}/{name}")
            self._address = str(own)
            channel = self.session.channel
            self._queue = Queue(
                f"{self._address}.reply.celery.pidbox",
                _REPLIES,
                routing_key=self._address,
                durable=False,
                exclusive=True,
                auto_delete=True,
                expires=_REPLY_SECONDS,
                message_ttl=_REPLY_SECONDS,
                queue_arguments={"x-max-length-bytes": _REPLY_BYTES},
            )(channel)
            self._replies: Replies = {}
            self._tickets: dict[str, str] = {}
            _COMMANDS(channel).declare()
            self._consumer = Consumer(channel, [self._queue], no_ack=True, on_message=self._on_message)
            self._consumer.consume()
            self._producer = Producer(channel, _COMMANDS, auto_declare=False)

    def _failed(self, exc: Exception) -> SourceLostError:
        self.session.cut()
        return lost(exc, _DOING, self.session.permissions)

    def send(self, command: str, hostnames: Sequence[str] | None, ticket: str | None, until: float) -> None:
        message: dict[str, Any] = {"method": command, "arguments": {}}
        message |= {"destination": hostnames, "pattern": None, "matcher": None}
        if ticket is not None:
            message |= {"ticket": ticket, "reply_to": {"exchange": _REPLIES.name, "routing_key": self._address}}
        self.session.bound(until)
        self.session.publish(self._producer, message, serializer="json", headers={"clock": 0, "expires": 0})

    def ask(self, commands: Sequence[str], until: float, timeout: float, hostnames: Sequence[str] | None) -> Replies:
        self._replies = {command: {} for command in commands}
        self._tickets = {str(uuid4()): command for command in commands}
        for ticket, command in self._tickets.items():
            self.send(command, hostnames, ticket, until)
        answers_until = time.monotonic() + timeout
        while self.session.drain(answers_until):
            pass
        return self._replies

    def _on_message(self, message: Any) -> None:  # noqa: ANN401 - kombu has no types
        ticket = message.headers.get("ticket")
        command = self._tickets.get(ticket) if isinstance(ticket, str) else None
        if command is None or message.content_type != "application/json":
            return  # An answer to an earlier round, or a worker that speaks pickle.
        try:
            body = msgspec.json.decode(message.body)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return
        if isinstance(body, dict):
            self._replies[command].update(body)

    def forget(self) -> None:
        """Delete the reply queue from where it would outlive the connection."""
        if not self.session.acknowledges:
            with UNHEEDED:
                self._consumer.cancel()
                self._queue.delete()
