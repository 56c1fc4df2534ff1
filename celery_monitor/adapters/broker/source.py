"""The event stream, whatever carries it: one thread reads, any thread may cut the connection.

Each transport has a link: one connection that is open from its construction until it is cut. The source owns the
present link, turns foreign exceptions into SourceLostError, and sees to it that nobody closes a socket that another
thread still reads: cutting (shutdown) wakes the reader up, and only then is the socket closed.
"""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from celery_monitor.adapters.broker.addresses import KnownAddress
from celery_monitor.adapters.broker.amqp import AmqpLink
from celery_monitor.adapters.broker.dial import Dialer
from celery_monitor.adapters.broker.faults import UNHEEDED, Boundary, describe, lost
from celery_monitor.adapters.broker.memory import MemoryLink
from celery_monitor.adapters.broker.redis import RedisLink
from celery_monitor.core.model import Delivery
from celery_monitor.errors import SourceLostError
from celery_monitor.ports import Batch
from celery_monitor.settings.broker import BrokerSettings

CLOSE_TIMEOUT: Final = 2.0


class Link(Protocol):
    """One open connection. Methods may raise whatever the libraries raise: see ``Boundary``."""

    standby: bool
    """Another consumer is served, and this one is as soon as that one ends."""
    created: bool
    """There was no queue: it has kept nothing of what was published before."""

    def read(self, timeout: float) -> Batch | None:
        """As EventSource.poll."""

    def ack(self, tag: int) -> None:
        """As EventSource.ack."""

    def cut(self) -> None:
        """End it without a word. Never blocks; safe while another thread reads."""

    def release(self) -> None:
        """Free what is left after ``cut``; only while nobody reads."""

    def leave(self, deadline: float) -> None:
        """Say good-bye to the broker, at most until this monotonic time."""


class BrokerSource:
    """The fleet's event stream (an EventSource)."""

    def __init__(
        self,
        settings: BrokerSettings,
        known: KnownAddress | None = None,
        *,
        amqp: Callable[[Dialer, BrokerSettings], Link] = AmqpLink,
    ) -> None:
        """Does no I/O. ``known``: see Dialer. ``amqp`` makes the links to RabbitMQ."""
        self._settings = settings
        self._links: dict[str, Callable[[Dialer, BrokerSettings], Link]] = {
            "amqp": amqp,
            "redis": RedisLink,
            "memory": MemoryLink,
        }
        self._dialer = Dialer(settings, known)
        self._link: Link | None = None
        self.acknowledges = self._dialer.kind == "amqp"
        """As of the last connection: a URL in a file may change to that of another transport."""
        self._using = threading.RLock()
        """Held while a link is read, written or freed."""
        self._reading = Boundary(partial(self._lost, "the event stream was interrupted"))
        self._acknowledging = Boundary(partial(self._lost, "cannot acknowledge"))

    def connect(self) -> None:
        """As EventSource.connect; at most some 10 s."""
        self.abandon()
        with self._using:
            kind = self._dialer.kind
            with Boundary(partial(lost, doing="cannot connect to the broker", connecting=True)):
                self._link = self._links[kind](self._dialer, self._settings)
            self._dialer.rotation.opened()
            self.acknowledges = kind == "amqp"

    @property
    def standby(self) -> str | None:
        """As EventSource.standby."""
        link = self._link
        if link is None or not link.standby:
            return None
        return (
            f"another monitor is consuming the queue {self._settings.queue.name}: this one is on standby and takes "
            "over when the other one stops; to run both, set a different broker.queue.name for this one"
        )

    @property
    def kept_nothing(self) -> bool:
        """As EventSource.kept_nothing."""
        link = self._link
        return link is not None and link.created

    def poll(self, timeout: float) -> Batch | None:
        """As EventSource.poll."""
        with self._using:
            link = self._present()
            with self._reading:
                batch = link.read(timeout)
            if batch is not None:
                self._dialer.rotation.proven()
            return batch

    def ack(self, tag: int) -> None:
        """As EventSource.ack."""
        with self._using:
            link = self._present()
            with self._acknowledging:
                link.ack(tag)

    def drain(self, timeout: float) -> Sequence[Delivery]:
        """What the server was given before this call and was not polled yet; on Redis only.

        Raises SourceLostError, also when the answer takes longer than ``timeout`` seconds.
        """
        with self._using:
            link = self._present()
            if not isinstance(link, RedisLink):
                return ()
            with self._reading:
                return link.drain(timeout)

    @property
    def broadcasts(self) -> bool:
        """Each subscriber is given all messages, named by tags, and none is kept for others: as Redis does."""
        return self._dialer.kind == "redis"

    def _present(self) -> Link:
        if self._link is None:
            raise SourceLostError("not connected to the broker")
        return self._link

    def _lost(self, action: str, exc: Exception) -> SourceLostError:
        self.abandon()
        return SourceLostError(f"{action}: {describe(exc)}")

    def abandon(self) -> None:
        """As EventSource.abandon."""
        link, self._link = self._link, None
        if link is None:
            return
        link.cut()
        # A reader wakes up at once. Should it not, the socket is left to the garbage collector.
        if self._using.acquire(timeout=1):
            try:
                link.release()
            finally:
                self._using.release()

    def close(self) -> None:
        """As EventSource.close."""
        deadline = time.monotonic() + CLOSE_TIMEOUT
        link = self._link
        if link is not None and self._using.acquire(timeout=CLOSE_TIMEOUT):
            try:
                with UNHEEDED:
                    link.leave(deadline)
            finally:
                self._using.release()
        self.abandon()
