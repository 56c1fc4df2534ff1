"""Resident memory with each memory limit of the monitor reached, and with all limits reached at once.

    PYTHONPATH=. python bench/limits.py [--hostile]

Each limit is reached in a separate process, with events as a broker delivers them and with regular flushes. With
``--hostile``, names, IDs and texts are as long as allowed, with wide characters.
"""

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from celery_monitor import app
from celery_monitor.adapters.process import resident
from celery_monitor.adapters.prometheus.exposition import Exposition, Format
from celery_monitor.adapters.prometheus.runtime_stats import RuntimeStats
from celery_monitor.core.committed_totals import CommittedTotals
from celery_monitor.core.model import Delivery, Restored
from celery_monitor.core.monitor import Monitor
from celery_monitor.policy import limits_of
from celery_monitor.runtime.memory import MemoryWatch
from celery_monitor.settings import Settings
from tests.fakes import ManualClock

NOW: Final = 1_795_397_300.0
PER_MESSAGE: Final = 20
SETTINGS: Final = Settings()
LIMITS: Final = limits_of(SETTINGS)
WIDE: Final = "\U0001f600"


def event(kind: str, uuid: str, hostile: bool, **fields: object) -> dict[str, Any]:  # noqa: FBT001 - passed on
    """A task event."""
    uuid = uuid.ljust(255, WIDE) if hostile else f"{uuid}-0000-4000-8000-000000000000"
    return {"type": f"task-{kind}", "uuid": uuid, "timestamp": NOW, "hostname": "celery@box", **fields}


def long(name: str, hostile: bool) -> str:  # noqa: FBT001 - passed on
    """A typical name, or one of the maximum length."""
    return name.ljust(1000, WIDE) if hostile else f"shop.orders.tasks.{name}"


def series(hostile: bool) -> Iterator[dict[str, Any]]:  # noqa: FBT001 - one of several
    """Twice as many pairs of name and queue as allowed, each with every counter."""
    for number in range(2 * LIMITS.max_series):
        uuid = f"s{number}"
        name = {"name": long(f"t{number // 10}", hostile), "queue": long(f"q{number % 10}", hostile)}
        yield event("sent", uuid, hostile, **name)
        yield event("received", uuid, hostile, name=name["name"])
        yield event("started", uuid, hostile)
        yield event("succeeded", uuid, hostile, runtime=1.0)


def tasks(hostile: bool) -> Iterator[dict[str, Any]]:  # noqa: FBT001 - one of several
    """More active tasks than are tracked. Hostile tasks have a different name each."""
    for number in range(LIMITS.max_tasks + LIMITS.max_tasks // 10):
        name = f"{number if hostile else number % 50}"
        yield event("received", f"{number:08x}", hostile, name=long(name, hostile))


def failures(hostile: bool) -> Iterator[dict[str, Any]]:  # noqa: FBT001 - one of several
    """Failures of many tasks at many code locations, with long tracebacks: groups, samples, incidents."""
    frame = '  File "/app/shop/orders.py", line 1, in place%d\n    raise ValueError\n'
    filler = (WIDE if hostile else "x") * 15_000
    for number in range(LIMITS.max_error_groups + 5_000):
        uuid = f"f{number}"
        yield event("received", uuid, hostile, name=long(f"f{number % 5000}", hostile))
        text = f"Traceback (most recent call last):\n{filler}\n{frame % number}ValueError: no"
        yield event("failed", uuid, hostile, exception="ValueError('no')", traceback=text)


def workers(hostile: bool) -> Iterator[dict[str, Any]]:  # noqa: FBT001 - one of several
    """More workers than the limit."""
    for number in range(LIMITS.max_workers + 500):
        host = f"{number}@".ljust(255, WIDE) if hostile else f"celery@worker-{number}"
        yield {"type": "worker-heartbeat", "timestamp": NOW, "hostname": host, "active": 3, "processed": number,
               "pid": number, "sw_ident": "py-celery", "sw_ver": "5.4.0", "sw_sys": "Linux"}  # fmt: skip


FILLS: Final[dict[str, Callable[[bool], Iterator[dict[str, Any]]]]] = {
    "series": series,
    "tasks": tasks,
    "failures": failures,
    "workers": workers,
}


class Filled:
    """A monitor with the state that readers see."""

    def __init__(self) -> None:
        self.monitor = Monitor(LIMITS, Restored(), NOW)
        self.monitor.connected(acknowledges=True)
        self.totals = CommittedTotals(self.monitor.snapshot())
        self._ticks = 0
        self._watch = MemoryWatch(SETTINGS.tracking.max_memory, resident)

    def feed(self, events: Iterator[dict[str, Any]]) -> None:
        """Apply all events, with a flush and a step of one second after every few thousand."""
        batch: list[dict[str, Any]] = []
        for count, one in enumerate(events, 1):
            batch.append(one)
            if len(batch) == PER_MESSAGE:
                self._apply(batch)
                batch = []
            if not count % 5000:
                self._flush()
        self._apply(batch)
        self._flush()

    def scrape(self) -> int:
        """Size of the text in bytes."""
        clock, settings = ManualClock(), SETTINGS.metrics
        exposition = Exposition(
            settings, clock, snapshot=lambda: self.monitor.snapshot(self.totals), queues=tuple, runtime=RuntimeStats
        )
        return exposition.render(Format(openmetrics=True, gzip=False)).length

    def _apply(self, batch: list[dict[str, Any]]) -> None:
        self.monitor.receive([Delivery(json.dumps(batch).encode())], NOW + self._ticks)

    def _flush(self) -> None:
        self._ticks += 1
        self.monitor.tick(NOW + self._ticks)
        if self._watch.under_pressure():
            self.monitor.shed_load()
        changes = self.monitor.take(NOW + self._ticks)
        if changes is not None:
            self.totals.commit(changes)


def megabytes(name: str) -> float:
    """Memory of this process: VmRSS is the current value, VmHWM the peak."""
    found = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(found[name].split()[0]) * 1024 / 1e6


def fill(names: list[str], *, hostile: bool) -> None:
    """Fill the limits in this process and print a row of the table."""
    filled = Filled()
    gc.collect()
    before = megabytes("VmRSS")
    for name in names:
        filled.feed(FILLS[name](hostile))
    after = megabytes("VmRSS")
    scraped = filled.scrape()
    used = {one.name: one.used for one in filled.monitor.snapshot().limits if one.used}
    print(
        f"{', '.join(names):36} {after - before:5.0f} MB more, {after:5.0f} MB in all; a scrape of {scraped / 1e6:.0f} "
        f"MB: {megabytes('VmHWM'):.0f} MB at most; {used}",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hostile", action="store_true")
    parser.add_argument("--fill", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill:
        fill(options.fill.split(","), hostile=options.hostile)
        return
    print(f"with {app.__name__} imported: {megabytes('VmRSS'):.0f} MB", flush=True)
    for names in (*FILLS, ",".join(FILLS)):
        arguments = [sys.executable, __file__, f"--fill={names}", *(["--hostile"] if options.hostile else [])]
        subprocess.run(arguments, check=True)


if __name__ == "__main__":
    main()
