"""The event stream on any transport. One thread reads; any thread may cut the connection.

Each transport has a link: one connection that is open from its construction until it is cut. The source owns the
current link and translates foreign exceptions to SourceLostError. It never closes a socket that another thread still
reads: cutting shuts the socket down, which wakes up the reader, and only then is the socket closed.
"""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from celery_monitor.adapters.broker.addresses import KnownAddress
from celery_monitor.adapters.broker.amqp import AmqpLink
from celery_monitor.adapters.broker.declare import OwnQueue
from celery_monitor.adapters.broker.dial import Dialer
from celery_monitor.adapters.broker.faults import IGNORE_ERRORS, Boundary, describe, lost
from celery_monitor.adapters.broker.memory import MemoryLink
from celery_monitor.adapters.broker.redis import RedisLink
from celery_monitor.core.model import Delivery
from celery_monitor.errors import SourceLostError
from celery_monitor.ports import Batch
from celery_monitor.settings.broker import BrokerSettings

CLOSE_TIMEOUT: Final = 2.0


class Link(Protocol):
    """One open connection. Methods may raise any exception of the libraries: see ``Boundary``."""

    standby: bool
    """Whether another consumer receives the messages. This one does as soon as that one ends."""
    created: bool
    """Whether the queue was created since the last connection, so that it contains nothing published before."""

    def read(self, timeout: float) -> Batch | None:
        """As EventSource.poll."""

    def ack(self, tag: int) -> None:
        """As EventSource.ack."""

    def cut(self) -> None:
        """Shut down the connection without a closing handshake. Never blocks; safe while another thread reads."""

    def release(self) -> None:
        """Free the resources after ``cut``. Call it only while no thread reads."""

    def leave(self, deadline: float) -> None:
        """Close the connection with a handshake, which may take until this monotonic time."""


class BrokerSource:
    """The fleet's event stream (an EventSource)."""

    def __init__(
        self,
        settings: BrokerSettings,
        known: KnownAddress | None = None,
        *,
        amqp: Callable[[Dialer, BrokerSettings], Link] | None = None,
    ) -> None:
        """Does no I/O. ``known``: see Dialer. ``amqp`` creates links to RabbitMQ."""
        self._settings = settings
        self._links: dict[str, Callable[[Dialer, BrokerSettings], Link]] = {
            "amqp": amqp or partial(AmqpLink, consume=OwnQueue().consume),
            "redis": RedisLink,
            "memory": MemoryLink,
        }
        self._dialer = Dialer(settings, known)
        self._link: Link | None = None
        self._urls = ""
        self._refusals: dict[str, str] = {}
        """Of several addresses in ``_urls``, those that were tried since the last connection → the error."""
        self.acknowledges = self._dialer.kind == "amqp"
        """As of the last connection: a URL in a file may change to that of another transport."""
        self._using = threading.RLock()
        """Held while a thread reads, writes or releases the link."""
        self._reading = Boundary(partial(self._lost, "the event stream was interrupted"))
        self._acknowledging = Boundary(partial(self._lost, "cannot acknowledge"))

    def connect(self) -> None:
        """As EventSource.connect; at most some 10 s."""
        self.abandon()
        with self._using:
            kind = self._dialer.kind
            try:
                with Boundary(partial(lost, doing="cannot connect to the broker", connecting=True)):
                    self._link = self._links[kind](self._dialer, self._settings)
            except SourceLostError as exc:
                raise self._refused(exc) from exc
            self._refusals = {}
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
    def queue_created(self) -> bool:
        """As EventSource.queue_created."""
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
        """The messages that the server received before this call and that were not polled yet. Only on Redis.

        Raises SourceLostError, also if the answer takes longer than ``timeout`` seconds.
        """
        with self._using:
            link = self._present()
            if not isinstance(link, RedisLink):
                return ()
            with self._reading:
                return link.drain(timeout)

    @property
    def broadcasts(self) -> bool:
        """Whether each subscriber receives all messages, identified by tags, and none is stored, as with Redis."""
        return self._dialer.kind == "redis"

    def _refused(self, exc: SourceLostError) -> SourceLostError:
        """The error with the reason of each address. That of the last one alone might not be the one to repair."""
        if self._dialer.address is None:
            return exc
        if self._urls != self._dialer.url:
            self._urls, self._refusals = self._dialer.url, {}
        self._refusals[self._dialer.address] = str(exc)
        error = SourceLostError("; ".join(f"{address}: {reason}" for address, reason in self._refusals.items()))
        error.remedy = exc.remedy
        return error

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
        # The reader wakes up at once. If it does not, the garbage collector closes the socket.
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
                with IGNORE_ERRORS:
                    link.leave(deadline)
            finally:
                self._using.release()
        self.abandon()
