"""Events per second from a real RabbitMQ into the store, with the daemon on one core, and its CPU time per event.

SQLite and PostgreSQL are compared; both write each flush to the disk before they report that it is committed.

    PYTHONPATH=. python bench/throughput.py [--tasks 60000] [--turns 3]

The daemon is frozen while the load is published, so that only its own speed is measured: from the moment it continues
until all events are counted, committed and acknowledged. The benchmark reads from the store how many events are
committed, so that waiting takes no CPU time of the daemon. Only after that it requests the metrics, until they show
that all messages are acknowledged. The databases are measured alternately, so that both see the same machine, and their
medians are compared.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.committed import CommittedEvents
from bench.publish import AmqpPublisher, Load, publish
from tests.e2e.daemon import Daemon
from tests.servers import PostgreSQL, RabbitMQ
from tests.servers.postgresql import template
from tests.servers.waiting import wait_until

PEERS = """\
The peers on RabbitMQ, from a run on another machine (they lose what is older than 5 s):
                       1 event a message          3 events a message
    celery-exporter    122 µs an event            74 µs (it lost 21 %)
    Flower             96 µs (it lost 59 %)       55 µs (it lost 55 %)"""


class OneCore(Daemon):
    """A daemon that may use only the first core."""

    def command(self) -> Sequence[str]:
        """The command, bound to the core."""
        return ["taskset", "-c", "0", *super().command()]


DURABLE = {"fsync": "on", "full_page_writes": "on", "autovacuum": "on", "max_worker_processes": "8"}


def run(directory: Path, broker: RabbitMQ, load: Load, store: str, url: str) -> float:
    """Measure one load, print a line, and return the events per second."""
    settings: dict[str, dict[str, Any]] = {
        "broker": {"heartbeat": "10m", "enable_events": False},
        "metrics": {"poll_interval": "1h"},
        # A daemon that is frozen for longer would become a standby.
        "store": {"url": url, "directory": str(directory), "lease_ttl": "1m"},
    }
    with OneCore(directory, broker.new_vhost(), settings) as daemon, CommittedEvents(url) as committed:
        daemon.until_ready()
        # A standby is also ready, but does not read: events published then would be lost.
        wait_until(lambda: daemon.metrics().get("celery_monitor_events_total"), what="a probe that has come back")
        daemon.pause()
        to = AmqpPublisher(daemon.settings["broker"]["url"])
        publish(to, load, rate=1e9)
        to.close()
        expected, cpu, began = load.events, daemon.cpu_seconds(), time.monotonic()
        daemon.resume()
        committed.wait_for(expected)
        while daemon.metrics()["celery_monitor_unacked_messages"] != [({}, 0)]:
            time.sleep(0.05)
        took, used = time.monotonic() - began, daemon.cpu_seconds() - cpu
        daemon.until_counts(load.counts())
        memory = daemon.resident_bytes() / 1e6
    print(
        f"{store:<10} {load.per_message:>2} a message: {expected} events in {took:.1f} s: "
        f"{expected / took:.0f} events/s, "
        f"{used / expected * 1e6:.1f} µs of processor time an event, {memory:.0f} MB resident"
    )
    return expected / took


def main() -> None:
    """Measure one and three events per message, as for the peers, and twenty, as busy workers may send."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=60_000)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        RabbitMQ(Path(name, "rabbitmq")) as broker,
        closing(PostgreSQL(template(Path(name, "postgresql")), **DURABLE)) as server,
    ):
        server.start()
        for per_message in (1, 3, 20):
            load = Load(arguments.tasks, per_message)
            in_file, in_server = [], []
            for turn in range(arguments.turns):
                here = Path(name, f"{per_message}-{turn}")
                in_file.append(run(here / "sqlite", broker, load, "SQLite", f"sqlite:///{here}.db"))
                in_server.append(run(here / "postgresql", broker, load, "PostgreSQL", server.new_database()))
            ratio = statistics.median(in_server) / statistics.median(in_file)
            print(f"           PostgreSQL is at {ratio:.0%} of SQLite")
    print(PEERS)


if __name__ == "__main__":
    main()
