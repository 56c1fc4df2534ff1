"""How long a take-over takes: from kill -9 of the leader to the first event that the other replica has committed.

    PYTHONPATH=. python bench/takeover.py [--times 50] [--broker redis]

Two daemons on a private PostgreSQL, behind pgbouncer in transaction mode, and a private broker with a steady load. The
leader is killed, again and again, and comes back as a standby. Committed is what the database says.
"""

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import quantiles

import psycopg

from bench.publish import Load, body, paced, publisher
from tests.e2e.replicas import Pair, pair
from tests.servers import PgBouncer, PostgreSQL, RabbitMQ, Redis
from tests.servers.postgresql import template

DURABLE = {"fsync": "on", "full_page_writes": "on", "autovacuum": "on", "max_worker_processes": "8"}
RATE = 300.0
"""Events a second."""


@contextmanager
def running(directory: Path, name: str) -> Iterator[tuple[Pair, str]]:
    """A pair of replicas on private servers, and the URL of their database."""
    with ExitStack() as stack:
        server = stack.enter_context(closing(PostgreSQL(template(directory / "cluster"), **DURABLE)))
        server.start()
        pooler = stack.enter_context(PgBouncer(server, directory / "pgbouncer"))
        broker: Redis | RabbitMQ = Redis(directory / name) if name == "redis" else RabbitMQ(directory / name)
        stack.enter_context(broker)
        database = server.new_database().rpartition("/")[2]
        both = stack.enter_context(pair(broker.url(), pooler.url(database), directory / "replicas"))
        yield both, server.url(database, "postgres")


@contextmanager
def endless(url: str) -> Iterator[None]:
    """Publish events at RATE, in the background, until the block ends."""
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


def committed(database: psycopg.Connection[tuple[float]], schema: str) -> float:
    """Events of tasks that the database has counted."""
    query = f"SELECT coalesce(sum(value), 0) FROM \"{schema}\".counters WHERE name LIKE 'events.task-%'"  # noqa: S608
    row = database.execute(query).fetchone()
    return row[0] if row else 0.0


def take_over(both: Pair, database: psycopg.Connection[tuple[float]], schema: str, randomly: random.Random) -> float:
    """Seconds of one."""
    leader, _ = both.until_complete()
    time.sleep(randomly.uniform(0.5, 2.5))  # the lease is renewed at any moment before
    began = time.monotonic()
    leader.kill()
    before = committed(database, schema)
    while committed(database, schema) <= before:
        time.sleep(0.005)
    took = time.monotonic() - began
    leader.launch()
    return took


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--broker", choices=["rabbitmq", "redis"], default="rabbitmq")
    arguments = parser.parse_args()
    randomly = random.Random(12)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        both, url = stack.enter_context(running(directory, arguments.broker))
        database: psycopg.Connection[tuple[float]] = stack.enter_context(psycopg.connect(url, autocommit=True))
        found = "SELECT table_schema FROM information_schema.tables WHERE table_name = 'counters'"
        ((schema,),) = psycopg.connect(url, autocommit=True).execute(found).fetchall()
        with endless(both.broker_url):
            times = [take_over(both, database, schema, randomly) for _ in range(arguments.times)]
    print(f"{arguments.times} take-overs on {arguments.broker}, from kill -9 to the first committed event, in seconds:")
    p50, p99 = (quantiles(times, n=100)[at] for at in (49, 98))
    print(f"p50 {p50:.2f}   p99 {p99:.2f}   max {max(times):.2f}")


if __name__ == "__main__":
    main()
