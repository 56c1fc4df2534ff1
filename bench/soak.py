"""Ten million events through one daemon: memory, store and lag must stay flat.

    PYTHONPATH=. python bench/soak.py [--events 10000000] [--broker RabbitMQ|Redis] [--rate 8000] [--write]

Failures, retries and revoked tasks are part of the load (bench/publish.py). After each twentieth of the events, a line
shows the resident memory, the size of the store and the lag of the newest event. At the end every count must be exact,
and the mean of the last quarter must not be more than a tenth above that of the third quarter; otherwise the exit
status is 1. ``--write`` writes the table and the plots to docs/benchmarks.md; after SIGINT or SIGTERM with the
measurements until then.
"""

import argparse
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Final

from bench import pages
from bench.publish import Load, body, paced, publisher
from tests.e2e.daemon import Daemon
from tests.servers import RabbitMQ, Redis

MB: Final = 1e6
LINES: Final = 20
EVENTS_PER_TASK: Final = 3.56
TOLERANCE: Final = 0.1
SLACK: Final = {"memory": 5.0, "store": 2.0, "lag": 0.25}
"""Differences that never count as growth: MB, MB, seconds."""


@dataclass(frozen=True)
class Sample:
    """A measurement of the daemon during the load."""

    events: int
    """Events published so far."""
    seconds: float
    memory: float
    store: float
    lag: float
    cpu: float
    """Microseconds of CPU time per event since the previous sample."""


class Soak:
    """A daemon and the load that it reads."""

    def __init__(self, daemon: Daemon, load: Load, rate: float) -> None:
        """Does not publish anything yet."""
        self._daemon, self._load, self._rate = daemon, load, rate
        self._sent = 0
        self._failed: BaseException | None = None
        self._began = time.monotonic()
        self._before = 0, daemon.cpu_seconds()

    def run(self) -> Iterator[Sample]:
        """Publish all events, and take a sample at each step."""
        publishing = threading.Thread(target=self._publish, daemon=True)
        publishing.start()
        total = self._load.events
        for step in range(1, LINES + 1):
            while publishing.is_alive() and self._sent < total * step // LINES:
                time.sleep(0.2)
            if self._failed is not None:
                raise self._failed
            yield self._sample(total)

    def _publish(self) -> None:
        to = publisher(self._daemon.settings["broker"]["url"])
        try:
            for events in paced(self._load.messages(), self._rate):
                to.publish(body(events))
                self._sent += len(events)
            to.settle()
        except BaseException as exc:  # noqa: BLE001 - raised again by run
            self._failed = exc
        finally:
            to.close()

    def _sample(self, total: int) -> Sample:
        daemon, sent, cpu = self._daemon, self._sent, self._daemon.cpu_seconds()
        sent_before, cpu_before = self._before
        self._before = sent, cpu
        store = sum(path.stat().st_size for path in daemon.store.parent.glob(f"{daemon.store.name}*"))
        found = Sample(
            sent,
            time.monotonic() - self._began,
            daemon.resident_bytes() / MB,
            store / MB,
            daemon.metric("monitor_event_lag_seconds"),
            (cpu - cpu_before) / max(sent - sent_before, 1) * 1e6,
        )
        print(
            f"{found.events:>12,} events in {found.seconds:6.0f} s: {found.memory:4.0f} MB resident, "
            f"store {found.store:5.1f} MB, lag {found.lag:5.2f} s, {found.cpu:4.1f} µs an event, "
            f"{found.seconds / sent * (total - sent) / 60:.0f} min left",
            flush=True,
        )
        return found


def growing(samples: Sequence[Sample]) -> list[str]:
    """The values that grow, comparing the mean of the last quarter with that of the third quarter."""
    quarter = len(samples) // 4
    found = []
    for name, slack in SLACK.items():
        before, after = (
            statistics.mean(getattr(sample, name) for sample in part)
            for part in (samples[-2 * quarter : -quarter], samples[-quarter:])
        )
        if after - before > max(TOLERANCE * before, slack):
            found.append(f"{name} grew from {before:.1f} to {after:.1f}")
    return found


def section(samples: Sequence[Sample], broker: str, rate: float, verdict: str) -> str:
    """The section of the page."""
    head = ("Events", "Seconds", "Memory (MB)", "Store (MB)", "Lag (s)", "CPU per event (µs)")
    every = max(1, len(samples) // 5)
    rows = [
        [f"{s.events:,}", *map(pages.number, astuple(replace(s, lag=round(s.lag, 2)))[1:])]
        for s in samples[every - 1 :: every]
    ]
    pictures = [
        pages.plot(f"soak-{name}", f"Soak: {label}", ("events", label), [(s.events, getattr(s, name)) for s in samples])
        for name, label in (("memory", "memory (MB)"), ("store", "store (MB)"))
    ]
    said = (
        f"{broker}, at most {rate:,.0f} events/s, 3 events per message. Measured {pages.machine()} by `bench/soak.py`."
    )
    return "\n\n".join([said, *pictures, pages.table(head, rows), verdict, RULE])


RULE: Final = (
    "*Flat* means that the mean of the last quarter of the run exceeds the mean of the quarter before by at most "
    f"{100 * TOLERANCE:.0f} %, or by at most {SLACK['memory']:.0f} MB of memory, {SLACK['store']:.0f} MB of store and "
    f"{SLACK['lag']:g} s of lag."
)


def measure(arguments: argparse.Namespace, samples: list[Sample]) -> list[str]:
    """Add the samples and return what is wrong with them. Raises TimeoutError if a count is not exact."""
    load = Load(int(arguments.events / EVENTS_PER_TASK), prefix="soak")
    with ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if arguments.broker == "RabbitMQ":
            url = stack.enter_context(RabbitMQ(top / "broker")).url()
        else:
            url = stack.enter_context(Redis(top / "broker")).url()
        daemon = stack.enter_context(Daemon(top / "daemon", url))
        daemon.until_ready()
        for sample in Soak(daemon, load, arguments.rate).run():
            samples.append(sample)  # noqa: PERF402 - so that those until an interruption are there
        daemon.until_counts(load.counts())
    return growing(samples)


def main() -> None:
    """Measure, check the samples, and write if requested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--broker", choices=["RabbitMQ", "Redis"], default="RabbitMQ")
    parser.add_argument("--rate", type=float, default=8_000.0)
    parser.add_argument("--write", action="store_true", help="write the part of docs/benchmarks.md")
    arguments = parser.parse_args()
    if arguments.write:
        pages.require("soak")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    samples: list[Sample] = []
    try:
        wrong = measure(arguments, samples)
        verdict = f"Every count was exact. {'; '.join(wrong) or 'Memory, store and lag stayed flat'}."
    except KeyboardInterrupt:
        wrong = ["interrupted"]
        verdict = f"Interrupted before the end of {arguments.events:,} events: the counts were not compared."
    except (AssertionError, TimeoutError) as exc:
        wrong = [f"Not every count was exact: {exc}"]
        verdict = wrong[0]
    print(verdict)
    if arguments.write and samples:
        pages.replace_part("soak", section(samples, arguments.broker, arguments.rate, verdict))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
