"""Simulates many idle workers in one process: their heartbeats and their answers to remote control.

    PYTHONPATH=. python bench/workers.py --broker amqp://localhost --workers 3000

Each sends a heartbeat every two seconds and answers ``ping``, ``enable_events``, ``stats``, ``active_queues``,
``registered``, ``active``, ``reserved`` and ``scheduled`` like Celery 5.7. RabbitMQ only.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from kombu import Connection, Consumer, Exchange, Producer, Queue

from bench.publish import AmqpPublisher, body

HEARTBEAT: Final = 2.0
TICK: Final = 0.02
TASKS: Final = [f"shop.module{number % 20}.task{number}" for number in range(100)]
_QUEUE: Final = {"name": "celery", "exchange": {"name": "celery", "type": "direct"}, "routing_key": "celery"}


def answer(method: str, worker: int) -> Any:  # noqa: ANN401 - as JSON
    """A worker's answer to a remote control command."""
    if method == "stats":
        processes = list(range(worker * 10, worker * 10 + 4))
        pool = {"implementation": "celery.concurrency.prefork:TaskPool", "max-concurrency": 4, "processes": processes}
        return {"pool": pool, "total": {}, "uptime": 1000, "pid": worker, "clock": "1", "prefetch_count": 16}
    return {
        "ping": {"ok": "pong"},
        "enable_events": {"ok": "task events already enabled"},
        "active_queues": [_QUEUE],
        "registered": TASKS,
    }.get(method, [])


class Workers:
    """The workers celery@worker-00000 and following, with one connection for remote control and one for events."""

    def __init__(self, url: str, number: int) -> None:
        """Connects and listens."""
        self._names = [f"celery@worker-{worker:05}" for worker in range(number)]
        self._events = AmqpPublisher(url, confirm=False)
        self._connection = Connection(url)
        channel = self._connection.channel()
        self._producer = Producer(channel, auto_declare=False)
        exchange = Exchange("celery.pidbox", type="fanout", durable=False)
        queue = Queue("bench.celery.pidbox", exchange, exclusive=True, durable=False, auto_delete=True)
        Consumer(channel, [queue], on_message=self._asked, no_ack=True, accept=["json"]).consume()

    def _asked(self, message: Any) -> None:  # noqa: ANN401 - kombu's
        request = json.loads(message.body)
        to, asked = request.get("reply_to"), request.get("destination")
        if to is None:
            return
        for worker, name in enumerate(self._names):
            if asked is None or name in asked:
                self._producer.publish(
                    json.dumps({name: answer(request["method"], worker)}),
                    content_type="application/json",
                    content_encoding="utf-8",
                    exchange=to["exchange"],
                    routing_key=to["routing_key"],
                    headers={"ticket": request["ticket"]},
                )

    def run(self, until: float) -> None:
        """Run until this time of the monotonic clock. Heartbeats are spread over their interval."""
        beats = self._heartbeats()
        began, sent = time.monotonic(), 0
        while (now := time.monotonic()) < until:
            due = int((now - began) / HEARTBEAT * len(self._names))
            for _ in range(due - sent):
                self._events.publish(body([next(beats)]))
            sent = due
            with suppress(TimeoutError):
                self._connection.drain_events(timeout=TICK)

    def _heartbeats(self) -> Iterator[dict[str, Any]]:
        about = {"sw_ident": "py-celery", "sw_ver": "5.7.0", "sw_sys": "Linux", "active": 0, "freq": HEARTBEAT}
        clock = 0
        while True:
            for worker, name in enumerate(self._names):
                clock += 1
                yield {"type": "worker-heartbeat", "hostname": name, "pid": worker, "clock": clock, "utcoffset": 0,
                       "timestamp": time.time(), "processed": 10, "loadavg": [0.1, 0.1, 0.1], **about}  # fmt: skip


def main() -> None:
    """Simulate the workers for some time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--workers", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    Workers(arguments.broker, arguments.workers).run(time.monotonic() + arguments.seconds)


if __name__ == "__main__":
    main()
