"""Record the events of a real fleet in which task IDs are run more than once, and what that fleet says it did.

    python -m tests.fleet.record rabbitmq|redis OUT [--gevent PYTHON] [--broadcast]

writes ``OUT/reruns-celery-VERSION-BROKER.jsonl.gz``, every message as it came, and ``OUT/….json``, the counts by task
that the fleet's own notes add up to (see ``reruns``): they know nothing of Celery's events. With ``--broadcast`` only
tasks of a Broadcast queue are sent, and the files are called ``broadcast-…``. ``PYTHON`` is an
interpreter with Celery and gevent, which this project does not need; without it no worker has green threads.
"""

import argparse
import gzip
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import celery
from celery.events.event import get_exchange
from kombu import Connection, Consumer, Queue

from tests.fleet import reruns
from tests.servers import RabbitMQ, Redis
from tests.servers.celery_worker import CeleryWorker
from tests.servers.waiting import wait_until

_VISIBILITY = 4
_IDLE_SECONDS = 15.0
"""Seconds without a note after which the fleet has done all that it will."""


class Worker(CeleryWorker):
    """A worker that may run with another interpreter."""

    python: str | None = None

    def command(self) -> Sequence[str]:
        """The program and its arguments."""
        own = super().command()
        return [self.python or own[0], *own[1:]]


class Fleet:
    """Broker, workers and notes in a directory."""

    def __init__(self, directory: Path, broker_url: str, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self.broker_url = broker_url
        self.truth = directory / "truth"
        self.truth.touch()

    @property
    def settings(self) -> Mapping[str, str]:
        """The environment of the application."""
        return {"FLEET_TRUTH": str(self.truth), "FLEET_VISIBILITY": str(_VISIBILITY)}

    def worker(self, name: str, queues: str, *, pool: str = "prefork", python: str | None = None) -> Worker:
        """Start a worker, and wait until it is ready."""
        made = Worker(
            self._directory / name,
            self.broker_url,
            hostname=name,
            app="tests.fleet.reruns",
            pool=pool,
            concurrency=2 if pool == "prefork" else 20,
            options=["-Q", queues],
            settings=self.settings,
        )
        made.python = python
        made.start()
        self._stack.callback(made.stop)
        return made

    def notes(self) -> list[tuple[str, str, str]]:
        """All lines so far."""
        return [(kind, name, uuid) for kind, name, uuid in map(str.split, self.truth.read_text().splitlines())]

    def until(self, kind: str, uuid: str, times: int = 1) -> None:
        """Wait for this many notes."""
        wait_until(
            lambda: sum((one[0], one[2]) == (kind, uuid) for one in self.notes()) >= times, 90, what=f"{kind} {uuid}"
        )

    def until_quiet(self) -> None:
        """Wait until no more notes are written."""
        size, since = -1, time.monotonic()

        def quiet() -> bool:
            nonlocal size, since
            now = self.truth.stat().st_size
            if now != size:
                size, since = now, time.monotonic()
            return time.monotonic() - since >= _IDLE_SECONDS

        wait_until(quiet, 300, what="the end of all tasks")


class Recorder(threading.Thread):
    """Records every message of the event exchange."""

    def __init__(self, broker_url: str) -> None:
        super().__init__(daemon=True)
        self.messages: list[dict[str, Any]] = []
        self.ready = threading.Event()
        self.ended = threading.Event()
        self._url = broker_url

    def run(self) -> None:
        """Run until it is stopped."""
        with Connection(self._url) as connection, connection.channel() as channel:
            queue = Queue("", get_exchange(connection), routing_key="#", exclusive=True, auto_delete=True)
            with Consumer(channel, [queue(channel)], on_message=self._keep, no_ack=True):
                self.ready.set()
                while not self.ended.is_set():
                    try:
                        connection.drain_events(timeout=0.5)
                    except TimeoutError:
                        continue

    def _keep(self, message: Any) -> None:
        body = message.body
        self.messages.append({
            "received": time.time(),
            "routing_key": message.delivery_info.get("routing_key"),
            "content_type": message.content_type,
            "content_encoding": message.content_encoding,
            "headers": {"hostname": message.headers.get("hostname")},
            "body": body if isinstance(body, str) else bytes(body).decode(),
        })  # fmt: skip


def start_all(fleet: Fleet) -> None:
    """Start the workers that consume everything."""
    for name in reruns.WORKERS:
        fleet.worker(name, f"work,{name},everywhere")
    time.sleep(5.0)  # on Redis a worker is ready before it listens to a Broadcast queue


def send_to_all() -> None:
    """Tasks that each worker runs.

    On Redis a client that has not declared the exchange takes it for a direct one, and nobody gets the task.
    """
    (queue,) = (one for one in reruns.app.conf.task_queues if one.exchange.name == "everywhere")
    with reruns.app.pool.acquire(block=True) as connection:
        queue.exchange(connection.default_channel).declare()
    for number, task in enumerate(("succeed", "succeed", "fail", "hard_limit")):
        reruns.app.send_task(f"reruns.{task}", queue="everywhere", task_id=f"everywhere-{number}-{task}")


def play(fleet: Fleet, *, redis: bool, gevent: str | None) -> None:
    """Send everything, kill the processes, and wait for the end."""
    send = reruns.app.send_task
    start_all(fleet)
    send_to_all()
    for task, queue in (("succeed", "work"), ("fail", "w1"), ("fail", "w2"), ("hard_limit", "w3")):
        send("reruns.replaced", args=[f"reruns.{task}", queue], queue="w1", task_id=f"replaced-{task}-{queue}")
    for number in range(5):
        send("reruns.wander", queue="work", task_id=f"wander-{number}")
    use_an_id_again(fleet)
    for number in range(2):
        send("reruns.lost_child", queue="work", task_id=f"lost-child-{number}")
        send("reruns.hard_limit_late", queue="w1", task_id=f"hard-limit-late-{number}")
    if gevent:
        fleet.worker("g1", "green", pool="gevent", python=gevent)
        for number in range(40):
            send(f"reruns.{('succeed', 'fail')[number % 2]}", queue="green", args=[0.3])
    for number, queue in enumerate(("w3", "work", "work") if redis else ()):
        send("reruns.late", queue=queue, args=[25.0], task_id=f"late-{number}")
    lose_a_worker(fleet)
    fleet.until_quiet()


def use_an_id_again(fleet: Fleet) -> None:
    """Several tasks run one after the other with the same ID on one worker."""
    done: Counter[str] = Counter()
    for task in ("succeed", "fail", "fail", "hard_limit", "hard_limit", "succeed"):
        reruns.app.send_task(f"reruns.{task}", queue="w2", task_id="used-again")
        kind = "succeeded" if task == "succeed" else "failed"
        done[kind] += 1
        fleet.until(kind, "used-again", done[kind])
        time.sleep(2.0)  # a hard limit's end comes a second after its note


def lose_a_worker(fleet: Fleet) -> None:
    """Kill a worker in the middle of a task, and let another one continue it."""
    victim = fleet.worker("v1", "lost")
    reruns.app.send_task("reruns.lost", queue="lost", task_id="lost")
    fleet.until("started", "lost")
    victim.kill()
    fleet.worker("v2", "lost")
    fleet.until("failed", "lost")


def main() -> None:
    """Record one fleet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("broker", choices=("rabbitmq", "redis"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--gevent")
    parser.add_argument("--broadcast", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        directory = Path(temporary)
        server = (Redis if arguments.broker == "redis" else RabbitMQ)(directory / "broker")
        server.start()
        stack.callback(server.stop)
        fleet = Fleet(directory, server.url(), stack)
        reruns.app.conf.broker_url = reruns.app.conf.broker_write_url = server.url()
        reruns._TRUTH = fleet.truth  # this process is the client
        recorder = Recorder(server.url())
        recorder.start()
        recorder.ready.wait(30)
        with stack.pop_all() as started:
            # Workers end before the recorder does: their last events are part of it.
            fleet._stack = workers = ExitStack()
            started.push(workers)
            if arguments.broadcast:
                start_all(fleet)
                send_to_all()
                fleet.until_quiet()
            else:
                play(fleet, redis=arguments.broker == "redis", gevent=arguments.gevent)
            workers.close()
            time.sleep(2.0)
            recorder.ended.set()
            recorder.join(10)
        kind = "broadcast" if arguments.broadcast else "reruns"
        base = arguments.out / f"{kind}-celery-{celery.__version__}-{arguments.broker}"
        text = "".join(f"{json.dumps(message)}\n" for message in recorder.messages)
        base.with_name(base.name + ".jsonl.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
        counts: dict[str, Counter[str]] = {}
        for kind, name, _ in fleet.notes():
            counts.setdefault(name, Counter())[kind] += 1
        base.with_name(base.name + ".json").write_text(json.dumps(counts, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
