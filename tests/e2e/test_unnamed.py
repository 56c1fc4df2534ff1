"""Events that are read before anything names their task, with real brokers and a kill."""

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from celery.events.event import get_exchange
from kombu import Connection, Consumer, Exchange, Producer, Queue

from celery_monitor.core.model import UNKNOWN_TASK
from tests.conftest import Start
from tests.e2e.daemon import Daemon
from tests.e2e.paging import KEY, pager, reported_failures
from tests.fleet.outcomes import client
from tests.servers import CeleryWorker, wait_until
from tests.servers.pagerduty import PagerDutyServer


def publish(broker_url: str, *events: dict[str, Any]) -> None:
    """Publish like a worker or a client."""
    with Connection(broker_url) as connection, connection.channel() as channel:
        producer = Producer(channel, get_exchange(connection), serializer="json")
        for event in events:
            kind = event["type"].replace("-", ".")
            producer.publish({"timestamp": time.time(), **event}, routing_key=kind, delivery_mode=1)


def waiting(daemon: Daemon) -> int:
    """The number of events that wait for a name, according to the store."""
    with closing(sqlite3.connect(f"file:{daemon.store}?mode=ro", uri=True, timeout=20)) as connection:
        return int(connection.execute("SELECT count(*) FROM unnamed").fetchone()[0])


def test_an_event_that_waits_for_its_name_survives_a_kill(broker_url: str, start: Start, tmp_path: Path) -> None:
    """A failure and a revocation are read before task-sent: nobody is paged for ``unknown``."""
    daemon = start(Daemon(tmp_path / "daemon", broker_url, {"tracking": {"name_wait": "2m"}}))
    daemon.until_ready()
    worker, client = {"hostname": "celery@box"}, {"hostname": "gen1@web", "queue": "mail"}
    publish(
        broker_url,
        {"type": "task-failed", "uuid": "u1", "exception": "ValueError('no')", **worker},
        {"type": "task-revoked", "uuid": "u2", **worker},
        {"type": "task-failed", "uuid": "u3", "exception": "KeyError('name')", **worker},
    )
    wait_until(lambda: waiting(daemon) == 3, 60, what="the events that wait")
    assert daemon.counts() == {}
    daemon.kill()
    daemon.start()
    daemon.until_ready()

    publish(broker_url, *({"type": "task-sent", "uuid": uuid, "name": "shop.mail", **client} for uuid in ("u1", "u2")))

    daemon.until_counts({"shop.mail": Counter(sent=2, failed=1, revoked=1)})
    assert daemon.metric("task_failed_total", queue_name="mail", exception="ValueError") == 1
    assert waiting(daemon) == 1
    assert UNKNOWN_TASK not in daemon.counts()


@contextmanager
def questions(broker_url: str) -> Iterator[Callable[[], list[str]]]:
    """The remote control commands from now on, in order."""
    asked: list[str] = []
    with Connection(broker_url) as connection, connection.channel() as channel:
        queue = Queue("witness", Exchange("celery.pidbox", "fanout", durable=False), exclusive=True, auto_delete=True)

        def drain() -> list[str]:
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.05)
            return asked

        with Consumer(channel, [queue], callbacks=[lambda body, _: asked.append(body["method"])], no_ack=True):
            drain()  # on Redis it subscribes here
            yield drain


def running_tasks(directory: Path, broker_url: str, number: int) -> set[str]:
    """Start tasks that fail once ``directory`` has a file ``release``; returns their IDs when all run."""
    directory.mkdir()
    for _ in range(number):
        client(broker_url).send_task("fleet.fail_later", (str(directory),))
    wait_until(lambda: len(list(directory.iterdir())) == number, 60, what="tasks that run")
    return {path.name for path in directory.iterdir()}


def until_first_questions(daemon: Daemon, broker_url: str) -> None:
    """Start the daemon; its first command asks for the workers' tasks."""
    with questions(broker_url) as asked:
        daemon.start()
        wait_until(lambda: len(asked()) >= 4, 60, what="the first questions")
        assert asked()[:4] == ["active", "reserved", "scheduled", "active_queues"]


def until_failed(daemon: Daemon, number: int) -> None:
    """Wait for this many failures in total."""
    wait_until(lambda: daemon.counts().get("fleet.fail_later", {}).get("failed") == number, 90, what="the failures")


def until_named(daemon: Daemon, uuids: set[str]) -> None:
    """On RabbitMQ the events contain the names, on Redis only the workers' answers."""
    wait_until(lambda: daemon.tracked(uuids) == uuids, 60, what="the names of the tasks")


def test_tasks_that_began_while_the_monitor_was_away(broker_url: str, start: Start, tmp_path: Path) -> None:
    """Their failures have names after each kind of restart: the workers are asked what they hold before anything else.

    On Redis all events that named them are lost.
    """
    with PagerDutyServer(keys={KEY}) as pagerduty:
        daemon = start(pager(tmp_path / "daemon", broker_url, pagerduty))
        daemon.until_ready()
        start(CeleryWorker(tmp_path / "worker", broker_url, concurrency=3))
        for restart, end in enumerate((daemon.stop, daemon.kill), start=1):
            end()
            directory = tmp_path / f"tasks{restart}"
            uuids = running_tasks(directory, broker_url, 3)
            until_first_questions(daemon, broker_url)
            until_named(daemon, uuids)
            (directory / "release").touch()
            until_failed(daemon, 3 * restart)
        assert UNKNOWN_TASK not in daemon.counts()
        assert daemon.metric("monitor_unnamed_failures_total") == 0
        assert waiting(daemon) == 0
        wait_until(lambda: reported_failures(pagerduty), 60, what="the page")
        assert all("fleet.fail_later" in key for key in pagerduty.opened())
