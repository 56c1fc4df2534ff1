"""A client for Celery's remote control (kombu.pidbox). Celery's own client waits for the answers to each command.

A request is a message to a fanout exchange that contains the address for replies. Here, all requests of a round are
sent together, and all replies are collected until one deadline. An invalid reply is discarded and counted, and affects
neither the round nor the connection.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final
from uuid import uuid4

from kombu import Exchange, Producer

from celery_monitor.adapters.broker.addresses import KnownAddress
from celery_monitor.adapters.broker.dial import Dialer
from celery_monitor.adapters.broker.faults import Boundary, lost, publishers_blocked
from celery_monitor.adapters.broker.reply import Reply, UnreadableReason, read
from celery_monitor.adapters.broker.reply_queue import open_reply_queue
from celery_monitor.adapters.broker.session import Session
from celery_monitor.core.workers import MAX_WORKERS
from celery_monitor.errors import SourceLostError
from celery_monitor.settings.broker import BrokerSettings

_DOING: Final = "cannot reach the workers through the broker"
_SEND_TIMEOUT: Final = 3.0
_NO_ARGUMENTS: Final[Mapping[str, Any]] = MappingProxyType({})

Take = Callable[[str, str, Any], None]
"""Called with each answer: command, hostname, JSON of any shape. It should store only what is needed."""


class RemoteControl:
    """Sends requests to all workers at once. For use by one thread, except ``close``."""

    def __init__(self, settings: BrokerSettings, known: KnownAddress | None = None) -> None:
        """Does no I/O. ``known``: see Dialer."""
        self.discarded: Counter[str] = Counter()
        """Number of discarded replies, by reason."""
        self._dialer = Dialer(settings, known)
        self._settings = settings
        self._connection: _ControlConnection | None = None
        self._closing = threading.Lock()

    def session(self, deadline: float) -> Session:
        """The open connection, for other uses between two calls. Raises errors of the libraries."""
        return self._open(deadline).session

    def open(self) -> None:
        """Connect now instead of with the first request, within 3 s. Raises SourceLostError."""
        with Boundary(self.failed):
            self._open(time.monotonic() + _SEND_TIMEOUT)

    def ask(
        self,
        commands: Sequence[str],
        timeout: float,
        take: Take,
        hostnames: Sequence[str] | None = None,
        *,
        max_silence: float | None = None,
        arguments: Mapping[str, Any] = _NO_ARGUMENTS,
    ) -> None:
        """Send the commands to all workers, or to these, and collect answers for ``timeout`` s. Raises SourceLostError.

        Returns earlier if all of ``hostnames`` have answered, or ``max_silence`` seconds after the last answer.

        Connecting and sending may take another 3 s, so that a slow log-in does not look like a fleet without workers.
        """
        deadline = time.monotonic() + _SEND_TIMEOUT
        with Boundary(self.failed):
            connection = self._open(deadline)
            connection.ask(commands, arguments, hostnames, deadline)
            connection.collect(take, timeout, max_silence)
            self._dialer.rotation.proven()

    def failed(self, exc: Exception) -> SourceLostError:
        """Close the connection that raised ``exc``. Returns the error to raise."""
        connection = self._connection
        self._cut()
        if connection is not None and connection.session.blocked:
            return publishers_blocked()
        return lost(exc, _DOING, connection.session.permissions if connection else None, connecting=connection is None)

    def _open(self, deadline: float) -> "_ControlConnection":
        if self._connection is not None and self._connection.session.outdated:
            self.close()
        if self._connection is None:
            self._connection = _ControlConnection(self._dialer, self._settings, self.discarded, deadline)
        return self._connection

    def _cut(self) -> None:
        with self._closing:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.session.cut()

    def close(self) -> None:
        """Close the reply queue and the connection."""
        connection = self._connection
        if connection is not None:
            connection.reply_queue.close()
        self._cut()


class _ControlConnection:
    """A connection with its reply queue."""

    def __init__(self, dialer: Dialer, settings: BrokerSettings, discarded: Counter[str], deadline: float) -> None:
        # With confirms, because otherwise a broker that does not answer would look like a fleet without workers.
        self.session = Session(dialer, deadline, **({"confirm_publish": True} if dialer.kind == "amqp" else {}))
        self._discarded = discarded
        self._tickets: dict[str, str] = {}
        self._addressed: frozenset[str] = frozenset()
        """Hostnames of the workers that requests are addressed to; empty for all."""
        name = f"{settings.control_exchange}.pidbox"
        with Boundary(self._failed):
            channel = self.session.channel
            commands = Exchange(name, "fanout", durable=False, delivery_mode="transient")
            commands(channel).declare()
            self._producer = Producer(channel, commands, auto_declare=False)
            self.reply_queue = open_reply_queue(self.session, f"reply.{name}", settings.queue.name, discarded)

    def _failed(self, exc: Exception) -> SourceLostError:
        self.session.cut()
        return lost(exc, _DOING, self.session.permissions)

    def _send(
        self,
        command: str,
        arguments: Mapping[str, Any],
        hostnames: Sequence[str] | None,
        ticket: str,
        deadline: float,
    ) -> None:
        message: dict[str, Any] = {"method": command, "arguments": dict(arguments)}
        message |= {"destination": hostnames, "pattern": None, "matcher": None}
        message |= {"ticket": ticket, "reply_to": self.reply_queue.address}
        self.session.bound(deadline)
        self.session.publish(self._producer, message, serializer="json", headers={"clock": 0, "expires": 0})

    def ask(
        self, commands: Sequence[str], arguments: Mapping[str, Any], hostnames: Sequence[str] | None, deadline: float
    ) -> None:
        self.reply_queue.clear()
        self._addressed = frozenset(hostnames or ())
        self._tickets = {str(uuid4()): command for command in commands}
        for ticket, command in self._tickets.items():
            self._send(command, arguments, hostnames, ticket, deadline)

    def collect(self, take: Take, timeout: float, max_silence: float | None) -> None:
        answered: set[tuple[str, str]] = set()
        max_answers = len(self._tickets) * (len(self._addressed) or MAX_WORKERS)
        deadline = time.monotonic() + timeout
        while replies := self.reply_queue.wait(deadline):
            for reply in replies:
                self._take(reply, take, answered, max_answers)
            if (self._addressed and len(answered) >= max_answers) or time.monotonic() >= deadline:
                return
            if max_silence is not None and answered:
                deadline = min(deadline, time.monotonic() + max_silence)

    def _take(self, reply: Reply, take: Take, answered: set[tuple[str, str]], max_answers: int) -> None:
        command = self._tickets.get(reply.ticket) if isinstance(reply.ticket, str) else None
        decoded = UnreadableReason.LATE if command is None else read(reply)
        if command is None or isinstance(decoded, UnreadableReason):
            self._discarded[str(decoded)] += 1
            return
        hostname, answer = decoded
        if self._addressed and hostname not in self._addressed:
            self._discarded[UnreadableReason.LATE] += 1
            return
        if (command, hostname) not in answered and len(answered) >= max_answers:
            self._discarded[UnreadableReason.TOO_MANY] += 1
            return
        answered.add((command, hostname))
        try:
            take(command, hostname, answer)
        except Exception:  # noqa: BLE001 - discard an answer of an unexpected shape
            self._discarded[UnreadableReason.MALFORMED] += 1
