"""Where workers send their replies to, and how these come in. One mailbox for each connection.

Whatever is written here has to be readable for every worker, and gone when the monitor is, also after ``kill -9``:

- AMQP: an exclusive queue on Celery's reply exchange. The broker deletes it, and its binding, with the connection.
- Redis: a list that expires. Replies are addressed to it by name (the exchange ""), so that no binding is needed: kombu
  keeps bindings in a set that every worker reads for every reply, and one written with another ``sep`` than the fleet's
  breaks remote control for everybody, for as long as it is there. An element keeps the list alive between replies and
  after the end, so that its time to live covers those that come late.
- memory: a queue with the same name for the life of the process.
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
"""A worker whose only process runs a task answers after it: a reply within this time leaves nothing behind."""
_FIRST_CHECK: Final = 0.02
_LAST_CHECK: Final = 0.2
"""Seconds between two looks at the list, doubled at each one in vain."""
_AT_ONCE: Final = 100
_BYTES_AT_ONCE: Final = 8 << 20

# A reply that is too large is never sent to the monitor.
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
    """Methods raise whatever the libraries raise."""

    address: dict[str, str]
    """What questions carry as ``reply_to``."""

    def clear(self) -> None:
        """Before a round of questions: nothing that has come so far answers them."""

    def wait(self, deadline: float) -> list[Reply]:
        """What came, as soon as something did; none when nothing did until this monotonic time."""

    def close(self) -> None:
        """Leave nothing that stays, even if workers answer later."""


def open_reply_queue(session: Session, exchange: str, name: str, discarded: Counter[str]) -> ReplyQueue:
    """The one for the session's transport. ``exchange`` is Celery's for replies, ``name`` that of the monitor."""
    return _KINDS[session.kind](session, exchange, name, discarded)


def _own_name(name: str) -> str:
    """The same for the life of the process, and for the next one in the same container."""
    return f"{uuid5(NAMESPACE_DNS, f'{socket.gethostname()}/{os.getpid()}/{name}')}.reply.celery.pidbox"


class _Consumed:
    """A queue whose messages are given to a consumer while the session is drained."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._replies: list[Reply] = []

    def clear(self) -> None:
        """Nothing: tickets tell."""

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
        # Not a kombu Consumer, whose messages are decompressed before anybody can look at them.
        session.channel.basic_consume(queue.name, no_ack=True, callback=self._on_message)

    def _refused(self) -> None:
        self._discarded[UnreadableReason.TOO_LARGE] += 1

    def _on_message(self, message: Any) -> None:  # noqa: ANN401 - py-amqp has no types
        properties, body = message.properties, message.body
        if not properties and not body:
            return  # was refused
        headers = properties.get("application_headers") or {}
        content = body.encode(errors="replace") if isinstance(body, str) else bytes(body)
        self._replies.append(
            Reply(headers.get("ticket"), headers.get("compression"), properties.get("content_type"), content)
        )

    def close(self) -> None:
        """Nothing: it ends with the connection."""


class _RedisReplyQueue:
    def __init__(self, session: Session, _exchange: str, name: str, discarded: Counter[str]) -> None:
        self._session = session
        self._discarded = discarded
        own = _own_name(name)
        self.address = {"exchange": "", "routing_key": own}
        channel = session.channel
        # Where a worker with the same options puts a message of no priority. EVAL has no prefix added by kombu.
        self._key = f"{channel.global_keyprefix}{channel._q_for_pri(own, 0)}"  # noqa: SLF001 - there is no other way

    def clear(self) -> None:
        self._take(0)

    def _take(self, limit: int) -> list[bytes]:
        with self._session.channel.conn_or_acquire() as client:
            refused, replies = client.execute_command(
                "EVAL", _TAKE, 1, self._key, limit, 2 * MAX_BYTES, _BYTES_AT_ONCE, _LIST_MS
            )
        if refused:
            self._discarded[UnreadableReason.TOO_LARGE] += refused
        return list(replies)

    def wait(self, deadline: float) -> list[Reply]:
        pause = _FIRST_CHECK
        while True:
            replies = []
            received = self._take(_AT_ONCE)
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
                pause = min(2 * pause, _LAST_CHECK)

    def close(self) -> None:
        """Empty it. It is not deleted: a reply that comes late would make it anew, without a time to live."""
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
