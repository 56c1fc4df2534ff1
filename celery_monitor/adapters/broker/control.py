"""Celery's remote control (kombu.pidbox), spoken here because its own client waits once for each question.

A question is a broadcast to a fanout exchange that says where to answer. All questions of a round go out together, and
their answers are collected until one deadline, however many come. A reply that cannot be read is discarded and counted;
it costs neither the round nor the connection.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
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

Take = Callable[[str, str, Any], None]
"""Is given each answer as it comes, and keeps of it what is wanted: command, hostname, JSON of any shape."""


class RemoteControl:
    """Speaks to all workers at once. For one thread, but for ``close``."""

    def __init__(self, settings: BrokerSettings, known: KnownAddress | None = None) -> None:
        """Does no I/O. ``known``: see Dialer."""
        self.discarded: Counter[str] = Counter()
        """Replies by the reason for which they were not used."""
        self._dialer = Dialer(settings, known)
        self._settings = settings
        self._line: _Line | None = None
        self._closing = threading.Lock()

    def session(self, deadline: float) -> Session:
        """The open connection, for others to use between two calls. Raises what the libraries do."""
        return self._open(deadline).session

    def open(self) -> None:
        """Connect now, and not with the first question. Within 3 s. Raises SourceLostError."""
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
    ) -> None:
        """Ask all workers (or these) all of it, and collect the answers for ``timeout`` s. Raises SourceLostError.

        Returns earlier when all of these have answered, or when ``max_silence`` s have passed since the last answer.

        Connecting and asking have 3 s of their own: else a slow log-in would look like a fleet without workers.
        """
        deadline = time.monotonic() + _SEND_TIMEOUT
        with Boundary(self.failed):
            line = self._open(deadline)
            line.ask(commands, hostnames, deadline)
            line.collect(take, timeout, max_silence)

    def failed(self, exc: Exception) -> SourceLostError:
        """Drop the connection that raised ``exc``; the error to raise."""
        line = self._line
        self._cut()
        if line is not None and line.session.blocked:
            return publishers_blocked()
        return lost(exc, _DOING, line.session.permissions if line else None, connecting=line is None)

    def _open(self, deadline: float) -> "_Line":
        if self._line is not None and self._line.session.outdated:
            self.close()
        if self._line is None:
            self._line = _Line(self._dialer, self._settings, self.discarded, deadline)
        return self._line

    def _cut(self) -> None:
        with self._closing:
            line, self._line = self._line, None
        if line is not None:
            line.session.cut()

    def close(self) -> None:
        """Close the mailbox, and drop the connection."""
        line = self._line
        if line is not None:
            line.mailbox.close()
        self._cut()


class _Line:
    """One connection with its mailbox."""

    def __init__(self, dialer: Dialer, settings: BrokerSettings, discarded: Counter[str], deadline: float) -> None:
        # Confirmed, because a broker that does not answer looks like a fleet without workers.
        self.session = Session(dialer, deadline, **({"confirm_publish": True} if dialer.kind == "amqp" else {}))
        self._discarded = discarded
        self._tickets: dict[str, str] = {}
        self._asked: frozenset[str] = frozenset()
        """Hostnames of who is asked; empty for all."""
        name = f"{settings.control_exchange}.pidbox"
        with Boundary(self._failed):
            channel = self.session.channel
            commands = Exchange(name, "fanout", durable=False, delivery_mode="transient")
            commands(channel).declare()
            self._producer = Producer(channel, commands, auto_declare=False)
            self.mailbox = open_reply_queue(self.session, f"reply.{name}", settings.queue.name, discarded)

    def _failed(self, exc: Exception) -> SourceLostError:
        self.session.cut()
        return lost(exc, _DOING, self.session.permissions)

    def _send(self, command: str, hostnames: Sequence[str] | None, ticket: str, deadline: float) -> None:
        message: dict[str, Any] = {"method": command, "arguments": {}}
        message |= {"destination": hostnames, "pattern": None, "matcher": None}
        message |= {"ticket": ticket, "reply_to": self.mailbox.address}
        self.session.bound(deadline)
        self.session.publish(self._producer, message, serializer="json", headers={"clock": 0, "expires": 0})

    def ask(self, commands: Sequence[str], hostnames: Sequence[str] | None, deadline: float) -> None:
        self.mailbox.clear()
        self._asked = frozenset(hostnames or ())
        self._tickets = {str(uuid4()): command for command in commands}
        for ticket, command in self._tickets.items():
            self._send(command, hostnames, ticket, deadline)

    def collect(self, take: Take, timeout: float, max_silence: float | None) -> None:
        answered: set[tuple[str, str]] = set()
        max_answers = len(self._tickets) * (len(self._asked) or MAX_WORKERS)
        deadline = time.monotonic() + timeout
        while replies := self.mailbox.wait(deadline):
            for reply in replies:
                self._take(reply, take, answered, max_answers)
            if (self._asked and len(answered) >= max_answers) or time.monotonic() >= deadline:
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
        if self._asked and hostname not in self._asked:
            self._discarded[UnreadableReason.LATE] += 1
            return
        if (command, hostname) not in answered and len(answered) >= max_answers:
            self._discarded[UnreadableReason.TOO_MANY] += 1
            return
        answered.add((command, hostname))
        try:
            take(command, hostname, answer)
        except Exception:  # noqa: BLE001 - the boundary: an answer of a shape that nobody thought of costs itself
            self._discarded[UnreadableReason.MALFORMED] += 1
