"""The cost of reading a message from the broker: this program's reader compared with those of kombu and py-amqp.

    python -m bench.broker [--messages 100000]

Starts a private RabbitMQ and a private Redis. On RabbitMQ all messages wait in a queue and are acknowledged in batches
of 2000; on Redis a separate process publishes them. One event per message. The CPU time is that of this process only.
"""

import argparse
import base64
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from celery.events.event import get_exchange
from kombu import Connection, Consumer, Producer, Queue

from celery_monitor.adapters.broker import BrokerSource
from celery_monitor.settings.broker import BrokerSettings
from tests.servers import RabbitMQ, Redis

_BATCH = 2000
_START_SECONDS = 120.0
"""Maximum seconds until a publisher's first message, and until the next one: the machine may have other work."""
_EVENT = {
    "hostname": "celery@box", "utcoffset": 0, "pid": 29285, "clock": 8, "uuid": str(uuid4()),
    "name": "shop.orders.price",
    "args": "(2,)", "kwargs": "{}", "root_id": str(uuid4()), "parent_id": None, "retries": 0, "eta": None,
    "expires": None, "timestamp": 1795397197.5132833, "type": "task-received",
}  # fmt: skip


def publish_fast(url: str, count: int) -> None:
    """Send ``count`` messages to Redis as fast as it accepts them, in kombu's envelope."""
    body = base64.b64encode(json.dumps([_EVENT]).encode()).decode()
    properties = {"delivery_mode": 1, "delivery_info": {"exchange": "celeryev", "routing_key": "task.multi"}}
    properties |= {"priority": 0, "body_encoding": "base64", "delivery_tag": str(uuid4())}
    envelope = {"body": body, "content-encoding": "utf-8", "content-type": "application/json", "headers": {}}
    data = json.dumps({**envelope, "properties": properties})
    with Connection(url) as connection:
        client = connection.default_channel.client
        for at in range(0, count, 100):
            with client.pipeline(transaction=False) as pipeline:
                for _ in range(min(100, count - at)):
                    pipeline.publish("/0.celeryev/task.multi", data)
                pipeline.execute()


def publish(url: str, count: int) -> None:
    """Send ``count`` messages as a Celery worker does."""
    body = json.dumps([_EVENT]).encode()
    with Connection(url) as connection:
        producer = Producer(connection.default_channel, get_exchange(connection))
        for _ in range(count):
            producer.publish(
                body, "task.multi", content_type="application/json", content_encoding="utf-8", delivery_mode=1
            )


def _settings(url: str) -> BrokerSettings:
    return BrokerSettings.model_validate({"url": url, "queue": {"name": "bench"}})


def _own(url: str, ready: Callable[[], None], count: int) -> float:
    source = BrokerSource(_settings(url))
    source.connect()
    ready()
    began, left, deadline = time.process_time(), count, time.monotonic() + _START_SECONDS
    while left > 0:
        batch = source.poll(5)
        if batch is None:
            if time.monotonic() > deadline:
                raise SystemExit(f"{left} messages are missing")
            continue
        deadline = time.monotonic() + _START_SECONDS
        left -= len(batch.deliveries)
        source.ack(batch.tag)
    spent = time.process_time() - began
    source.close()
    return spent


def _kombu(url: str, ready: Callable[[], None], count: int) -> float:
    amqp = url.startswith("amqp")
    with Connection(url) as connection:
        channel = connection.default_channel
        exchange = get_exchange(connection)
        queue = Queue("bench", exchange, "#") if amqp else Queue("bench", exchange, "#", auto_delete=True)
        left = count

        def on_message(message: Any) -> None:  # noqa: ANN401 - kombu has no types
            nonlocal left
            left -= 1
            if amqp and left % _BATCH == 0:
                channel.basic_ack(message.delivery_tag, multiple=True)

        channel.basic_qos(0, 2 * _BATCH, False)
        with Consumer(channel, [queue], on_message=on_message, no_ack=not amqp):
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=0.01)  # on Redis it subscribes here
            ready()
            began = time.process_time()
            while left:
                connection.drain_events(timeout=_START_SECONDS)
            return time.process_time() - began


def _pyamqp(url: str, ready: Callable[[], None], count: int) -> float:
    with Connection(url) as connection:
        channel = connection.default_channel
        left = count

        def on_message(message: Any) -> None:  # noqa: ANN401
            nonlocal left
            left -= 1
            if left % _BATCH == 0:
                channel.basic_ack(message.delivery_tag, multiple=True)

        channel.basic_qos(0, 2 * _BATCH, False)
        ready()
        channel.basic_consume("bench", callback=on_message)
        began = time.process_time()
        while left:
            connection.connection.drain_events(timeout=_START_SECONDS)
        return time.process_time() - began


def _rabbitmq(directory: Path, count: int) -> None:
    with RabbitMQ(directory) as server:
        for name, consume in (("this program", _own), ("py-amqp", _pyamqp), ("kombu", _kombu)):
            if consume is _own:
                source = BrokerSource(_settings(server.url()))
                source.connect()
                source.close()
            else:
                with Connection(server.url()) as connection:
                    Queue("bench", get_exchange(connection), "#")(connection.default_channel).declare()
            publish(server.url(), count)
            _show("RabbitMQ", name, consume(server.url(), lambda: None, count), count)
            server.delete_queue("bench")


def _redis(directory: Path, count: int) -> None:
    with Redis(directory, options=("--client-output-buffer-limit", "pubsub 0 0 0")) as server:
        for name, consume in (("this program", _own), ("kombu", _kombu)):
            for speed, options in (("one by one", []), ("at full load", ["--fast"])):
                publisher = [sys.executable, "-m", "bench.broker", "--publish", server.url(), *options]
                start = partial(subprocess.run, [*publisher, "--messages", str(count)], check=True)
                thread = threading.Thread(target=start)
                _show("Redis", f"{name}, {speed}", consume(server.url(), thread.start, count), count)
                thread.join()


def _show(server: str, name: str, seconds: float, count: int) -> None:
    print(f"{server:9} {name:26} {seconds / count * 1e6:6.1f} µs a message")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--publish", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--fast", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.publish:
        (publish_fast if arguments.fast else publish)(arguments.publish, arguments.messages)
        return
    with tempfile.TemporaryDirectory() as directory:
        _rabbitmq(Path(directory) / "rabbitmq", arguments.messages)
        _redis(Path(directory) / "redis", arguments.messages)


if __name__ == "__main__":
    main()
