"""Queries about the broker, for a person who sets up the monitor. They change only what belongs to the monitor."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from amqp.exceptions import NotFound
from redis.exceptions import ResponseError

from celery_monitor.adapters.broker.control import RemoteControl
from celery_monitor.adapters.broker.declare import Declaration, Target
from celery_monitor.adapters.broker.dial import CONNECT_TIMEOUT, Dialer
from celery_monitor.adapters.broker.faults import Boundary, lost
from celery_monitor.adapters.broker.session import Session
from celery_monitor.errors import SourceLostError
from celery_monitor.settings.broker import BrokerSettings

_ANSWER_TIMEOUT: Final = 5.0
_SCANS: Final = 20
_KEYS: Final = 1_000

Replies = dict[str, dict[str, Any]]
"""command → hostname → the worker's answer: JSON of any shape."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """The state of the monitor's queue on the broker."""

    messages: int
    consumers: int


class BrokerDiagnostics:
    """Connects once. Methods raise SourceLostError, with advice if possible."""

    def __init__(self, settings: BrokerSettings) -> None:
        """Does no I/O."""
        self._settings = settings
        self._dialer = Dialer(settings)
        self._control = RemoteControl(settings)
        self._session: Session | None = None
        self.discarded = self._control.discarded
        """Number of discarded replies, by reason."""
        self.is_redis = self._dialer.kind == "redis"
        self.has_queues = self._dialer.kind == "amqp"
        """Whether the transport has an exchange and a queue of the monitor that can be inspected."""

    def connect(self) -> None:
        """Connect and log in."""
        with Boundary(partial(lost, doing="cannot connect", connecting=True)):
            self._session = Session(self._dialer, time.monotonic() + CONNECT_TIMEOUT)

    def exchange_exists(self) -> bool:
        """Whether the event exchange exists."""
        session = self._ready()
        doing = partial(lost, doing="cannot inspect the event exchange", permissions=session.permissions)
        with Boundary(doing):
            try:
                session.query_channel().exchange_declare(self._settings.exchange, "topic", passive=True)
            except NotFound:
                return False
        return True

    def queue(self) -> QueueState | None:
        """The monitor's queue; None if it does not exist yet. Raises also if it was declared with other arguments."""
        session = self._ready()
        with Boundary(partial(lost, doing="cannot inspect the queue", permissions=session.permissions)):
            channel = session.query_channel()
            try:
                declared = channel.queue_declare(self._settings.queue.name, passive=True)
            except NotFound:
                return None
            # Because the queue exists, this only compares the arguments.
            vhost = session.client.virtual_host or "/"
            Declaration(Target(channel, vhost, session.permissions), self._settings).queue()
        return QueueState(declared.message_count, declared.consumer_count)

    def fleets(self) -> list[tuple[str, str]]:
        """On Redis: (``global_keyprefix``, ``control_exchange``) of each fleet that has bindings in the database.

        Scans at most some twenty thousand keys, to limit the load on a large database.
        """
        if not self.is_redis:
            return []
        session, queue_keys, cursor = self._ready(), set(), 0
        with Boundary(partial(lost, doing="cannot list the bindings", permissions=session.permissions)):
            for _ in range(_SCANS):
                cursor, keys = session.channel.client.scan(cursor, match="*_kombu.binding.*.pidbox", count=_KEYS)
                for key in keys:
                    prefix, _, exchange = key.decode(errors="replace").partition("_kombu.binding.")
                    if not exchange.startswith("reply."):
                        queue_keys.add((prefix, exchange.removesuffix(".pidbox")))
                if not cursor:
                    break
        return sorted(queue_keys)

    def evicts(self) -> str | None:
        """On Redis: the policy by which it deletes keys of any kind when it reaches maxmemory.

        None if it does not, or if the user may not know.
        """
        if not self.is_redis:
            return None
        session = self._ready()
        with Boundary(partial(lost, doing="cannot inspect the memory policy", permissions=session.permissions)):
            try:
                memory = session.channel.client.info("memory")
            except ResponseError:
                return None  # no permission, or a provider without this command
        policy = str(memory.get("maxmemory_policy", ""))
        return policy if policy.startswith("allkeys-") and memory.get("maxmemory") else None

    def ask(self, timeout: float) -> Replies:
        """Answers of all workers to ``ping`` and ``conf`` (settings that differ from Celery's defaults).

        Takes ``timeout`` seconds.
        """
        replies: Replies = {"ping": {}, "conf": {}}

        def take(command: str, hostname: str, answer: Any) -> None:  # noqa: ANN401 - any JSON
            replies[command][hostname] = answer

        self._control.ask(("ping", "conf"), timeout, take)
        return replies

    def close(self) -> None:
        """Close the connections. Blocks only briefly."""
        session, self._session = self._session, None
        if session is not None:
            session.cut()
        self._control.close()

    def _ready(self) -> Session:
        if self._session is None:
            raise SourceLostError("not connected to the broker")
        self._session.bound(time.monotonic() + _ANSWER_TIMEOUT)
        return self._session
