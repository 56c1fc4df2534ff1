"""Load for campaigns and benchmarks: the task events of a synthetic fleet, published at a bounded rate.

    PYTHONPATH=. python bench/publish.py --broker amqp://localhost --tasks 100000 --rate 5000 --per-message 3

The events of one task are ``lag`` tasks apart, so that they arrive in different messages and usually in different
flushes: if the monitor forgets a task, a failure without a name shows it. The same arguments give the same events
except for their times.
"""

import argparse
import base64
import itertools
import json
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import amqp
import redis

EXCHANGE = "celeryev"
ROUTING_KEY = "task.multi"
NAMES = 10
QUEUE = "orders"
WINDOW = 200
"""Maximum number of unconfirmed messages."""

_FRAME = '  File "/srv/shop/orders.py", line 41, in charge\n    raise error\n'
_RUN = ("received", "started")
_KINDS: Mapping[int, tuple[str, ...]] = {
    0: (*_RUN, "failed"),
    1: (*_RUN, "failed", "failed"),  # the duplicate of the hard time limit
    2: (*_RUN, "retried", *_RUN, "succeeded"),
    3: (*_RUN, "revoked"),
    4: ("received", "started", "rejected", *_RUN, "succeeded"),
    5: (*_RUN, "retried", *_RUN, "failed"),
}
"""The tasks out of every fifty that do not simply succeed."""
_USUAL = (*_RUN, "succeeded")


@dataclass(frozen=True)
class Load:
    """The events of ``tasks`` tasks with NAMES different names. Every second name also sends task-sent."""

    tasks: int
    per_message: int = 3
    lag: int = 300
    prefix: str = "load"
    """Prefix of names and task IDs, different for each load."""

    def name(self, task: int) -> str:
        """The task's name."""
        return f"{self.prefix}.task{task % NAMES}"

    def stages(self, task: int) -> tuple[str, ...]:
        """The task's events, in order."""
        first = ("sent",) if task % 2 else ()
        return first + _KINDS.get(task // NAMES % 50, _USUAL)

    def counts(self) -> dict[str, Counter[str]]:
        """The expected counts: task → event → number. The duplicate of a failure does not count."""
        found = {self.name(task): Counter[str]() for task in range(min(self.tasks, NAMES))}
        for task in range(self.tasks):
            stages = self.stages(task)
            found[self.name(task)].update(stages[:-1] if stages[-2:] == ("failed", "failed") else stages)
        return found

    @property
    def events(self) -> int:
        """The number of events."""
        return sum(len(self.stages(task)) for task in range(self.tasks))

    def messages(self) -> Iterator[list[dict[str, Any]]]:
        """The message bodies, with ``per_message`` events each."""
        batch: list[dict[str, Any]] = []
        for task, stage in self._stream():
            batch.append(self._event(task, self.stages(task)[stage]))
            if len(batch) == self.per_message:
                yield batch
                batch = []
        if batch:
            yield batch

    def _stream(self) -> Iterator[tuple[int, int]]:
        longest = max(len(stages) for stages in _KINDS.values()) + 1
        for step in range(self.tasks + self.lag * longest):
            for stage in range(longest):
                task = step - stage * self.lag
                if 0 <= task < self.tasks and stage < len(self.stages(task)):
                    yield task, stage

    def _event(self, task: int, kind: str) -> dict[str, Any]:
        uuid = f"{self.prefix}-{task:012x}-5f3a-9f1e0c55d1aa"
        # In the order in which workers send the fields.
        return {
            "hostname": f"celery@load{task % 4}",
            "utcoffset": 0,
            "pid": 4000 + task % 4,
            "clock": task,
            "uuid": uuid,
            **_FIELDS.get(kind, _nothing)(task, self.name(task), uuid),
            "timestamp": time.time(),
            "type": f"task-{kind}",
        }


def _nothing(_task: int, _name: str, _uuid: str) -> dict[str, Any]:
    return {}


def _introduced(task: int, name: str, uuid: str) -> dict[str, Any]:
    return {
        "name": name,
        "args": f"({task},)",
        "kwargs": "{'currency': 'EUR'}",
        "root_id": uuid,  # it belongs to no workflow
        "parent_id": None,
        "retries": 0,
        "eta": None,
        "expires": None,
    }


def _sent(task: int, name: str, uuid: str) -> dict[str, Any]:
    return _introduced(task, name, uuid) | {"queue": QUEUE, "exchange": "", "routing_key": QUEUE}


def _failed(task: int, _name: str, _uuid: str) -> dict[str, Any]:
    text = f"order {task} was declined"
    return {
        "exception": f"ValueError('{text}')",
        "traceback": f"Traceback (most recent call last):\n{_FRAME}ValueError: {text}\n",
    }


_FIELDS: Mapping[str, Callable[[int, str, str], dict[str, Any]]] = {
    "sent": _sent,
    "received": _introduced,
    "succeeded": lambda task, *_: {"result": "None", "runtime": 0.01 + task % 100 / 1000},
    "failed": _failed,
    "retried": _failed,
    "rejected": lambda *_: {"requeue": True},
    "revoked": lambda *_: {"terminated": True, "signum": "15", "expired": False},
}


def body(events: list[dict[str, Any]]) -> bytes:
    """A message body as workers send it: a single event, or a list of events."""
    return json.dumps(events[0] if len(events) == 1 else events).encode()


class Publisher(Protocol):
    """Publishes bodies on the event exchange."""

    def publish(self, body: bytes) -> None:
        """Send one message."""

    def settle(self) -> None:
        """Wait until the broker has all messages."""

    def close(self) -> None:
        """Close the connection."""


class AmqpPublisher:
    """Publishes on RabbitMQ. With ``confirm``, at most WINDOW messages are unconfirmed, and ``settle`` waits for all.

    Raises amqp's errors and OSError. ``unconfirmed`` then has the messages that may have arrived, in order.
    """

    def __init__(self, url: str, *, confirm: bool = True, window: int = WINDOW) -> None:
        """Connects."""
        parts = urlsplit(url)
        self._connection = amqp.Connection(
            f"{parts.hostname}:{parts.port or 5672}",
            userid=unquote(parts.username or "guest"),
            password=unquote(parts.password or "guest"),
            virtual_host=unquote(parts.path[1:]) or "/",
            connect_timeout=10,
            # Some campaigns freeze the broker for a minute.
            socket_settings={socket.TCP_USER_TIMEOUT: 0},
        )
        self._connection.connect()
        self._channel = self._connection.channel()
        self._channel.exchange_declare(EXCHANGE, "topic", durable=True, auto_delete=False)
        self.unconfirmed: deque[tuple[int, bytes]] = deque()
        self._confirm = confirm
        self._window = window
        self._tag = 0
        self._refused = False
        if confirm:
            self._channel.confirm_select()
            self._channel.events["basic_ack"].add(self._on_ack)
            self._channel.events["basic_nack"].add(self._on_nack)

    def publish(self, body: bytes) -> None:
        """As Publisher.publish."""
        self._tag += 1
        if self._confirm:
            self.unconfirmed.append((self._tag, body))
        message = amqp.Message(body, content_type="application/json", content_encoding="utf-8", delivery_mode=1)
        self._channel._basic_publish(message, EXCHANGE, ROUTING_KEY)  # noqa: SLF001 - basic_publish waits for each
        if len(self.unconfirmed) >= self._window:
            self._wait(self._window // 2)

    def settle(self) -> None:
        """As Publisher.settle."""
        self._wait(0)
        self._channel.exchange_declare(EXCHANGE, "topic", passive=True)  # answered after all published messages

    def close(self) -> None:
        """As Publisher.close."""
        self._connection.collect()

    def _wait(self, left: int) -> None:
        while len(self.unconfirmed) > left:
            self._connection.drain_events(timeout=120)
            if self._refused:
                raise ConnectionError("the broker did not take a message")

    def _on_ack(self, tag: int, multiple: bool) -> None:  # noqa: FBT001 - py-amqp's signature
        if multiple:
            while self.unconfirmed and self.unconfirmed[0][0] <= tag:
                self.unconfirmed.popleft()
        else:
            self.unconfirmed = deque(entry for entry in self.unconfirmed if entry[0] != tag)

    def _on_nack(self, _tag: int, _multiple: bool) -> None:  # noqa: FBT001 - py-amqp's signature
        self._refused = True  # it remains unconfirmed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RedisPublisher:
    """Publishes on Redis, like kombu's fanout exchanges."""

    def __init__(self, url: str, *, pipelined: int = 20) -> None:
        """Connects when the first message is published."""
        self._client = redis.Redis.from_url(url, socket_timeout=None)  # campaigns freeze it for a minute
        database = self._client.connection_pool.connection_kwargs.get("db") or 0
        self._channel = f"/{database}.{EXCHANGE}/{ROUTING_KEY}"
        self._pipelined = pipelined
        self._waiting: list[bytes] = []
        self._tags = itertools.count()
        self._mark = uuid4().hex

    def publish(self, body: bytes) -> None:
        """As Publisher.publish."""
        self._waiting.append(
            json.dumps(
                {
                    "body": base64.b64encode(body).decode(),
                    "content-encoding": "utf-8",
                    "content-type": "application/json",
                    "headers": {"hostname": "celery@load"},
                    "properties": {
                        "delivery_mode": 1,
                        "delivery_info": {"exchange": EXCHANGE, "routing_key": ROUTING_KEY},
                        "priority": 0,
                        "body_encoding": "base64",
                        "delivery_tag": f"{self._mark}-{next(self._tags)}",
                    },
                }
            ).encode()
        )
        if len(self._waiting) >= self._pipelined:
            self.settle()

    def settle(self) -> None:
        """As Publisher.settle."""
        pipeline = self._client.pipeline(transaction=False)
        for message in self._waiting:
            pipeline.publish(self._channel, message)
        self._waiting.clear()
        pipeline.execute()

    def close(self) -> None:
        """As Publisher.close."""
        self._client.close()


def publisher(url: str, *, confirm: bool = True, pipelined: int = 20) -> Publisher:
    """The publisher for a broker's URL."""
    if url.startswith("redis"):
        return RedisPublisher(url, pipelined=pipelined)
    return AmqpPublisher(url, confirm=confirm)


def paced(
    messages: Iterable[list[dict[str, Any]]], rate: float, ahead_allowed: float = 0.01
) -> Iterator[list[dict[str, Any]]]:
    """The messages at no more than ``rate`` events per second, in bursts of ``ahead_allowed`` seconds."""
    began, sent = time.monotonic(), 0
    for message in messages:
        ahead = sent / rate - (time.monotonic() - began)
        if ahead > ahead_allowed:
            time.sleep(ahead)
        yield message
        sent += len(message)


def publish(to: Publisher, load: Load, rate: float, ahead_allowed: float = 0.01) -> None:
    """Publish a load at no more than ``rate`` events per second. Returns when the broker has all of it."""
    for message in paced(load.messages(), rate, ahead_allowed):
        to.publish(body(message))
    to.settle()


def main() -> None:
    """Publish; print a line at the first message, and the rate at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--per-message", type=int, default=3)
    parser.add_argument("--rate", type=float, default=5_000, help="events a second at most")
    parser.add_argument("--prefix", default="load", help="of the tasks' names and ids")
    parser.add_argument("--confirm", action="store_true", help="wait for the broker's confirmation (RabbitMQ)")
    parser.add_argument("--even", action="store_true", help="each message at its own time, not in bursts of 10 ms")
    arguments = parser.parse_args()
    load = Load(arguments.tasks, arguments.per_message, prefix=arguments.prefix)
    to = publisher(arguments.broker, confirm=arguments.confirm, pipelined=1 if arguments.even else 20)
    print("publishing", flush=True)
    began = time.monotonic()
    try:
        publish(to, load, arguments.rate, 0.0 if arguments.even else 0.01)
    finally:
        to.close()
    took = time.monotonic() - began
    print(f"{load.events} events of {load.tasks} tasks in {took:.1f} s: {load.events / took:.0f} events/s")


if __name__ == "__main__":
    main()
