"""Duration of a scrape of 500 tasks on 4 queues (84,000 lines) over HTTP, and its effect on the thread that reads.

    PYTHONPATH=. python bench/scrape.py [--rate 10000] [--scrapes 100] [--pause 0.2]

The real pump, monitor, committer, store, exposition and web server run in this process, connected as the composition
root connects them; a scraper with Prometheus's headers runs in another process. A source that generates events replaces
the broker: each message has three events and takes the 5 µs that reading a message needs (bench/broker.py). Every half
second, all changed series (here all 2,000) are committed to a file. The garbage collector is configured as in
`celery-monitor run`. All threads share the interpreter's lock, so the benchmark measures the delay of events caused by
flushes, commits and scrapes, and the duration of commits and scrapes.

The scraper pauses for random times. With a constant pause close to the time between two reads of the pump, scrapes and
reads fall into step, and most commits meet a scrape: three in four instead of one in three.
"""

import argparse
import gc
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path
from typing import Any

from celery_monitor.adapters import log
from celery_monitor.adapters.clock import SystemClock
from celery_monitor.adapters.prometheus.exposition import Exposition, Format
from celery_monitor.adapters.prometheus.runtime_stats import RuntimeStats
from celery_monitor.adapters.store import open_store
from celery_monitor.adapters.store.crash_marks import ApplyingFile
from celery_monitor.adapters.web import Site, WebServer
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.cli.run import COLLECT
from celery_monitor.core.committed_totals import CommittedTotals
from celery_monitor.core.model import Changes, Delivery, Restored, Snapshot
from celery_monitor.core.monitor import Limits, Monitor
from celery_monitor.ports import Batch, Clock, HealthReport
from celery_monitor.runtime.committer import Committer
from celery_monitor.runtime.flusher import Flusher
from celery_monitor.runtime.priority import ScrapePriority
from celery_monitor.runtime.pump import Pump
from celery_monitor.runtime.stream import Stream
from celery_monitor.settings.metrics import MetricsSettings
from celery_monitor.settings.web import WebSettings

TASKS, QUEUES = 500, 4
EVENTS_A_MESSAGE = 3
READ_SECONDS = 5e-6
UUID = "the-uuid-of-the-task-goes-in-here"
TOGETHER = 10
"""Messages that arrive at the same time."""
PREFETCH = 4000
FLUSH_SECONDS = 0.5
HEADERS = {
    "accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
    "accept-encoding": "gzip",
}


class Feed:
    """An EventSource without a broker: first one message for each series, then ``rate`` events per second."""

    standby = None
    acknowledges = True
    queue_created = False

    def __init__(self, rate: float) -> None:
        self.pauses: list[float] = []
        """Seconds from when a batch was there, or the one before it was done, until the pump has done it and comes back
        for more. What the pump does for a flush is in it.
        """
        self._period = TOGETHER * EVENTS_A_MESSAGE / rate
        self._bodies = cycle(bodies())
        self._tasks = count()
        self._tag = 0
        self._due = self._since = self._done = 0.0

    def connect(self) -> None:
        """Start the stream."""
        self._done = time.perf_counter()
        self._due = self._done - self._period * TASKS * QUEUES / TOGETHER

    def poll(self, timeout: float) -> Batch | None:
        """Wait for the next messages and return those that have arrived."""
        now = time.perf_counter()
        if self._since:
            self.pauses.append(now - max(self._since, self._done))
            self._done, self._since = now, 0.0
        if self._due > now:
            time.sleep(min(self._due - now, timeout))
            now = time.perf_counter()
        if self._due > now:
            return None
        self._since = self._due
        groups = min(int((now - self._due) / self._period) + 1, PREFETCH // 2 // TOGETHER)
        self._due += groups * self._period
        deliveries = [self._message() for _ in range(groups * TOGETHER)]
        self._tag += len(deliveries)
        return Batch(deliveries, self._tag)

    def ack(self, tag: int) -> None:
        """Nothing has to be done."""

    def abandon(self) -> None:
        """Nothing has to be done."""

    close = abandon

    def _message(self) -> Delivery:
        """The message of the next task, with a new ID."""
        spin(READ_SECONDS)
        return Delivery(next(self._bodies).replace(UUID.encode(), b"%032x" % next(self._tasks)))


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit: ``seconds`` in the thread that commits, and whether a scrape was rendered at the same time."""

    seconds: float
    beside_scrape: bool


class Recorder(ScrapePriority):
    """The real priority, which also records the commits."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.commits: list[Commit] = []
        self._begun_scrapes = self._ended_scrapes = 0
        self._ended_before = 0
        self._began = 0.0

    @contextmanager
    def scrape(self) -> Iterator[None]:
        """A scrape is in progress."""
        with super().scrape():
            self._begun_scrapes += 1
            yield
            self._ended_scrapes += 1

    def begin_commit(self) -> None:
        """A commit begins."""
        self._began, self._ended_before = time.perf_counter(), self._ended_scrapes
        super().begin_commit()

    def end_commit(self, changes: Changes) -> None:
        """The commit was successful."""
        del changes
        beside_scrape = self._begun_scrapes > self._ended_before
        self.commits.append(Commit(time.perf_counter() - self._began, beside_scrape))


class Daemon:
    """The parts of the daemon that a scrape affects, connected as the composition root connects them."""

    def __init__(self, rate: float, url: str) -> None:
        self.feed = Feed(rate)
        clock, self._lock = SystemClock(), threading.Lock()
        self._monitor = Monitor(Limits(), Restored(), time.time())
        self._totals = CommittedTotals(self._monitor.snapshot())
        priority = self._recorder = Recorder(clock)
        self.metrics = Exposition(
            MetricsSettings(),
            clock,
            snapshot=self.snapshot,
            queues=tuple,
            runtime=RuntimeStats,
            rendering=priority.scrape,
        )
        self._store = open_store(
            url, retention=86_400, fingerprint_window=PREFETCH, yield_point=priority.yield_to_scrape
        )
        self._store.start()
        self._committer = Committer(self._store, clock, priority, stored=priority.end_commit)
        shared = self._monitor, self._lock, clock
        stream = Stream(self.feed, *shared, prober=None, prefetch=PREFETCH)
        flusher = Flusher(
            stream,
            self._committer,
            *shared,
            priority=priority,
            flush_interval=FLUSH_SECONDS,
            prefetch=PREFETCH,
            committed=self._committed,
        )
        pump = Pump(stream, flusher, *shared, marks=ApplyingFile(), prefetch=PREFETCH)
        self._stop = threading.Event()
        self.server = WebServer(Site(WebSettings(), self._sources()), host="127.0.0.1", port=0)
        self.server.start()
        self._threads = [
            threading.Thread(target=run, args=(self._stop, lambda: None))
            for run in (self._committer.run, pump.run, self.server.serve)
        ]

    def start(self) -> None:
        """Start, and wait until all series exist."""
        for thread in self._threads:
            thread.start()
        while len(self.snapshot().series) < TASKS * QUEUES:
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop all threads."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.server.stop()
        self._store.stop()

    def measured(self) -> tuple[list[float], list[Commit]]:
        """Pauses of the pump and the commits since the last call."""
        pauses, self.feed.pauses = self.feed.pauses, []
        commits, self._recorder.commits = self._recorder.commits, []
        return pauses, commits

    def snapshot(self) -> Snapshot:
        """The snapshot, as in the composition root."""
        with self._lock:
            return self._monitor.snapshot(self._totals)

    def _committed(self, changes: Changes) -> None:
        with self._lock:
            self._totals.commit(changes)

    def _sources(self) -> Sources:
        nothing: Any = None
        return Sources(
            fleet="shop",
            clock=SystemClock(),
            metrics=self.metrics,
            livez=lambda: HealthReport({}),
            readyz=lambda: HealthReport({}),
            snapshot=self.snapshot,
            queues=tuple,
            tasks=nothing,
            reader=self._store.reader,
            outbox=self._store.outbox,
            silences=nothing,
            report=nothing,
            report_part=nothing,
            channels=[],
            retention=0.0,
            zone=nothing,
        )


def spin(seconds: float) -> None:
    """Use the CPU while holding the interpreter's lock."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def bodies() -> list[bytes]:
    """Message bodies with all events of one task each, over all tasks and queues. Every fiftieth task fails."""
    source = random.Random(1)
    found = []
    for number in range(TASKS * QUEUES):
        name, queue = f"shop.module{number % 20}.task_number_{number // QUEUES}", f"queue-{number % QUEUES}"
        told: dict[str, Any] = {"uuid": UUID, "hostname": "celery@box", "timestamp": time.time(), "clock": 1, "pid": 1}
        end: dict[str, Any] = {"type": "task-succeeded", "result": "None", "runtime": source.random()}
        if number % 50 == 0:
            end = {"type": "task-failed", "exception": "ValueError('no')", "traceback": "ValueError: no"}
        events = [
            {"type": "task-sent", "name": name, "queue": queue, "args": "()", "kwargs": "{}", **told},
            {"type": "task-started", **told},
            {**end, **told},
        ]
        found.append(json.dumps(events).encode())
    source.shuffle(found)
    return found


def scrape(port: int, number: int, pause: float) -> list[float]:
    """The scraper: seconds of each scrape on a persistent connection, like that of Prometheus.

    Pauses for ``pause`` seconds on average.
    """
    chance = random.Random(1)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    took = []
    for _ in range(number):
        began = time.perf_counter()
        connection.request("GET", "/metrics", headers=HEADERS)
        connection.getresponse().read()
        took.append(time.perf_counter() - began)
        time.sleep(pause * chance.uniform(0.5, 1.5))
    return took


def percentiles(seconds: Sequence[float]) -> str:
    """Median, 99th percentile and maximum, in ms."""
    if not seconds:
        return "none"
    ranked = sorted(seconds)
    at = (len(ranked) // 2, min(int(len(ranked) * 0.99), len(ranked) - 1), -1)
    return "p50 {:6.1f} ms   p99 {:6.1f} ms   max {:6.1f} ms".format(*(ranked[index] * 1000 for index in at))


def main() -> None:
    """Print the sizes, the delays without and with scrapes, and the durations of the scrapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=10_000, help="events a second")
    parser.add_argument("--scrapes", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.2, help="seconds between two scrapes on average")
    parser.add_argument("--scraper", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.scraper is not None:
        json.dump(scrape(options.scraper, options.scrapes, options.pause), sys.stdout)
        return
    gc.set_threshold(*COLLECT)
    with tempfile.TemporaryDirectory() as directory, Path(directory, "log").open("w", encoding="utf-8") as file:
        log.configure("info", "json", tuple, to=file)
        daemon = Daemon(options.rate, f"sqlite:///{directory}/bench.db")
        daemon.start()
        measure(daemon, options)
        daemon.stop()


def measure(daemon: Daemon, options: argparse.Namespace) -> None:
    """Feed events, scrape, and print the results."""
    text = b"".join(daemon.metrics.render(Format(openmetrics=True, gzip=False)).body)
    packed = daemon.metrics.render(Format(openmetrics=True, gzip=True)).body
    print(f"{text.count(10)} lines, {len(text) / 1e6:.1f} MB, {sum(map(len, packed)) / 1e6:.2f} MB compressed")
    print(f"{options.rate:.0f} events/s, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    gc.collect()
    gc.freeze()
    time.sleep(1)  # until the pump has finished its current work
    daemon.measured()
    time.sleep(10)
    pauses, commits = daemon.measured()
    arguments = [f"--scraper={daemon.server.port}", f"--scrapes={options.scrapes}", f"--pause={options.pause}"]
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, check=True)
    pauses_with, commits_with = daemon.measured()
    print(f"pump without scrapes   {percentiles(pauses)}")
    print(f"pump with scrapes      {percentiles(pauses_with)}")
    print(f"commits without        {percentiles([each.seconds for each in commits])}")
    print(f"commits with           {percentiles([each.seconds for each in commits_with])}")
    beside = [each.seconds for each in commits_with if each.beside_scrape]
    print(f"  beside a scrape      {percentiles(beside)}   {len(beside)} of {len(commits_with)}")
    print(f"  beside none          {percentiles([each.seconds for each in commits_with if not each.beside_scrape])}")
    print(f"scrapes                {percentiles(json.loads(done.stdout))}")


if __name__ == "__main__":
    main()
