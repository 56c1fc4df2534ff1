"""The cost of a flush: repeated transactions with 5,000 messages of a busy fleet each, on a file of realistic size.

Usage: python -m bench.store [--flushes 60] [--tracked 100000] [--directory /path]
The CPU time is what the flush takes from the core that also decodes events; the wall time includes the disk.
"""

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator

from celery_monitor.adapters.store import open_store
from celery_monitor.core.model import (
    BUCKET_SECONDS,
    BucketDelta,
    Changes,
    ErrorDelta,
    ErrorGroup,
    Failure,
    Histogram,
    Series,
    SeriesKey,
    TaskRef,
)

NOW = 1_763_900_000
MESSAGES, SERIES, BUCKETS, TRACKED, FORGOTTEN, FAILURES, GROUPS = 5000, 200, 400, 1500, 1500, 300, 60
FILL = 4_000
"""Tasks that one flush begins at first: with the default prefetch, a flush contains some 2,000 to 4,000 messages."""
TRACEBACK = "Traceback (most recent call last):\n" + '  File "/app/shop/billing.py", line 12, in charge\n' * 30


def fills(tracked: int) -> int:
    """Number of flushes that begin the tracked tasks."""
    return -(-tracked // FILL)


def flushes(number: int, tracked: int, seed: int = 1) -> Iterator[Changes]:
    """First ``fills`` flushes that begin the tracked tasks, then ``number`` typical flushes."""
    rng = random.Random(seed)
    ref = TaskRef("shop.billing.charge", "celery", 2, 0.0, 1.7e9, 29_000_000)
    live = [(f"{rng.getrandbits(128):032x}", 1 + task // FILL) for task in range(tracked)]
    for sequence in range(1, fills(tracked) + 1):
        yield Changes(now=NOW, sequence=sequence, tracked=[(uuid, ref) for uuid, begun in live if begun == sequence])
    buckets, counts = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300), (7,) * 15
    histogram = Histogram(buckets, counts, 12.5)
    exceptions = {"ValueError": 12, "WorkerLostError": 3}
    names = [(f"shop.module{i % 17}.task{i}", f"queue{i % 5}") for i in range(SERIES)]
    for sequence in range(fills(tracked) + 1, fills(tracked) + number + 1):
        now = NOW + sequence * 0.5
        start = int(now) // BUCKET_SECONDS * BUCKET_SECONDS
        begun = [f"{rng.getrandbits(128):032x}" for _ in range(TRACKED)]
        ended, live = live[:FORGOTTEN], live[FORGOTTEN:] + [(uuid, sequence) for uuid in begun]
        yield Changes(
            now=now,
            sequence=sequence,
            series=[Series(SeriesKey(*name), (sequence,) * 8, exceptions, histogram, histogram) for name in names],
            buckets=[
                BucketDelta(start - BUCKET_SECONDS * (i >= SERIES), *names[i % SERIES], (1,) * 8, 1.5, 3)
                for i in range(BUCKETS)
            ],
            groups=[ErrorGroup(f"{g:016x}", "name", "ValueError", "app.py:f", now, now) for g in range(GROUPS)],
            errors=[ErrorDelta(start, f"{g:016x}", 5) for g in range(GROUPS)],
            failures=[
                Failure(
                    begun[i], *names[i % SERIES], "celery@box", now, "ValueError", "no such card", TRACEBACK,
                    f"{i % GROUPS:016x}", f"task{i % SERIES}/2026-11-23T14Z", "joined",
                )
                for i in range(FAILURES)
            ],
            tracked=[(uuid, ref) for uuid in begun],
            forgotten=ended,
            counters={f"counter{i}": float(sequence) for i in range(20)},
            epoch=1,
            fingerprints=rng.randbytes(8 * MESSAGES),
        )  # fmt: skip


def main() -> None:
    """Print the medians and the maxima."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flushes", type=int, default=60)
    parser.add_argument("--tracked", type=int, default=100_000)
    parser.add_argument("--directory", default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        path = os.path.join(directory, "store.db")  # noqa: PTH118 - a script
        store = open_store(f"sqlite:///{path}", retention=30 * 86400, fingerprint_window=4000)
        store.start()
        cpu, wall = [], []
        for changes in flushes(arguments.flushes, arguments.tracked):
            before = time.process_time(), time.perf_counter()
            store.commit(changes)
            cpu.append((time.process_time() - before[0]) * 1000)
            wall.append((time.perf_counter() - before[1]) * 1000)
        size = os.path.getsize(path) / 1e6  # noqa: PTH202 - a script
        log = os.path.getsize(path + "-wal") / 1e6  # noqa: PTH202
        before = time.process_time(), time.perf_counter()
        store.prune(NOW)
        pruned = (time.perf_counter() - before[1]) * 1000
        store.stop()
        began = time.perf_counter()
        restored = store.start()
        started = (time.perf_counter() - began) * 1000
        store.stop()
    filling = fills(arguments.tracked)
    print(f"begin {arguments.tracked} tasks: {sum(cpu[:filling]):.0f} ms CPU, {sum(wall[:filling]):.0f} ms wall")
    for name, values in (("CPU", cpu[filling:]), ("wall", wall[filling:])):
        print(f"flush, {name}: median {statistics.median(values):.1f} ms, worst {max(values):.1f} ms")
    print(f"database {size:.1f} MB, log {log:.1f} MB, prune {pruned:.1f} ms")
    print(f"start with {len(restored.tracked)} tracked tasks: {started:.0f} ms")


if __name__ == "__main__":
    main()
