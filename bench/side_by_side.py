"""This daemon beside celery-exporter, Flower and bare kombu, on the same streams in one run.

    PYTHONPATH=. python bench/side_by_side.py [--short] [--runs 5] [--write]

Each reader is alone on its broker while it is measured, in turns, and the median of the runs is printed. A load is
either flat out, as fast as the broker takes it, or steady; then the time in the middle of the load is measured.
``--short`` leaves out what takes long: it compares with celery-exporter only, on seven streams, and takes some four
minutes a run. Each run also measures the time from a failure to its page (bench/paging.py).

A reader that dies or does not answer any more is noted as such. ``--write`` writes docs/benchmarks.md and its plots,
and keeps every single measurement in build/side_by_side.json. celery-exporter and Flower are installed from PyPI, each
into an environment of its own.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from http.client import HTTPException
from itertools import product
from pathlib import Path

from bench import paging
from bench.peers.readers import READERS, Reader, cpu_seconds, resident_bytes, start
from bench.peers.report import print_table, write
from bench.publish import Load
from tests.servers import RabbitMQ, Redis

WARM_UP = 4.0
STEADY_AFTER = 3.0
"""Seconds of a steady load before it is measured: what is done once is done by then."""
SETTLE = 2.5
"""Seconds without another event, after which nothing more is expected."""
PATIENCE = 60.0
"""Seconds after the end of a load in which a reader may still count it."""
PAGES, PAGES_RATE = 100, 1_000
"""Failures that page in a run, and the events a second beside them."""
FLAT_OUT = 10**9
EVENTS_PER_TASK = 3.56
"""Of bench.publish.Load, about."""


@dataclass(frozen=True)
class Scenario:
    """A stream: ``rate`` events a second, FLAT_OUT or 0 (idle), ``per_message`` of them in a message."""

    broker: str
    rate: int
    per_message: int


SHORT = (
    Scenario("RabbitMQ", 0, 1),
    Scenario("Redis", 0, 1),
    Scenario("RabbitMQ", 1_000, 1),
    Scenario("Redis", 1_000, 1),
    Scenario("RabbitMQ", FLAT_OUT, 1),
    Scenario("RabbitMQ", FLAT_OUT, 3),
    Scenario("Redis", FLAT_OUT, 1),
)
SHORT_READERS = ("celery-monitor", "celery-exporter")


@dataclass(frozen=True)
class Measured:
    """What one reader did with one stream. CPU time is of its process only."""

    reader: str
    broker: str
    rate: int
    per_message: int
    published: int
    counted: int | None
    """None: it died, or did not answer any more."""
    cpu_per_event: float | None
    """Seconds for each event that it counted."""
    cpu_share: float | None
    """Of one core; at a flat-out load, while it lasted."""
    resident: int | None
    """Bytes."""
    scrape: float | None
    """Seconds."""


@dataclass(frozen=True)
class Used:
    """What a reader did in some time."""

    published: int
    counted: int
    cpu_per_event: float | None
    cpu_share: float


def command(url: str, scenario: Scenario, tasks: int) -> list[str]:
    """The publisher of a load."""
    found = [sys.executable, "bench/publish.py", "--broker", url, "--tasks", str(tasks), "--rate", str(scenario.rate)]
    found += ["--per-message", str(scenario.per_message)]
    return [*found, "--even"] if scenario.rate <= 1000 else found


def settle(reader: Reader, per_message: int) -> tuple[int, float, float]:
    """Wait until it counts no more: the number, its CPU time, and when that was first seen.

    Raises OSError or HTTPException when it does not answer at the end.
    """
    until = time.monotonic() + PATIENCE
    seen, cpu, at = -1, 0.0, 0.0
    while True:
        try:
            now = reader.events(per_message)
        except (OSError, HTTPException):  # busy, perhaps
            if time.monotonic() >= until:
                raise
            now = -1
        if now != seen:
            seen, cpu, at = now, cpu_seconds(reader), time.monotonic()
        if time.monotonic() >= until or (seen >= 0 and time.monotonic() - at >= SETTLE):
            return seen, cpu, at
        time.sleep(0.25)


def idle(reader: Reader, seconds: float) -> Used:
    """Nothing comes."""
    cpu, began = cpu_seconds(reader), time.monotonic()
    time.sleep(seconds)
    return Used(0, 0, None, (cpu_seconds(reader) - cpu) / (time.monotonic() - began))


def flat_out(reader: Reader, url: str, scenario: Scenario, tasks: int) -> Used:
    """From the beginning of the load until the reader counts no more."""
    before, cpu, began = reader.events(scenario.per_message), cpu_seconds(reader), time.monotonic()
    subprocess.run(command(url, scenario, tasks), check=True, stdout=subprocess.DEVNULL)
    counted, used, ended = settle(reader, scenario.per_message)
    counted, used = counted - before, used - cpu
    published = Load(tasks, scenario.per_message).events
    return Used(published, counted, used / counted if counted else None, used / (ended - began))


def steady(reader: Reader, url: str, scenario: Scenario, seconds: float) -> Used:
    """In the middle of the load."""
    tasks = int(scenario.rate * (seconds + STEADY_AFTER + 2) / EVENTS_PER_TASK)
    before = reader.events(scenario.per_message)
    with subprocess.Popen(command(url, scenario, tasks), stdout=subprocess.DEVNULL) as publisher:
        try:
            time.sleep(STEADY_AFTER)
            events = reader.events(scenario.per_message)
            cpu, began = cpu_seconds(reader), time.monotonic()
            time.sleep(seconds)
            used, took = cpu_seconds(reader) - cpu, time.monotonic() - began
            events = reader.events(scenario.per_message) - events
            publisher.wait(seconds + 60)
        finally:
            publisher.kill()
    counted = settle(reader, scenario.per_message)[0] - before
    published = Load(tasks, scenario.per_message).events
    return Used(published, counted, used / events if events else None, used / took)


def measure(name: str, scenario: Scenario, url: str, directory: Path, arguments: argparse.Namespace) -> Measured:
    """One reader, one stream."""
    used, resident, scrape = None, None, None
    with start(name, directory, url) as reader:
        time.sleep(WARM_UP)
        try:
            if scenario.rate == 0:
                used = idle(reader, arguments.seconds)
            elif scenario.rate == FLAT_OUT:
                used = flat_out(reader, url, scenario, arguments.tasks)
            else:
                used = steady(reader, url, scenario, arguments.seconds)
            resident = resident_bytes(reader)
            scrape = reader.scrape()
        except (OSError, HTTPException) as exc:
            print(f"{name} does not answer: {exc!r}", file=sys.stderr)
    return Measured(
        reader=name,
        broker=scenario.broker,
        rate=scenario.rate,
        per_message=scenario.per_message,
        published=used.published if used else 0,
        counted=used.counted if used else None,
        cpu_per_event=used.cpu_per_event if used else None,
        cpu_share=used.cpu_share if used else None,
        resident=resident,
        scrape=scrape,
    )


def scenarios(arguments: argparse.Namespace) -> Iterator[Scenario]:
    """Idle once for each broker, then every combination."""
    if arguments.short:
        yield from SHORT
        return
    for broker in arguments.brokers:
        yield Scenario(broker, 0, 1)
    for broker, rate, per_message in product(arguments.brokers, arguments.rates, arguments.per_message):
        yield Scenario(broker, rate or FLAT_OUT, per_message)


def campaign(arguments: argparse.Namespace) -> tuple[list[Measured], list[Sequence[float]]]:
    """All measurements, the readers in turns; and of each run what its pages took, sorted, in seconds."""
    found: list[Measured] = []
    pages: list[Sequence[float]] = []
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        for run in range(arguments.runs):
            with RabbitMQ(top / f"rabbitmq-{run}") as rabbitmq, Redis(top / f"redis-{run}") as redis:
                for scenario, reader in product(scenarios(arguments), SHORT_READERS if arguments.short else READERS):
                    url = rabbitmq.new_vhost() if scenario.broker == "RabbitMQ" else redis.url()
                    directory = top / f"{run}-{scenario.broker}-{scenario.rate}-{scenario.per_message}-{reader[:14]}"
                    found.append(measure(reader, scenario, url, directory, arguments))
                    print(f"run {run + 1}/{arguments.runs}  {line(found[-1])}", file=sys.stderr, flush=True)
            took, _ = paging.run(PAGES_RATE, PAGES)
            pages.append(took)
            print(f"run {run + 1}/{arguments.runs}  {paging.line(took)}", file=sys.stderr, flush=True)
    return found, pages


def line(measured: Measured) -> str:
    """For the progress."""
    rate = {0: "idle", FLAT_OUT: "flat out"}.get(measured.rate, f"{measured.rate} events/s")
    text = f"{measured.broker:<9}{rate:<14}{measured.per_message} a message  {measured.reader:<16}"
    if measured.counted is None or measured.cpu_share is None or measured.resident is None:
        return text + "did not answer"
    if measured.cpu_per_event is not None:
        lost = 1 - measured.counted / measured.published
        text += f"{measured.cpu_per_event * 1e6:7.1f} µs an event, lost {100 * lost:5.1f} %, "
    return text + f"{100 * measured.cpu_share:6.2f} % of a core, {measured.resident / 1e6:.0f} MB"


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="beside celery-exporter only, on seven streams")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--rates", type=int, nargs="+", default=[0, 100, 1000, 5000], help="events/s; 0 is flat out")
    parser.add_argument("--per-message", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--brokers", nargs="+", choices=["RabbitMQ", "Redis"], default=["RabbitMQ", "Redis"])
    parser.add_argument("--seconds", type=float, default=8.0, help="of a steady load, and of idling")
    parser.add_argument("--tasks", type=int, default=20_000, help="of a load that is flat out")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    arguments = parser.parse_args()
    began = time.monotonic()
    measured, pages = campaign(arguments)
    found = [asdict(one) for one in measured]
    raw = Path("build/side_by_side.json")
    raw.parent.mkdir(exist_ok=True)
    raw.write_text(json.dumps({"streams": found, "pages": pages}, indent=1))
    print_table(found)
    print(paging_sentence(pages))
    print(f"It took {(time.monotonic() - began) / 60:.1f} minutes.")
    if arguments.write:
        write(found, arguments.runs, paging_sentence(pages))


def paging_sentence(pages: Sequence[Sequence[float]]) -> str:
    """The medians over the runs."""
    middle, late = (statistics.median(paging.quantile(took, share) for took in pages) for share in (0.5, 0.99))
    return (
        f"From a failure to the request to PagerDuty, beside {PAGES_RATE:,} events/s on RabbitMQ "
        f"({PAGES} pages a run): median {middle:.2f} s, 99th percentile {late:.2f} s."
    )


if __name__ == "__main__":
    main()
