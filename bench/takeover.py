"""The duration of a take-over: from kill -9 of the leader to the first event that the other replica commits.

    PYTHONPATH=. python bench/takeover.py [--times 50] [--broker redis]

Two daemons share a private PostgreSQL, behind pgbouncer in transaction mode, and a private broker with a steady load.
The leader is killed repeatedly and restarts as a standby. The database shows what is committed.

The phases of a take-over are: the lease expires; the standby acquires it; the standby reads the committed state and
opens the stream; the first commit.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from statistics import quantiles
from typing import Any

import psycopg

from bench.publish import Load, body, paced, publisher
from tests.e2e.replicas import Pair, Replica, pair
from tests.servers import PgBouncer, PostgreSQL, RabbitMQ, Redis
from tests.servers.postgresql import template

DURABLE = {"fsync": "on", "full_page_writes": "on", "autovacuum": "on", "max_worker_processes": "8"}
RATE = 300.0
"""Events per second."""
PHASES = ("lease expires", "lease taken", "stream open", "first commit")


@contextmanager
def running(directory: Path, name: str) -> Iterator[tuple[Pair, str]]:
    """A pair of replicas on private servers, and the URL of their database."""
    with ExitStack() as stack:
        server = stack.enter_context(closing(PostgreSQL(template(directory / "cluster"), **DURABLE)))
        server.start()
        pooler = stack.enter_context(PgBouncer(server, directory / "pgbouncer", size=10))
        broker: Redis | RabbitMQ = Redis(directory / name) if name == "redis" else RabbitMQ(directory / name)
        stack.enter_context(broker)
        database = server.new_database().rpartition("/")[2]
        both = stack.enter_context(pair(broker.url(), pooler.url(database), directory / "replicas"))
        yield both, server.url(database, "postgres")


@contextmanager
def endless(url: str) -> Iterator[None]:
    """Publish events at RATE in the background until the end of the block."""
    over = threading.Event()

    def run() -> None:
        with closing(publisher(url)) as to:
            for events in paced(Load(100_000_000).messages(), RATE):
                if over.is_set():
                    return
                to.publish(body(events))

    thread = threading.Thread(target=run, name="publisher", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


Row = tuple[float, int, float, float]


def state(database: psycopg.Connection[Any], schema: str) -> Row:
    """The count of task events, the term, the end of the lease and the current time, by the database's clock."""
    query = (
        f"SELECT (SELECT coalesce(sum(value), 0) FROM \"{schema}\".counters WHERE name LIKE 'events.task-%'), "  # noqa: S608
        f'term, lease_until, extract(epoch FROM clock_timestamp())::float8 FROM "{schema}".meta'
    )
    row: Row = database.execute(query).fetchone()  # type: ignore[assignment]
    return row


def opened_at(replica: Replica, after: float) -> float:
    """When the stream was opened according to the log, in Unix seconds."""
    for line in reversed(replica.log.read_text(errors="replace").splitlines()):
        if "The event stream is open" in line:
            return max(after, datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp())
    return after


def take_over(both: Pair, database: psycopg.Connection[Any], schema: str, randomly: random.Random) -> list[float]:
    """Seconds from the start of one take-over to the end of each phase."""
    leader, standby = both.until_complete()
    time.sleep(randomly.uniform(0.5, 2.5))  # at a random moment relative to the renewal of the lease
    leader.kill()
    _, term, expires_at, began = state(database, schema)
    taken_at, before = None, 0.0
    while True:
        counted, newest, _, now = state(database, schema)
        if taken_at is None and newest > term:
            # The last commit of the killed leader may have been in progress when it was killed.
            taken_at, before = now, counted
        elif taken_at is not None and counted > before:
            break
        time.sleep(0.005)
    leader.launch()
    return [at - began for at in (expires_at, taken_at, opened_at(standby, taken_at), now)]


def report_line(name: str, times: list[float]) -> str:
    """A line of the report."""
    p50, p99 = (quantiles(times, n=100, method="inclusive")[at] for at in (49, 98))
    return f"{name:20} p50 {p50:5.2f}   p99 {p99:5.2f}   max {max(times):5.2f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--broker", choices=["rabbitmq", "redis"], default="rabbitmq")
    arguments = parser.parse_args()
    randomly = random.Random(12)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        both, url = stack.enter_context(running(directory, arguments.broker))
        database: psycopg.Connection[Any] = stack.enter_context(psycopg.connect(url, autocommit=True))
        found = "SELECT table_schema FROM information_schema.tables WHERE table_name = 'counters'"
        ((schema,),) = psycopg.connect(url, autocommit=True).execute(found).fetchall()
        with endless(both.broker_url):
            times = []
            for number in range(arguments.times):
                times.append(take_over(both, database, schema, randomly))
                shown = ", ".join(f"{phase} {at:.2f}" for phase, at in zip(PHASES, times[-1], strict=True))
                print(f"{number + 1:3}: {shown}", file=sys.stderr)
    print(f"{arguments.times} take-overs on {arguments.broker}, from kill -9 to the first committed event, in seconds:")
    print(report_line("all of it", [each[-1] for each in times]))
    for number, phase in enumerate(PHASES):
        print(report_line(f"  until {phase}", [each[number] - (each[number - 1] if number else 0.0) for each in times]))


if __name__ == "__main__":
    main()
