"""The event stream on Redis: a subscription to the channels to which kombu publishes the event exchange.

kombu's consumer would leave a binding on the server for each process that is killed. A direct subscription leaves
nothing, and takes a tenth of kombu's time per message.
"""

import contextlib
import re
import sys
import time
from typing import TYPE_CHECKING, Any

from celery_monitor.adapters.broker.dial import CONNECT_TIMEOUT, Dialer
from celery_monitor.adapters.broker.faults import IGNORE_ERRORS
from celery_monitor.adapters.broker.resp import RespReader
from celery_monitor.adapters.broker.wire import POLL_BYTES, Wire
from celery_monitor.ports import Batch
from celery_monitor.settings.broker import BrokerSettings

if TYPE_CHECKING:
    from celery_monitor.core.model import Delivery


_MAX_STALL = 1.0
"""Maximum seconds between two reads, beyond the timeout of a read, that count as silence of the broker. After a longer
pause of this process (a paused machine, a stopped container), data may still be on its way, and closing the connection
would lose it."""
_DRAIN_STEP = 0.1
"""Seconds of one read while waiting for the answer to a PING. A longer pause of this process counts as two of them."""
_GLOB = re.compile(r"[*?\[\]\\]")
"""Characters that PSUBSCRIBE interprets as a pattern. Unescaped, a name with them would miss the fleet's channels or
match those of another fleet."""


class RedisLink:
    """One subscribed connection. kombu and redis-py connect (TLS, Sentinel, log-in, database); this class reads."""

    standby: bool = False
    created: bool = False

    def __init__(self, dialer: Dialer, settings: BrokerSettings) -> None:
        """Connects and subscribes; bounded in time. Raises errors of the library."""
        self._limit = settings.prefetch // 2
        self._ping_interval = settings.heartbeat
        transport = dialer.dial().transport
        transport.establish_connection()
        channel = transport.create_channel(transport)
        try:
            # Not a pooled connection, which would be closed with the channel. Only the channel's options are needed.
            self._connection: Any = channel.pool.make_connection()
            self._connection.connect()
        finally:
            channel.close()
        self._wire = Wire(self._connection._sock)  # noqa: SLF001 - redis-py has no public access; kombu does the same
        self._reader = RespReader(settings.max_message_bytes)
        self._early: list[Delivery] = []
        self._checked_at = time.monotonic()
        self._silent_for = 0.0
        self._pinged = False
        self._pings = 0
        with contextlib.ExitStack() as undo:
            undo.callback(self.release)
            self._subscribe(_topic(channel, settings.exchange))
            undo.pop_all()

    def _subscribe(self, topic: str) -> None:
        self._connection.send_command("PSUBSCRIBE", topic)
        deadline = time.monotonic() + CONNECT_TIMEOUT
        while not self._reader.subscribed:
            data = self._wire.receive(max(0, deadline - time.monotonic()))
            if data is None:
                raise TimeoutError
            self._reader.feed(data, self._limit, self._early)

    def read(self, timeout: float) -> Batch | None:
        """As EventSource.poll. Raises errors of the library."""
        deliveries, self._early = self._early, []
        moving = False
        try:
            moving = self._read(timeout, deliveries)
        except Exception:
            if not deliveries:
                raise
            # Return these first, because they will not be sent again. The next call raises the same error.
        if not deliveries:
            self._check_alive(timeout)
        return Batch(deliveries, 0) if deliveries or moving else None

    def drain(self, timeout: float) -> "list[Delivery]":
        """All messages that the server received before this call and that were not read yet.

        Sends a PING, which the server answers after all earlier messages. Raises errors of the library, and
        TimeoutError after ``timeout`` seconds, not counting pauses of this process.
        """
        self._pings += 1
        token = b"drain-%d" % self._pings
        self._wire.send(b"*2\r\n$4\r\nPING\r\n$%d\r\n%b\r\n" % (len(token), token))
        deliveries, self._early = self._early, []
        self._reader.feed(b"", sys.maxsize, deliveries)
        waited, previous = 0.0, time.monotonic()
        while self._reader.pong != token:
            if waited >= timeout:
                raise TimeoutError
            self._reader.feed(self._wire.receive(_DRAIN_STEP) or b"", sys.maxsize, deliveries)
            now = time.monotonic()
            waited, previous = waited + min(now - previous, 2 * _DRAIN_STEP), now
        return deliveries

    def _read(self, timeout: float, deliveries: "list[Delivery]") -> bool:
        """Read into ``deliveries``. Returns whether data was read and the last message is still incomplete."""
        self._reader.feed(b"", self._limit, deliveries)
        deadline, bytes_left = time.monotonic() + timeout, POLL_BYTES
        while len(deliveries) < self._limit and (bytes_left > 0 or not deliveries):
            data = self._wire.receive(0 if deliveries else max(0, deadline - time.monotonic()))
            if data is None:
                break
            bytes_left -= len(data)
            self._reader.feed(data, self._limit, deliveries)
            if self._wire.drained if deliveries else time.monotonic() >= deadline:
                break
        return bytes_left < POLL_BYTES and self._reader.is_mid_message

    def _check_alive(self, timeout: float) -> None:
        """Send a PING if nothing was received for a while, because Redis has no heartbeats. Raises TimeoutError."""
        # Only after reading: if this process has not read for long, the answer may be among the unread data.
        now, last_received = time.monotonic(), self._wire.last_received
        if last_received >= self._checked_at:
            self._silent_for, self._pinged = 0.0, False
        self._silent_for += min(now - max(self._checked_at, last_received), timeout + _MAX_STALL)
        self._checked_at = now
        if self._silent_for > 2 * self._ping_interval:
            raise TimeoutError
        if self._silent_for > self._ping_interval and not self._pinged:
            self._pinged = True
            self._wire.send(b"PING\r\n")

    def ack(self, tag: int) -> None:
        """Does nothing: Redis has no acknowledgements."""

    def cut(self) -> None:
        """See Link."""
        self._wire.cut()

    def release(self) -> None:
        """See Link."""
        with IGNORE_ERRORS:
            self._connection.disconnect()

    def leave(self, deadline: float) -> None:
        """Does nothing: the subscription ends with the connection, without a handshake."""


def _topic(channel: Any, exchange: str) -> str:  # noqa: ANN401 - kombu has no types
    """The pattern of all channels to which kombu publishes the exchange's messages (kombu.transport.redis)."""
    prefix = channel.keyprefix_fanout
    if getattr(channel, "sentinel_fanout_compat", False):
        # Workers with this option publish to both names. Older workers publish only to this name, without expanding it.
        prefix = "/{db}."
    name = _GLOB.sub(r"\\\g<0>", f"{channel.global_keyprefix}{prefix}{exchange}")
    return f"{name}{'/*' if channel.fanout_patterns else ''}"
