"""Compares this daemon with celery-exporter, Flower and plain kombu on the same streams.

    PYTHONPATH=. python bench/side_by_side.py [--short] [--runs 5] [--write]
    PYTHONPATH=. python bench/side_by_side.py --from build/side_by_side.json --write

Each reader is alone on its broker while it is measured. Within a run, the readers are measured one after the other; the
next run uses the reverse order. A load is either flat out, as fast as the broker accepts it, or steady; a steady load
is measured in its middle. Each run also measures the time from a failure to its page on each broker (bench/paging.py).
Redis runs without its limit of 32 MB of unread messages per subscriber, because under a flat-out load it would
disconnect celery-exporter, which then exits.

``--short`` compares with celery-exporter only, on seven streams, and takes about four and a half minutes per run on an
idle machine.

A reader that dies or stops answering is recorded as such. Every measurement is written to build/side_by_side.json
immediately; ``--from`` reports such a file, even of an interrupted run, and measures nothing. ``--write`` writes
docs/benchmarks.md and its plots. celery-exporter and Flower are installed from PyPI into separate environments in
.cache.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby, product
from pathlib import Path
from typing import Final

from bench import pages, paging
from bench.peers.measure import FLAT_OUT, Size, Stream, life
from bench.peers.readers import READERS, install
from bench.peers.report import console, line, write
from bench.peers.results import RESULTS_FILE, Results
from tests.servers import RabbitMQ, Redis

PAGES_RATE: Final = 1_000
"""Events per second, one per message, in addition to the failures that page."""
SHORT: Final = (
    Stream("RabbitMQ", 0, 1),
    Stream("RabbitMQ", 1_000, 1),
    Stream("RabbitMQ", FLAT_OUT, 1),
    Stream("RabbitMQ", FLAT_OUT, 3),
    Stream("Redis", 0, 1),
    Stream("Redis", 1_000, 1),
    Stream("Redis", FLAT_OUT, 1),
)
SHORT_READERS: Final = ("celery-monitor", "celery-exporter")
_UNLIMITED: Final = ("--client-output-buffer-limit", "pubsub 0 0 0")


class Progress:
    """Prints lines with the estimated remaining time to standard error."""

    def __init__(self, total: int) -> None:
        """``total``: the number of measurements."""
        self._total, self._done, self._began = total, 0, time.monotonic()

    def say(self, run: str, text: str) -> None:
        """Report that another measurement is done."""
        self._done += 1
        left = self.seconds / self._done * (self._total - self._done)
        step = f"run {run}, {self._done} of {self._total}, {left / 60:.0f} min left"
        print(f"{step:<36}{text}", file=sys.stderr, flush=True)

    @property
    def seconds(self) -> float:
        """Elapsed seconds."""
        return time.monotonic() - self._began


def streams(arguments: argparse.Namespace) -> Iterator[Stream]:
    """The streams, with those for one process of a reader next to each other. Each broker's first stream is idle."""
    if arguments.short:
        yield from SHORT
        return
    rates = sorted(rate or FLAT_OUT for rate in arguments.rates)
    for broker in arguments.brokers:
        yield Stream(broker, 0, arguments.per_message[0])
        for per_message, rate in product(arguments.per_message, rates):
            yield Stream(broker, rate, per_message)


class Campaign:
    """All runs on one RabbitMQ and one Redis."""

    def __init__(self, arguments: argparse.Namespace, results: Results) -> None:
        """Measurements are added to the results and written to the file immediately."""
        wanted = list(streams(arguments))
        self._lives = [list(group) for _, group in groupby(wanted, lambda one: (one.broker, one.per_message))]
        self._brokers = list(dict.fromkeys(one.broker for one in wanted))
        self._readers = SHORT_READERS if arguments.short else tuple(READERS)
        self._arguments, self._results = arguments, results
        self._progress = Progress(arguments.runs * (len(self._readers) * len(wanted) + len(self._brokers)))

    def measure(self) -> None:
        """Measure everything. Raises CalledProcessError if a peer cannot be installed."""
        install(self._readers)
        with (
            tempfile.TemporaryDirectory() as name,
            RabbitMQ(Path(name, "rabbitmq")) as rabbitmq,
            Redis(Path(name, "redis"), options=_UNLIMITED) as redis,
        ):
            for run in range(self._arguments.runs):
                self._run(run, Path(name), rabbitmq, redis)

    def _run(self, run: int, top: Path, rabbitmq: RabbitMQ, redis: Redis) -> None:
        for number, life_of in enumerate(self._lives):
            for reader in self._readers[:: -1 if run % 2 else 1]:
                with _empty(life_of[0].broker, rabbitmq, redis) as url:
                    self._life(reader, life_of, url, top / f"{run}-{number}-{reader[:14]}", run)
        for broker in self._brokers:
            with _empty(broker, rabbitmq, redis) as url:
                took, _ = paging.run(
                    url, top / f"{run}-pages-{broker}", PAGES_RATE, self._arguments.pages, per_message=1
                )
            self._results.pages.setdefault(broker, []).append(took)
            self._done(run, f"{broker:<9}{paging.line(took)}")

    def _life(self, reader: str, life_of: Sequence[Stream], url: str, directory: Path, run: int) -> None:
        size = Size(self._arguments.seconds, self._arguments.tasks)
        for measured in life(reader, life_of, url, directory, size=size, run=run):
            self._results.streams.append(asdict(measured))
            self._done(run, line(asdict(measured)))

    def _done(self, run: int, text: str) -> None:
        self._progress.say(f"{run + 1}/{self._arguments.runs}", text)
        self._results.seconds = self._progress.seconds
        self._results.keep()


@contextmanager
def _empty(broker: str, rabbitmq: RabbitMQ, redis: Redis) -> Iterator[str]:
    """The URL of an unused broker."""
    if broker == "Redis":
        yield redis.new_database()
        return
    url = rabbitmq.new_vhost()
    yield url
    rabbitmq.delete_vhost(url)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="beside celery-exporter only, on seven streams")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--rates", type=int, nargs="+", default=[0, 100, 1000, 5000], help="events/s; 0 is flat out")
    parser.add_argument("--per-message", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--brokers", nargs="+", choices=["RabbitMQ", "Redis"], default=["RabbitMQ", "Redis"])
    parser.add_argument("--seconds", type=float, default=8.0, help="of a steady load, and of idling")
    parser.add_argument("--tasks", type=int, default=20_000, help="of a load that is flat out")
    parser.add_argument("--pages", type=int, default=50, help="failures that page, on each broker")
    parser.add_argument("--from", dest="file", type=Path, help="report this file, and measure nothing")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    return parser.parse_args()


def main() -> None:
    """Measure, print, and write if requested."""
    arguments = parse()
    if arguments.write:
        pages.require("peers")
    if arguments.file:
        results = Results(**json.loads(arguments.file.read_text()))
    else:
        size = f"{arguments.tasks:,} tasks flat out, {arguments.seconds:g} s of each steady load and of idling"
        results = Results(pages.machine(), size)
        try:
            Campaign(arguments, results).measure()
        except BaseException:
            print(
                f"Interrupted. Report what is there: bench/side_by_side.py --from {RESULTS_FILE} --write",
                file=sys.stderr,
            )
            raise
    print(console(results))
    if arguments.write:
        write(results)


if __name__ == "__main__":
    main()
