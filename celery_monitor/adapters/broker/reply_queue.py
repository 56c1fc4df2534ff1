"""Queues to which workers send their replies, one per connection.

What the monitor writes to the broker must not disturb workers, and must disappear when the monitor ends, even after
``kill -9``:

- AMQP: an exclusive queue on Celery's reply exchange. The broker deletes it and its binding with the connection.
- Redis: a list that expires. Workers reply to it by name (exchange ""), so that no binding is needed. kombu stores
  bindings in a set that every worker reads for every reply, and a binding with another ``sep`` than the fleet's breaks
  remote control for all clients until it is deleted. The list always has one element, which keeps it and its expiry
  alive between replies and after the monitor's end, so that late replies expire, too.
- memory: a queue with the same name during the life of the process.
"""

import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol
from uuid import NAMESPACE_DNS, uuid4, uuid5

from kombu import Consumer, Exchange, Queue

from celery_monitor.adapters.broker.faults import IGNORE_ERRORS
from celery_monitor.adapters.broker.guard import guard
from celery_monitor.adapters.broker.reply import MAX_BYTES, Reply, UnreadableReason, unwrap
from celery_monitor.adapters.broker.session import Session

_QUEUE_SECONDS: Final = 60
_QUEUE_BYTES: Final = 64 << 20
_LIST_MS: Final = 600_000
"""Milliseconds until the list expires. A reply after that would stay forever. A worker with a single process answers
only when its current task has ended."""
_MIN_PAUSE: Final = 0.02
_MAX_PAUSE: Final = 0.2
"""Seconds between two checks of the list, doubled with each check that finds nothing."""
_MAX_READ_REPLIES: Final = 100
_MAX_READ_BYTES: Final = 8 << 20
"""Limits of one read of the list."""

# Removes replies from the list, and returns all except those that are too large.
_TAKE: Final = """
local key, most, largest, total = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local replies, refused, bytes = {}, 0, 0
if most == 0 then redis.call('DEL', key) end
while #replies + refused < most and bytes < total do
  local reply = redis.call('RPOP', key)
  if not reply then break end
  if #reply > largest then
    refused = refused + 1
  elseif reply ~= '' then
    replies[#replies + 1] = reply
    bytes = bytes + #reply
  end
end
redis.call('RPUSH', key, '')
redis.call('PEXPIRE', key, ARGV[4])
return {refused, replies}
"""


class ReplyQueue(Protocol):
    """Methods may raise any exception of the libraries."""

    address: dict[str, str]
    """The value of ``reply_to`` in requests."""

    def clear(self) -> None:
        """Discard earlier replies, before new requests are sent."""

    def wait(self, deadline: float) -> list[Reply]:
        """Wait for replies until this monotonic time. Returns as soon as there are any."""

    def close(self) -> None:
        """Clean up, so that nothing stays on the broker, even if workers answer later."""


def open_reply_queue(session: Session, exchange: str, name: str, discarded: Counter[str]) -> ReplyQueue:
    """Open the reply queue for the session's transport. ``exchange``: Celery's for replies. ``name``: the monitor's."""
    return _KINDS[session.kind](session, exchange, name, discarded)


def _own_name(name: str) -> str:
    """A name that stays the same during the life of the process, and in the next process of the same container."""
    return f"{uuid5(NAMESPACE_DNS, f'{socket.gethostname()}/{os.getpid()}/{name}')}.reply.celery.pidbox"


class _Consumed:
    """A queue whose consumer receives messages while the session is drained."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._replies: list[Reply] = []

    def clear(self) -> None:
        """Does nothing: earlier replies are recognized by their tickets."""

    def wait(self, deadline: float) -> list[Reply]:
        while not self._replies and self._session.drain(deadline):
            pass
        received, self._replies = self._replies, []
        return received


class _AmqpReplyQueue(_Consumed):
    def __init__(self, session: Session, exchange: str, _name: str, discarded: Counter[str]) -> None:
        super().__init__(session)
        self._discarded = discarded
        address = str(uuid4())
        self.address = {"exchange": exchange, "routing_key": address}
        queue = Queue(
            f"{address}.reply.celery.pidbox",
            Exchange(exchange, "direct", durable=False, delivery_mode="transient"),
            routing_key=address,
            durable=False,
            exclusive=True,
            auto_delete=True,
            expires=_QUEUE_SECONDS,
            message_ttl=_QUEUE_SECONDS,
            queue_arguments={"x-max-length-bytes": _QUEUE_BYTES},
        )
        queue(session.channel).declare()
        guard(session.channel.connection, MAX_BYTES, self._refused)
        # Not a kombu Consumer, because it decompresses messages before they can be checked.
        session.channel.basic_consume(queue.name, no_ack=True, callback=self._on_message)

    def _refused(self) -> None:
        self._discarded[UnreadableReason.TOO_LARGE] += 1

    def _on_message(self, message: Any) -> None:  # noqa: ANN401 - py-amqp has no types
        properties, body = message.properties, message.body
        if not properties and not body:
            return  # replaced by ``guard``
        headers = properties.get("application_headers") or {}
        content = body.encode(errors="replace") if isinstance(body, str) else bytes(body)
        self._replies.append(
            Reply(headers.get("ticket"), headers.get("compression"), properties.get("content_type"), content)
        )

    def close(self) -> None:
        """Does nothing: the queue is deleted with the connection."""


class _RedisReplyQueue:
    def __init__(self, session: Session, _exchange: str, name: str, discarded: Counter[str]) -> None:
        self._session = session
        self._discarded = discarded
        own = _own_name(name)
        self.address = {"exchange": "", "routing_key": own}
        channel = session.channel
        # The list to which a worker with the same options sends a message without priority. kombu prefixes no EVAL.
        self._key = f"{channel.global_keyprefix}{channel._q_for_pri(own, 0)}"  # noqa: SLF001 - kombu has no public method

    def clear(self) -> None:
        self._take(0)

    def _take(self, limit: int) -> list[bytes]:
        with self._session.channel.conn_or_acquire() as client:
            refused, replies = client.execute_command(
                "EVAL", _TAKE, 1, self._key, limit, 2 * MAX_BYTES, _MAX_READ_BYTES, _LIST_MS
            )
        if refused:
            self._discarded[UnreadableReason.TOO_LARGE] += refused
        return list(replies)

    def wait(self, deadline: float) -> list[Reply]:
        pause = _MIN_PAUSE
        while True:
            replies = []
            received = self._take(_MAX_READ_REPLIES)
            for data in received:
                reply = unwrap(data)
                if isinstance(reply, UnreadableReason):
                    self._discarded[reply] += 1
                else:
                    replies.append(reply)
            if replies or time.monotonic() >= deadline:
                return replies
            if not received:
                self._session.pause(min(pause, max(0.0, deadline - time.monotonic())))
                pause = min(2 * pause, _MAX_PAUSE)

    def close(self) -> None:
        """Empty the list. It is not deleted, because a late reply would create it again without an expiry."""
        with IGNORE_ERRORS:
            self._take(0)


class _MemoryReplyQueue(_Consumed):
    def __init__(self, session: Session, _exchange: str, name: str, _discarded: Counter[str]) -> None:
        super().__init__(session)
        own = _own_name(name)
        self.address = {"exchange": "", "routing_key": own}
        self._queue = Queue(own, Exchange(""), routing_key=own, durable=False)(session.channel)
        self._consumer = Consumer(session.channel, [self._queue], no_ack=True, on_message=self._on_message)
        self._consumer.consume()

    def _on_message(self, message: Any) -> None:  # noqa: ANN401 - kombu has no types
        body = message.body
        content = body.encode() if isinstance(body, str) else bytes(body)
        self._replies.append(Reply(message.headers.get("ticket"), None, message.content_type, content))

    def close(self) -> None:
        with IGNORE_ERRORS:
            self._consumer.cancel()
            self._queue.delete()


_KINDS: Final[dict[str, Callable[[Session, str, str, Counter[str]], ReplyQueue]]] = {
    "amqp": _AmqpReplyQueue,
    "redis": _RedisReplyQueue,
    "memory": _MemoryReplyQueue,
}
