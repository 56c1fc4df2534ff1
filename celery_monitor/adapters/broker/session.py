"""A kombu connection with one channel, for what publishes and asks: bounded in time, and cut without a word."""

import contextlib
import threading
import time
from typing import Any, Final

from amqp.exceptions import MessageNacked

from celery_monitor.adapters.broker.dial import CONNECT_TIMEOUT, Dialer
from celery_monitor.adapters.broker.faults import UNHEEDED
from celery_monitor.adapters.broker.wire import Wire

_MIN_TIMEOUT: Final = 0.01


class Session:
    """Open from its construction until ``cut``. Methods raise whatever the libraries raise: see ``Boundary``."""

    def __init__(self, dialer: Dialer, deadline: float, **options: Any) -> None:  # noqa: ANN401 - a transport's options
        """Connects until about this monotonic time, but within 5 s."""
        self._dialer, self._url = dialer, dialer.url
        self.kind = dialer.kind
        self.acknowledges = self.kind == "amqp"
        self._ended = threading.Event()
        timeout = max(_MIN_TIMEOUT, min(CONNECT_TIMEOUT, deadline - time.monotonic()))
        self.client = dialer.dial(timeout=timeout, **options)
        self.permissions = dialer.permissions(self.client)
        self._transport = self.client.transport
        self._query_channel: Any = None
        self._connection = self._transport.establish_connection()
        # Kept, because py-amqp connects anew to give the socket of a connection that it has given up.
        self._sock: Any = self._connection.sock if self.acknowledges else None
        with contextlib.ExitStack() as undo:
            undo.callback(self.cut)
            self.bound(deadline)
            self.channel: Any = self._transport.create_channel(self._connection)
            undo.pop_all()
        dialer.rotation.opened()
        dialer.rotation.proven()

    @property
    def outdated(self) -> bool:
        """The file with the URL holds another one by now: the stream may be that of another broker."""
        return self._url != self._dialer.url

    def bound(self, deadline: float) -> None:
        """Let each answer that is waited for come until this monotonic time. Redis has its own, fixed bound."""
        if self.acknowledges:
            self._sock.settimeout(max(_MIN_TIMEOUT, deadline - time.monotonic()))

    def query_channel(self) -> Any:  # noqa: ANN401 - kombu has no types
        """A channel for questions that AMQP answers by closing the channel, which kombu then opens again."""
        if not self.acknowledges:
            return self.channel
        if self._query_channel is None:
            self._query_channel = self._transport.create_channel(self._connection)
        return self._query_channel

    def drain(self, deadline: float) -> bool:
        """Wait for one message to be given to its consumer; False when none came until this monotonic time."""
        timeout = deadline - time.monotonic()
        if timeout <= 0:
            return False
        try:
            self._transport.drain_events(self._connection, timeout=timeout)
        except TimeoutError:
            return False
        return True

    def pause(self, seconds: float) -> None:
        """Wait so long. Raises ConnectionAbortedError as soon as another thread cuts the connection."""
        if self._ended.wait(seconds):
            raise ConnectionAbortedError

    def publish(self, producer: Any, *args: Any, **options: Any) -> None:  # noqa: ANN401 - kombu has no types
        """Publish by a kombu producer on this channel. On AMQP the broker has taken it when this returns."""
        # RabbitMQ refuses a message as soon as one of the queues that it goes to refuses it, such as a full one of
        # somebody else (x-overflow: reject-publish). All others have it, and they are whom it is meant for: workers
        # answer or do not, and a probe that is not in the monitor's own queue does not come back.
        with contextlib.suppress(MessageNacked):
            producer.publish(*args, **options)

    def cut(self) -> None:
        """Drop the connection; never blocks. A thread that waits in it gets an error."""
        self._ended.set()
        with UNHEEDED:
            if self.acknowledges:
                Wire(self._sock).cut()
                self._connection.collect()
            else:
                # kombu's channel for Redis would wait for the answer to its BRPOP while it closes.
                connection = getattr(getattr(self.channel, "client", None), "connection", None)
                if connection is not None:
                    connection.disconnect()
                self.channel.close()
