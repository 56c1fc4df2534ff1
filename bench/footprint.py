"""The cost of a pair of task name and queue, of a worker and of a failing task: memory, size of a scrape, disk.

    PYTHONPATH=. python bench/footprint.py [--pairs 4000] [--workers 2000]

Runs the real monitor, store and exposition in this process, without a broker. Each figure is the difference divided by
the number of items added. docs/sizing.md has the results.
"""

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from celery_monitor.adapters.clock import SystemClock
from celery_monitor.adapters.prometheus.exposition import Exposition, Format
from celery_monitor.adapters.prometheus.runtime_stats import RuntimeStats
from celery_monitor.adapters.store import open_store
from celery_monitor.core.committed_totals import CommittedTotals
from celery_monitor.core.model import BUCKET_SECONDS, Delivery, Snapshot
from celery_monitor.core.monitor import Limits, Monitor
from celery_monitor.settings.metrics import MetricsSettings

NOW = 1_763_900_100.0
QUARTERS_A_DAY = 86_400 // BUCKET_SECONDS
TRACEBACK = "Traceback (most recent call last):\n" + '  File "/app/shop/billing.py", line 12, in charge\n' * 20


class Bench:
    """A monitor with a store in a file."""

    def __init__(self, directory: Path) -> None:
        self.now = NOW
        self.path = directory / "store.db"
        self._store = open_store(f"sqlite:///{self.path}", retention=90 * 86_400.0, fingerprint_window=4000)
        self._monitor = Monitor(Limits(), self._store.start(), NOW)
        self._totals = CommittedTotals(self._monitor.snapshot())
        self._exposition = Exposition(
            MetricsSettings(), SystemClock(), snapshot=self.snapshot, queues=tuple, runtime=RuntimeStats
        )

    def snapshot(self) -> Snapshot:
        """The committed state."""
        return self._monitor.snapshot(self._totals)

    def feed(self, events: Iterable[dict[str, Any]]) -> None:
        """Receive events and commit them like a flush."""
        for event in events:
            self._monitor.receive([Delivery(json.dumps({"timestamp": self.now, **event}).encode())], self.now)
        self._monitor.tick(self.now)  # otherwise failed tasks would stay among the active tasks forever
        changes = self._monitor.take(self.now, force=True)
        if changes is not None:
            self._store.commit(changes)
            self._totals.commit(changes)

    def scrape(self, *, gzip: bool) -> int:
        """Size of one scrape in bytes."""
        return self._exposition.render(Format(openmetrics=True, gzip=gzip)).length

    def disk(self) -> int:
        """Size of the database file in bytes, after a checkpoint of the WAL."""
        self._store.stop()
        size = self.path.stat().st_size
        self._store.start()
        return size

    def restart(self) -> float:
        """Seconds that a start with this file takes."""
        self._store.stop()
        began = time.perf_counter()
        self._store.start()
        return time.perf_counter() - began

    def prune(self) -> float:
        """Seconds that it takes to delete rows older than the retention."""
        began = time.perf_counter()
        self._store.prune(self.now)
        return time.perf_counter() - began

    def stop(self) -> None:
        """Close the file."""
        self._store.stop()


def resident() -> int:
    """Resident memory of this process in bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run_of(number: int, failing: bool = False) -> Iterator[dict[str, Any]]:  # noqa: FBT001, FBT002 - a script
    """All events of one task of the pair with this number."""
    told = {"uuid": str(uuid4()), "hostname": f"celery@box{number % 4}"}
    yield {"type": "task-sent", "name": f"shop.module{number % 20}.task_number_{number}", "queue": "celery", **told}
    yield {"type": "task-started", **told}
    if failing:
        yield {"type": "task-failed", "exception": "ValueError('declined')", "traceback": TRACEBACK, **told}
    else:
        yield {"type": "task-succeeded", "runtime": 0.25, "result": "None", **told}


def runs(numbers: Sequence[int], *, failing: bool = False) -> Iterator[dict[str, Any]]:
    """The events of one task of each pair."""
    for number in numbers:
        yield from run_of(number, failing)


def heartbeats(number: int) -> Iterator[dict[str, Any]]:
    """One heartbeat of each of this many workers."""
    about = {"sw_ident": "py-celery", "sw_ver": "5.7.0", "sw_sys": "Linux", "active": 1, "processed": 10, "freq": 2.0}
    for worker in range(number):
        yield {"type": "worker-heartbeat", "hostname": f"celery@worker-{worker:05}.shop.svc", "pid": 7, **about}


def memory_and_scrape(bench: Bench, pairs: int, workers: int) -> None:
    """Print memory and size of a scrape for pairs and for workers."""
    bench.feed(runs(range(20)))
    bench.scrape(gzip=True)
    for what, number, events in (
        ("pair of task name and queue", pairs, runs(range(20, 20 + pairs))),
        ("worker", workers, heartbeats(workers)),
    ):
        before = resident(), bench.scrape(gzip=False), bench.scrape(gzip=True)
        bench.feed(events)
        after = bench.scrape(gzip=False), bench.scrape(gzip=True)
        plain, packed = ((new - old) / number for new, old in zip(after, before[1:], strict=True))
        grown = (resident() - before[0]) / number
        print(f"a {what}: {grown / 1000:.1f} kB resident; {plain:.0f} bytes of a scrape, {packed:.0f} compressed")


def disk(bench: Bench, pairs: int, groups: int) -> None:
    """Print the disk space per day of a pair that runs all the time, and of a failing task, once and per day."""
    for _ in range(QUARTERS_A_DAY):  # until bounded tables are full
        bench.now += BUCKET_SECONDS
        bench.feed(runs(range(pairs)))
    size = bench.disk()
    for _ in range(QUARTERS_A_DAY):
        bench.now += BUCKET_SECONDS
        bench.feed(runs(range(pairs)))
    grown, size = bench.disk() - size, bench.disk()
    print(f"a pair that runs in every quarter of an hour: {grown / pairs / 1000:.1f} kB of disk a day")
    for _ in range(20):
        bench.feed(runs(range(groups), failing=True))
    grown, size = bench.disk() - size, bench.disk()
    print(f"a failing task, 20 samples of {len(TRACEBACK)} bytes: {grown / groups / 1000:.1f} kB of disk")
    for _ in range(QUARTERS_A_DAY):
        bench.now += BUCKET_SECONDS
        bench.feed(runs(range(groups), failing=True))
    grown = bench.disk() - size
    print(f"a task that fails in every quarter of an hour: {grown / groups / 1000:.1f} kB of disk a day")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        memory_and_scrape(bench, arguments.pairs, arguments.workers)
        bench.stop()
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        bench.feed(runs(range(500)))
        disk(bench, 500, 100)
        bench.stop()


if __name__ == "__main__":
    main()
