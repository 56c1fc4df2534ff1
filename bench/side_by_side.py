"""This daemon beside celery-exporter, Flower and bare kombu, on the same streams in one run.

    PYTHONPATH=. python bench/side_by_side.py [--runs 5] [--write]

Each reader is alone on its broker while it is measured, in turns, and the median of the runs is printed. A load is
either flat out, as fast as the broker takes it, or steady. ``--write`` writes docs/benchmarks.md and its plots, and
keeps every single measurement in build/side_by_side.json. celery-exporter and Flower are installed from PyPI, each
into an environment of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from bench.peers.readers import READERS, Reader, cpu_seconds, resident_bytes, start
from bench.peers.report import print_table, write
from bench.publish import Load
from tests.servers import RabbitMQ, Redis

WARM_UP = 3.0
SETTLE = 2.5
"""Seconds without another event, after which nothing more is expected."""
FLAT_OUT = 10**9
EVENTS_PER_TASK = 3.56
"""Of bench.publish.Load, about."""


@dataclass(frozen=True)
class Scenario:
    """A stream: ``rate`` events a second, FLAT_OUT or 0 (idle), ``per_message`` of them in a message."""

    broker: str
    rate: int
    per_message: int


@dataclass(frozen=True)
class Measured:
    """What one reader did with one stream. CPU time is of its process only."""

    reader: str
    broker: str
    rate: int
    per_message: int
    published: int
    counted: int
    cpu_per_event: float | None
    """Seconds for each event that it counted."""
    cpu_share: float
    """Of one core, at the stream's rate; at a flat-out load, while it lasted."""
    resident: int
    """Bytes."""
    scrape: float | None
    """Seconds."""


def publish(url: str, scenario: Scenario, tasks: int) -> int:
    """Publish the load; returns the number of events when the broker has them all."""
    load = Load(tasks, scenario.per_message, prefix="load")
    command = [sys.executable, "bench/publish.py", "--broker", url, "--tasks", str(tasks), "--rate", str(scenario.rate)]
    command += ["--per-message", str(scenario.per_message)]
    command += ["--even"] if scenario.rate <= 1000 else []
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return load.events


def settle(reader: Reader, per_message: int, began: float) -> tuple[int, float, float]:
    """Wait until it counts no more: the number, its CPU time, and when that was first seen."""
    seen, cpu, at = reader.events(per_message), cpu_seconds(reader), time.monotonic()
    while time.monotonic() - at < SETTLE and time.monotonic() - began < 300:
        time.sleep(0.25)
        now = reader.events(per_message)
        if now != seen:
            seen, cpu, at = now, cpu_seconds(reader), time.monotonic()
    return seen, cpu, at


def measure(name: str, scenario: Scenario, url: str, directory: Path, arguments: argparse.Namespace) -> Measured:
    """One reader, one stream."""
    with start(name, directory, url) as reader:
        time.sleep(WARM_UP)
        before, cpu, began = reader.events(scenario.per_message), cpu_seconds(reader), time.monotonic()
        if scenario.rate == 0:
            time.sleep(arguments.seconds)
            published, counted, used, ended = 0, 0, cpu_seconds(reader), time.monotonic()
        else:
            steady = int(scenario.rate * arguments.seconds / EVENTS_PER_TASK)
            tasks = arguments.tasks if scenario.rate == FLAT_OUT else steady
            published = publish(url, scenario, tasks)
            counted, used, ended = settle(reader, scenario.per_message, began)
            counted -= before
        resident = resident_bytes(reader)
        scrape = reader.scrape()
    cpu = used - cpu
    steady = counted and scenario.rate != FLAT_OUT
    return Measured(
        reader=name,
        broker=scenario.broker,
        rate=scenario.rate,
        per_message=scenario.per_message,
        published=published,
        counted=counted,
        cpu_per_event=cpu / counted if counted else None,
        cpu_share=cpu / counted * scenario.rate if steady else cpu / (ended - began),
        resident=resident,
        scrape=scrape,
    )


def scenarios(arguments: argparse.Namespace) -> Iterator[Scenario]:
    """Idle once for each broker, then every combination."""
    for broker in arguments.brokers:
        yield Scenario(broker, 0, 1)
    for broker, rate, per_message in product(arguments.brokers, arguments.rates, arguments.per_message):
        yield Scenario(broker, rate or FLAT_OUT, per_message)


def campaign(arguments: argparse.Namespace) -> Iterator[Measured]:
    """All measurements, the readers in turns."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        with RabbitMQ(top / "rabbitmq") as rabbitmq, Redis(top / "redis") as redis:
            for run, scenario in product(range(arguments.runs), scenarios(arguments)):
                for reader in READERS:
                    url = rabbitmq.new_vhost() if scenario.broker == "RabbitMQ" else redis.url()
                    directory = top / f"{run}-{scenario.broker}-{scenario.rate}-{scenario.per_message}-{reader[:6]}"
                    measured = measure(reader, scenario, url, directory, arguments)
                    print(f"run {run + 1}/{arguments.runs}  {line(measured)}", file=sys.stderr, flush=True)
                    yield measured


def line(measured: Measured) -> str:
    """For the progress."""
    rate = {0: "idle", FLAT_OUT: "flat out"}.get(measured.rate, f"{measured.rate} events/s")
    text = f"{measured.broker:<9}{rate:<14}{measured.per_message} a message  {measured.reader:<16}"
    if measured.cpu_per_event is not None:
        lost = 1 - measured.counted / measured.published
        text += f"{measured.cpu_per_event * 1e6:7.1f} µs an event, lost {100 * lost:5.1f} %, "
    return text + f"{100 * measured.cpu_share:6.2f} % of a core, {measured.resident / 1e6:.0f} MB"


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--rates", type=int, nargs="+", default=[0, 100, 1000, 5000], help="events/s; 0 is flat out")
    parser.add_argument("--per-message", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--brokers", nargs="+", choices=["RabbitMQ", "Redis"], default=["RabbitMQ", "Redis"])
    parser.add_argument("--seconds", type=float, default=10.0, help="of a steady load, and of idling")
    parser.add_argument("--tasks", type=int, default=30_000, help="of a load that is flat out")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    arguments = parser.parse_args()
    found = [asdict(measured) for measured in campaign(arguments)]
    raw = Path("build/side_by_side.json")
    raw.parent.mkdir(exist_ok=True)
    raw.write_text(json.dumps(found, indent=1))
    print_table(found)
    if arguments.write:
        write(found, arguments.runs)


if __name__ == "__main__":
    main()
