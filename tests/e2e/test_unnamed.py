"""Events that are read before anything names their task, through real brokers and a kill."""

import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from celery.events.event import get_exchange
from kombu import Connection, Producer

from celery_monitor.core.model import UNKNOWN_TASK
from tests.conftest import Start
from tests.e2e.daemon import Daemon
from tests.servers.waiting import wait_until


def publish(broker_url: str, *events: dict[str, Any]) -> None:
    """As a worker or a client does."""
    with Connection(broker_url) as connection, connection.channel() as channel:
        producer = Producer(channel, get_exchange(connection), serializer="json")
        for event in events:
            kind = event["type"].replace("-", ".")
            producer.publish({"timestamp": time.time(), **event}, routing_key=kind, delivery_mode=1)


def waiting(daemon: Daemon) -> int:
    """How many events wait for a name, as committed."""
    with closing(sqlite3.connect(f"file:{daemon.store}?mode=ro", uri=True, timeout=20)) as connection:
        return int(connection.execute("SELECT count(*) FROM unnamed").fetchone()[0])


def test_an_event_that_waits_for_its_name_survives_a_kill(broker_url: str, start: Start, tmp_path: Path) -> None:
    """A failure and a revocation are read before the client's task-sent: nobody is paged for ``unknown``."""
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
