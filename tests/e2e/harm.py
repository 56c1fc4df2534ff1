"""Everything harmful that somebody can do who may write to the broker, in a process of its own.

    python -m tests.e2e.harm BROKER_URL SECONDS SEED

A seeded mix at a bounded rate: bombs, bodies of ten megabytes, names without end, long tracebacks, messages of other
formats, forged and damaged events; and a worker that answers remote control with all of this.
"""

import bz2
import json
import random
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any, Final

import redis
from celery.events.event import get_exchange
from kombu import Connection, Consumer, Exchange, Producer, Queue

TICK: Final = 0.1
LARGE_INTERVAL: Final = 6.0
"""Seconds between two messages that are large, or become so."""
MIB: Final = 1 << 20

Message = tuple[bytes, dict[str, Any]]
"""A body, and what goes with it: content_type, content_encoding, headers."""


def _json(body: Any) -> Message:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return text, {"content_type": "application/json", "content_encoding": "utf-8"}


@cache
def _bombs() -> tuple[tuple[bytes, str], ...]:
    """Bodies of some kilobytes that become gigabytes, and what they are compressed with."""
    return (
        (bz2.compress(bytes(45 * MIB)) * 40, "application/x-bz2"),
        (zlib.compress(b"[" + b"{}," * (60 * MIB // 3) + b"{}]", 9), "application/x-gzip"),
        (b"no zlib at all", "application/x-gzip"),
        (b"BZh9 nor bzip2", "application/x-bz2"),
        (b"", "brotli"),
    )


def large(randomly: random.Random) -> Message:
    """Bodies of some megabytes, before or after decompression."""
    if randomly.random() < 0.5:
        body, compression = randomly.choice(_bombs())
        return body, _json(b"")[1] | {"headers": {"compression": compression}}
    unit = randomly.choice([b"{},", b"0,", b'{"type":"a","timestamp":1,"x":NaN},', b"[[", b'"' + b"a" * 1000 + b'",'])
    return _json(b"[" + unit * (10 * MIB // len(unit)) + b"0]")


def _event(kind: str, task: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "uuid": task, "timestamp": time.time(), "hostname": "celery@harm", "clock": 1} | more


def cardinality(randomly: random.Random) -> Message:
    """Tasks with unique names, queues, workers and exceptions."""
    events = []
    for _ in range(20):
        task, worker = f"{randomly.getrandbits(64):x}", f"celery@{randomly.getrandbits(32):x}"
        name, queue = f"noise.{randomly.getrandbits(40):x}", f"queue{randomly.getrandbits(24):x}"
        events += [
            _event("task-sent", task, name=name, queue=queue, hostname=worker),
            _event("task-received", task, name=name, hostname=worker),
            _event("task-started", task, hostname=worker),
            _event("task-failed", task, hostname=worker, exception=f"Error{randomly.getrandbits(24)}('x')"),
        ]
    return _json(events)


def tracebacks(randomly: random.Random) -> Message:
    """Failures of a few tasks, each from another location, with long texts."""
    events = []
    for _ in range(4):
        task = f"{randomly.getrandbits(64):x}"
        frames = "".join(
            f'  File "/srv/noise/m{randomly.getrandbits(32)}.py", line {line}, in f{line}\n    x()\n'
            for line in range(250)
        )
        events += [
            _event("task-received", task, name=f"noise.deep{randomly.randrange(5)}"),
            _event(
                "task-failed",
                task,
                exception=f"ValueError('{'y' * 3000}')",
                traceback=f"Traceback (most recent call last):\n{frames}ValueError: y",
            ),
        ]
    return _json(events)


def garbage(randomly: random.Random) -> Message:
    """Invalid or forged events."""
    task = f"{randomly.getrandbits(64):x}"
    return randomly.choice(
        [
            _json(b"{"),
            _json(b"\xff\xfe\x00"),
            _json(b"[" * 100_000),
            _json({"type": None}),
            _json([None, 1, "x", [], {"type": "task-failed"}]),
            _json(_event("task-failed", task)),
            _json(_event("task-failed", task, exception=["no", "text"], traceback=7)),
            _json(_event("task-received", task, name="x" * 100_000, timestamp=1e308)),
            _json(_event("task-received", task, name="\x00\ud800", hostname="\n")),
            _json(_event("task-succeeded", task, runtime="never", result={})),
            _json(_event("worker-heartbeat", task, active=-1, processed=10**30, freq="often")),
            _json(_event("task-" + "x" * 1000, task)),
            _json(b'{"type": "task-failed", "uuid": "a", "timestamp": 1e999, "hostname": "h"}'),
            (b"\x80\x04N.", {"content_type": "application/x-python-serialize", "content_encoding": "binary"}),
            (b"\xc1" * 100, {"content_type": "application/x-msgpack", "content_encoding": "binary"}),
            (b"a: &a [*a]", {"content_type": "application/x-yaml", "content_encoding": "utf-8"}),
            (b"?", {"content_type": "x" * 200, "content_encoding": "klingon"}),
            (b"?", _json(b"")[1] | {"headers": {"compression": "\x00", "x" * 100: ["y"] * 100}}),
        ]
    )


def mix(randomly: random.Random, seconds: float) -> Iterator[Message]:
    """What to send, one item per TICK."""
    began = time.monotonic()
    large_at = began + 1
    while (now := time.monotonic()) < began + seconds:
        if now >= large_at:
            large_at = now + LARGE_INTERVAL
            yield large(randomly)
        yield randomly.choice([cardinality, tracebacks, garbage])(randomly)
        time.sleep(TICK)


class HostileWorker:
    """Answers every remote control command with harmful data."""

    def __init__(self, connection: Connection, randomly: random.Random) -> None:
        self._randomly = randomly
        self._channel = connection.channel()
        self._producer = Producer(self._channel, auto_declare=False)
        exchange = Exchange("celery.pidbox", type="fanout", durable=False)
        queue = Queue("celery@harm.celery.pidbox", exchange, exclusive=False, durable=False, auto_delete=True)
        Consumer(self._channel, [queue], on_message=self._asked, no_ack=True, accept=["json"]).consume()
        self.answered = 0

    def _asked(self, message: Any) -> None:
        with suppress(Exception):  # somebody else's garbage
            request = json.loads(message.body)
            to, ticket = request["reply_to"], request["ticket"]
            answers = [
                large(self._randomly) if self._randomly.random() < 0.05 else garbage(self._randomly),
                _json({"celery@harm": self._reply()}),
            ]
            for body, options in answers:
                options = {**options, "headers": {"ticket": ticket, **options.get("headers", {})}}  # noqa: PLW2901
                self._producer.publish(body, exchange=to["exchange"], routing_key=to["routing_key"], **options)
                self.answered += 1

    def _reply(self) -> Any:
        return self._randomly.choice(
            [
                None,
                7,
                "x" * 10_000,
                [[]] * 1000,
                {"ok": "pong"},
                {"ok": {"x": {"y": [1, None]}}},
                [{"name": f"queue{number}"} for number in range(5_000)],
                [{"id": f"{number}", "name": f"noise.{number}", "time_start": "x"} for number in range(5_000)],
                {"pool": {"max-concurrency": "many"}, "total": {"a": -1}},
            ]
        )


def _raw(url: str) -> Callable[[random.Random], None]:
    """Send data that kombu cannot send: on Redis, anything on the channels and lists that it reads."""
    if not url.startswith("redis"):
        return lambda _: None
    client = redis.Redis.from_url(url, decode_responses=True)
    bindings = "_kombu.binding.reply.celery.pidbox"
    database = url.rpartition("/")[2]

    def send(randomly: random.Random) -> None:
        text = randomly.choice([b"", b"{", b"null", b"7", b'{"body": 7}', b'{"body": "!", "properties": {}}', b"\xff"])
        client.publish(f"/{database}.celeryev/task.failed", text)
        client.publish(f"/{database}.celeryev", text)
        for key in [member.split("\x06\x16")[-1] for member in map(str, client.smembers(bindings))]:
            client.lpush(key, text)

    return send


def main(url: str, seconds: float, seed: int) -> None:
    """Do all of it."""
    randomly = random.Random(seed)
    with Connection(url) as connection, Connection(url) as other:
        exchange = get_exchange(connection)
        producer = Producer(connection.channel(), exchange, auto_declare=False)
        exchange(connection.channel()).declare()
        worker, raw = HostileWorker(other, randomly), _raw(url)
        sent = 0
        for body, options in mix(randomly, seconds):
            # Never worker.*: workers listen to that, and die of it in their gossip.
            key = randomly.choice(["task.multi", "task.failed", "task.x.y"])
            producer.publish(body, routing_key=key, **options)
            sent += 1
            if randomly.random() < 0.1:
                raw(randomly)
            with suppress(TimeoutError):
                other.drain_events(timeout=0.001)
        print(json.dumps({"sent": sent, "answered": worker.answered}))  # noqa: T201 - the test reads it


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
