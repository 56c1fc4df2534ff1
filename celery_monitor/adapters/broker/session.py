"""A kombu connection with one channel, for publishing and for queries. Its operations are bounded in time."""

import contextlib
import threading
import time
from typing import Any, Final

from amqp.exceptions import MessageNacked

from celery_monitor.adapters.broker.dial import CONNECT_TIMEOUT, Dialer
from celery_monitor.adapters.broker.faults import IGNORE_ERRORS
from celery_monitor.adapters.broker.wire import Wire

_MIN_TIMEOUT: Final = 0.01


class Session:
    """Open from its construction until ``cut``. Methods may raise any exception of the libraries: see ``Boundary``."""

    def __init__(self, dialer: Dialer, deadline: float, **options: Any) -> None:  # noqa: ANN401 - a transport's options
        """Connects within 5 s, and until about this monotonic time."""
        self._dialer, self._url = dialer, dialer.url
        self.kind = dialer.kind
        self.acknowledges = self.kind == "amqp"
        self.blocked = False
        """Whether the broker blocks publishers because of an alarm. Known only on AMQP, after the first message."""
        self._ended = threading.Event()
        timeout = max(_MIN_TIMEOUT, min(CONNECT_TIMEOUT, deadline - time.monotonic()))
        if self.acknowledges:
            options |= {"on_blocked": self._on_blocked, "on_unblocked": self._on_unblocked}
        self.client = dialer.dial(timeout=timeout, **options)
        self.permissions = dialer.permissions(self.client)
        self._transport = self.client.transport
        self._query_channel: Any = None
        self._connection = self._transport.establish_connection()
        # Read it now: after py-amqp has closed the connection, reading this attribute would connect again.
        self._sock: Any = self._connection.sock if self.acknowledges else None
        with contextlib.ExitStack() as undo:
            undo.callback(self.cut)
            self.bound(deadline)
            self.channel: Any = self._transport.create_channel(self._connection)
            undo.pop_all()
        dialer.rotation.opened()

    def _on_blocked(self, _reason: str) -> None:
        self.blocked = True

    def _on_unblocked(self) -> None:
        self.blocked = False

    @property
    def outdated(self) -> bool:
        """Whether the file with the URL has changed, so that the stream may be on another broker."""
        return self._url != self._dialer.url

    def bound(self, deadline: float) -> None:
        """From now on, wait for answers until this monotonic time. Redis has a fixed timeout."""
        if self.acknowledges:
            self._sock.settimeout(max(_MIN_TIMEOUT, deadline - time.monotonic()))

    def query_channel(self) -> Any:  # noqa: ANN401 - kombu has no types
        """A channel for queries that AMQP may answer by closing the channel, which kombu then reopens."""
        if not self.acknowledges:
            return self.channel
        if self._query_channel is None:
            self._query_channel = self._transport.create_channel(self._connection)
        return self._query_channel

    def drain(self, deadline: float) -> bool:
        """Wait until a consumer has received a message. False if none arrived until this monotonic time."""
        timeout = deadline - time.monotonic()
        if timeout <= 0:
            return False
        try:
            self._transport.drain_events(self._connection, timeout=timeout)
        except TimeoutError:
            return False
        return True

    def pause(self, seconds: float) -> None:
        """Sleep. Raises ConnectionAbortedError as soon as another thread cuts the connection."""
        if self._ended.wait(seconds):
            raise ConnectionAbortedError

    def publish(self, producer: Any, *args: Any, **options: Any) -> None:  # noqa: ANN401 - kombu has no types
        """Publish with a kombu producer on this channel. On AMQP, waits until the broker has confirmed the message."""
        # RabbitMQ reports a message as rejected if any of the queues rejects it, such as another program's full queue
        # (x-overflow: reject-publish). The other queues have received it. Errors need not be raised, because a missing
        # answer of a worker, or a probe that does not return, is noticed anyway.
        with contextlib.suppress(MessageNacked):
            producer.publish(*args, **options)

    def cut(self) -> None:
        """Shut down the connection. Never blocks. A thread that waits for it gets an error."""
        self._ended.set()
        with IGNORE_ERRORS:
            if self.acknowledges:
                Wire(self._sock).cut()
                self._connection.collect()
            else:
                # Otherwise, kombu's channel for Redis would wait for the answer to its BRPOP before it closes.
                connection = getattr(getattr(self.channel, "client", None), "connection", None)
                if connection is not None:
                    connection.disconnect()
                self.channel.close()
