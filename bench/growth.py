"""How memory, disk and CPU time grow with active tasks, task names, workers, stored failures and retained days.

    PYTHONPATH=. python bench/growth.py [--only tasks names workers failures days] [--scale 1.0] [--write]
    PYTHONPATH=. python bench/growth.py --check

Each curve is measured at several sizes; ``--scale 0.1`` divides all sizes by ten. ``--write`` writes the table and the
plot of each measured curve to docs/benchmarks.md as soon as it is complete. The rules of thumb of docs/sizing.md are
compared with the slopes; ``--check`` uses the curves in docs/benchmarks.md instead of measuring again. A figure that is
off by more than a quarter is reported, and the exit status is 1.
"""

import argparse
import gc
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from bench import pages
from bench.footprint import Bench, resident, runs
from bench.memory import committed, event, feed, waiting
from celery_monitor.core.model import BUCKET_SECONDS
from tests.e2e.daemon import Daemon
from tests.servers import RabbitMQ

MB: Final = 1e6
DAY: Final = 86_400


@dataclass
class Curve:
    """A growth curve: one row for each size, whose first cell is the size."""

    title: str
    head: Sequence[str]
    rows: list[tuple[float, ...]] = field(default_factory=list)
    plotted: int = 1
    """The column of the plot."""
    took: float = 0.0
    """Duration of the measurement, in seconds."""

    def add(self, *row: float) -> None:
        """Add a row and print it."""
        self.rows.append(row)
        cells = ", ".join(f"{name} {value:,.4g}" for name, value in zip(self.head[1:], row[1:], strict=True))
        print(f"{row[0]:>12,.0f} {self.head[0]}: {cells}", flush=True)

    def slope(self, column: int) -> float:
        """Growth of a column per unit of the size, between the first and the last row."""
        first, last = self.rows[0], self.rows[-1]
        return (last[column] - first[column]) / (last[0] - first[0])


def steps(largest: float, scale: float, number: int = 4) -> list[int]:
    """Sizes up to ``largest``."""
    return [int(largest * scale * (step + 1) / number) for step in range(number)]


def tasks(scale: float) -> Curve:
    """Waiting tasks, received from a real RabbitMQ, up to a million: memory, the cost of an event, the time of a start.

    The daemon is restarted at each size. A task read from the store needs more memory than one that was received:
    about 400 bytes instead of 340.
    """
    curve = Curve("Tasks under way", ("tasks", "memory (MB)", "store (MB)", "CPU per event (µs)", "start (s)"))
    largest = int(1_000_000 * scale)
    settings = {"tracking": {"max_tasks": largest, "max_memory": "2GiB"}}
    with _daemon(settings) as daemon:
        sent = at = 0
        for size in (0, *steps(largest, 1.0)):
            sent, at = feed(daemon, islice(waiting(size), at, None), sent), size
            used = daemon.cpu_seconds()
            # Start and retry some tasks, which leaves the number of active tasks unchanged.
            turns = [event(kind, task) for task in range(min(size, 20_000)) for kind in ("started", "retried")]
            sent = feed(daemon, iter(turns), sent)
            used = (daemon.cpu_seconds() - used) / len(turns) if turns else 0.0
            memory = daemon.resident_bytes()
            daemon.stop()
            store, began = daemon.store.stat().st_size, time.monotonic()
            daemon.start()
            daemon.until_ready()
            curve.add(size, memory / MB, store / MB, used * 1e6, time.monotonic() - began)
            with committed(daemon) as events:
                sent = events.count()
    return curve


def names(scale: float) -> Curve:
    """Pairs of task name and queue, up to the default bound."""
    curve = Curve("Task names", ("pairs", "memory (MB)", "scrape (MB)", "compressed (MB)", "scrape (ms)", "store (MB)"))
    with _bench() as bench:
        bench.feed(runs(range(20)))
        bench.scrape(gzip=True)
        before, done = resident(), 20
        for size in (20, *steps(10_000, scale)):
            bench.feed(runs(range(done, size)))
            memory, done = resident() - before, size
            began = time.process_time()
            plain = bench.scrape(gzip=False)
            took = time.process_time() - began
            curve.add(size, memory / MB, plain / MB, bench.scrape(gzip=True) / MB, took * 1000, bench.disk() / MB)
    return curve


def workers(scale: float) -> Curve:
    """Idle workers that send heartbeats and answer remote control, on a real RabbitMQ."""
    curve = Curve("Workers", ("workers", "memory (MB)", "CPU (% of a core)", "seen up"), plotted=2)
    for size in (1, *steps(3_000, scale, 2)):
        with _daemon({"metrics": {"poll_interval": "15s"}}) as daemon:
            url = daemon.settings["broker"]["url"]
            command = [sys.executable, "bench/workers.py", "--broker", url, "--workers", str(size)]
            fleet = subprocess.Popen([*command, "--seconds", "300"])
            try:
                time.sleep(25)
                used, began = daemon.cpu_seconds(), time.monotonic()
                time.sleep(30)
                share = (daemon.cpu_seconds() - used) / (time.monotonic() - began)
                curve.add(size, daemon.resident_bytes() / MB, 100 * share, daemon.metric("worker_up"))
            finally:
                fleet.terminate()
                fleet.wait(20)
    return curve


def failures(scale: float) -> Curve:
    """Failures with a traceback: 500 tasks that fail every 15 minutes, with an incident every hour."""
    curve = Curve("Failures stored", ("failures", "store (MB)", "start (ms)", "prune (ms)"))
    with _bench() as bench:
        done = 0
        for size in (10_000, *steps(200_000, scale)):
            while done < size:
                bench.feed(runs(range(500), failing=True))
                bench.now += BUCKET_SECONDS
                done += 500
            curve.add(size, *_stored(bench))
    return curve


def days(scale: float) -> Curve:
    """Days with 100 pairs that run every 15 minutes."""
    curve = Curve("Days retained", ("days", "store (MB)", "start (ms)", "prune (ms)"))
    with _bench() as bench:
        done = 0
        for size in sorted({1, *steps(30, max(scale, 1 / 7))}):
            for _ in range((size - done) * DAY // BUCKET_SECONDS):
                bench.now += BUCKET_SECONDS
                bench.feed(runs(range(100)))
            done = size
            curve.add(size, *_stored(bench))
    return curve


CURVES: Final[Mapping[str, Callable[[float], Curve]]] = {
    "tasks": tasks,
    "names": names,
    "workers": workers,
    "failures": failures,
    "days": days,
}

_RULES: Final = (
    ("tasks", "every 100,000 waiting or running tasks", "MB of memory", 1, 100_000),
    ("tasks", "every 100,000 waiting or running tasks", "MB of disk", 2, 100_000),
    ("names", "every 1,000 pairs", "MB of memory", 1, 1_000),
    ("names", "every 1,000 pairs", "MB of each scrape", 3, 1_000),
    ("workers", "every 100 workers", "MB of memory", 1, 100),
    ("days", "every 1,000 pairs", "MB of disk a day", 1, 10),  # the curve was measured with 100
    ("failures", "every task that fails continuously", "MB of disk in 30 days", 1, 30 * DAY / BUCKET_SECONDS),
)
"""Curve, row of docs/sizing.md, unit after the figure, column, and the number of items in the row."""
TOLERANCE: Final = 0.25


def wrong_rules(curves: Mapping[str, Curve]) -> list[str]:
    """The rules of thumb that are off by more than a quarter."""
    text = Path("docs/sizing.md").read_text()
    found = []
    for name, row, unit, column, number in _RULES:
        if name not in curves:
            continue
        match = re.search(rf"^\| {re.escape(row)}.*?([\d.]+) {re.escape(unit)}", text, re.MULTILINE)
        measured = curves[name].slope(column) * number
        if match is None:
            found.append(f"docs/sizing.md has no figure in {unit} for {row!r}; measured: {measured:.3g}")
        elif abs(float(match[1]) - measured) > TOLERANCE * max(measured, 0.0):
            found.append(f"docs/sizing.md says {match[1]} {unit} for {row!r}; measured: {measured:.3g}")
    return found


def written() -> dict[str, Curve]:
    """The curves in docs/benchmarks.md."""
    found = {}
    for name in CURVES:
        lines = [line for line in pages.part(f"growth-{name}").splitlines() if line.startswith("| ")]
        head, *rows = [line.strip("| ").split(" | ") for line in lines if "---" not in line] or [[]]
        if rows:
            numbers = [tuple(float(cell.replace(",", "")) for cell in row) for row in rows]
            found[name] = Curve(name, head, numbers)
    return found


def _stored(bench: Bench) -> tuple[float, float, float]:
    """Size of the store in MB, and the duration of a start and of a prune in milliseconds."""
    size = bench.disk()
    started, pruned = bench.restart(), bench.prune()
    return size / MB, 1000 * started, 1000 * pruned


@contextmanager
def _bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        gc.collect()
        try:
            yield bench
        finally:
            bench.stop()


@contextmanager
def _daemon(settings: dict[str, dict[str, Any]]) -> Iterator[Daemon]:
    with (
        tempfile.TemporaryDirectory() as name,
        RabbitMQ(Path(name, "rabbitmq")) as broker,
        Daemon(Path(name, "daemon"), broker.url(), settings) as daemon,
    ):
        daemon.until_ready()
        yield daemon


def _section(name: str, curve: Curve) -> str:
    rows = [[f"{row[0]:,.0f}", *map(pages.number, row[1:])] for row in curve.rows]
    column = curve.plotted
    picture = pages.plot(
        f"growth-{name}",
        f"{curve.title}: {curve.head[column]}",
        (curve.head[0], curve.head[column]),
        [(row[0], row[column]) for row in curve.rows],
    )
    measured = f"{' '.join(str(CURVES[name].__doc__).split())} Measured {pages.machine()} in {curve.took:.0f} s."
    return "\n\n".join([measured, picture, pages.table(curve.head, rows)])


def measure(name: str, scale: float, *, write: bool) -> Curve:
    """Measure one curve, and write it if requested."""
    print(f"{name}:", flush=True)
    began = time.monotonic()
    curve = CURVES[name](scale)
    curve.took = time.monotonic() - began
    print(f"{name} took {curve.took:.0f} s", flush=True)
    if write:
        pages.replace_part(f"growth-{name}", _section(name, curve))
    return curve


def each_alone(arguments: argparse.Namespace) -> bool:
    """Measure each curve in a separate process, because memory that an earlier one has used would not be counted.

    Returns whether a rule of thumb was wrong or a curve could not be measured.
    """
    command = [sys.executable, __file__, f"--scale={arguments.scale}", *(["--write"] if arguments.write else [])]
    codes = [subprocess.run([*command, "--only", name], check=False).returncode for name in arguments.only]
    return any(codes)


def main() -> None:
    """Measure, print, compare, and write if requested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CURVES, default=list(CURVES))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--write", action="store_true", help="write the parts of docs/benchmarks.md")
    parser.add_argument("--check", action="store_true", help="compare what is written, and measure nothing")
    arguments = parser.parse_args()
    if arguments.check:
        curves = written()
    else:
        if arguments.write:
            pages.require(*(f"growth-{name}" for name in arguments.only))
        if len(arguments.only) > 1:
            sys.exit(each_alone(arguments))
        curves = {name: measure(name, arguments.scale, write=arguments.write) for name in arguments.only}
    wrong = wrong_rules(curves)
    print("\n".join(wrong) or "The rules of docs/sizing.md are within a quarter of these curves.")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
