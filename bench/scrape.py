"""Time of a scrape of 500 tasks on 4 queues (84,000 lines) over HTTP, and what it does to the thread that reads events.

    PYTHONPATH=. python bench/scrape.py [--rate 10000] [--scrapes 100] [--pause 0.2]

The real monitor, store, exposition and web server run in this process; a scraper with Prometheus's headers runs in
another. Events are fed as the pump feeds them, in slices and under the lock of the snapshot, and each half second what
has changed (here: all 2,000 series) is committed to a file. A message carries three events and costs, beside what the
monitor does with it, the 5 µs that reading it needs (bench/broker.py). The garbage collector is set as
`celery-monitor run` sets it. All threads share the interpreter's lock: what is measured is how late a slice was done
because of scrapes and commits, and how long each of these took.
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
from collections.abc import Callable, Sequence
from itertools import count, cycle
from typing import Any

from celery_monitor.adapters.clock import SystemClock
from celery_monitor.adapters.prometheus.exposition import Exposition, Format
from celery_monitor.adapters.prometheus.figures import RuntimeFigures
from celery_monitor.adapters.store import open_store
from celery_monitor.adapters.web import Site, WebServer
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.cli.run import COLLECT
from celery_monitor.core.kept import Kept
from celery_monitor.core.model import Delivery, Restored, Snapshot
from celery_monitor.core.monitor import Limits, Monitor
from celery_monitor.ports import Health
from celery_monitor.runtime.committer import GLANCE, Committer, Flush
from celery_monitor.runtime.pump import LONGEST_YIELD
from celery_monitor.settings.metrics import MetricsSettings
from celery_monitor.settings.web import WebSettings

TASKS, QUEUES = 500, 4
EVENTS_A_MESSAGE = 3
READ_SECONDS = 5e-6
UUID = "the-uuid-of-the-task-goes-in-here"
SLICE = 10
"""Messages that are applied under one hold of the lock; they are due together."""
FLUSH_SECONDS = 0.5
HEADERS = {
    "accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
    "accept-encoding": "gzip",
}


class Feed:
    """Feeds a monitor with ``rate`` events a second, as the pump does."""

    def __init__(self, rate: float, committer: Committer) -> None:
        self._committer = committer
        self.monitor = Monitor(Limits(), Restored(), time.time())
        self._kept = Kept(self.monitor.snapshot())
        self.lock = threading.Lock()
        self.latencies: list[float] = []
        """Seconds from when each slice was due, or the one before it was done, until it was applied. What the thread
        does for a flush is in it.
        """
        self.commits: list[float] = []
        """Seconds of each, from the flush until what it brought can be acknowledged."""
        self.scraped: Callable[[], bool] = lambda: False
        self._flushed_at = 0.0
        self._period = SLICE * EVENTS_A_MESSAGE / rate
        self._bodies = cycle(bodies())
        self._tasks = count()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def fill(self) -> None:
        """Bring all series into being."""
        for _ in range(TASKS * QUEUES):
            self.monitor.receive([self._message()], time.time())
        self._flush()
        while self._committer.waiting:
            self._settle(GLANCE)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join()

    def snapshot(self) -> Snapshot:
        """As the composition root takes it."""
        with self.lock:
            return self.monitor.snapshot(self._kept)

    def _flush(self) -> None:
        """As the pump does."""
        self._flushed_at = time.perf_counter()
        with self.lock:
            changes = self.monitor.take(time.time(), force=True)
        if changes is not None:
            self._committer.add(Flush(changes, 0, 0))
            self._settle()

    def _settle(self, patience: float = 0.0) -> None:
        for flush in self._committer.turn(patience):
            with self.lock:
                self._kept.commit(flush.changes)
            self.commits.append(time.perf_counter() - self._flushed_at)

    def _message(self) -> Delivery:
        """The next task's, with an id of its own."""
        return Delivery(next(self._bodies).replace(UUID.encode(), b"%032x" % next(self._tasks)))

    def _run(self) -> None:
        due = free = flush = time.perf_counter()
        while not self._stop.is_set():
            wait = due - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            deliveries = [self._message() for _ in range(SLICE)]
            for _ in deliveries:
                spin(READ_SECONDS)
            with self.lock:
                self.monitor.receive(deliveries, time.time())
            now = time.perf_counter()
            self.latencies.append(now - max(due, free))
            free = now
            due += self._period
            if self._committer.waiting:
                self._settle()
            elif now >= flush + (LONGEST_YIELD if self.scraped() else 0):
                flush = now + FLUSH_SECONDS
                self._flush()


def spin(seconds: float) -> None:
    """Use the processor, with the interpreter's lock."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def bodies() -> list[bytes]:
    """One task's life in each, over all tasks and queues; every fiftieth fails."""
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
    """The scraper: seconds of each scrape on a connection that is kept, as Prometheus keeps it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    took = []
    for _ in range(number):
        began = time.perf_counter()
        connection.request("GET", "/metrics", headers=HEADERS)
        connection.getresponse().read()
        took.append(time.perf_counter() - began)
        time.sleep(pause)
    return took


def serve(feed: Feed) -> tuple[Exposition, WebServer, threading.Event, threading.Thread]:
    """The web server over the feed's monitor."""
    metrics = Exposition(MetricsSettings(), SystemClock(), snapshot=feed.snapshot, queues=tuple, runtime=RuntimeFigures)
    nothing: Any = None
    sources = Sources(
        fleet="shop",
        clock=SystemClock(),
        metrics=metrics,
        livez=lambda: Health({}),
        readyz=lambda: Health({}),
        snapshot=feed.snapshot,
        queues=tuple,
        reader=nothing,
        outbox=nothing,
        report=nothing,
        report_part=nothing,
        sends={},
        zone=nothing,
    )
    server = WebServer(Site(WebSettings(), sources), host="127.0.0.1", port=0)
    server.start()
    stop = threading.Event()
    thread = threading.Thread(target=server.serve, args=(stop, lambda: None))
    thread.start()
    return metrics, server, stop, thread


def told(seconds: Sequence[float]) -> str:
    """Median, 99th percentile and maximum, in ms."""
    ranked = sorted(seconds)
    at = (len(ranked) // 2, min(int(len(ranked) * 0.99), len(ranked) - 1), -1)
    return "p50 {:6.1f} ms   p99 {:6.1f} ms   max {:6.1f} ms".format(*(ranked[index] * 1000 for index in at))


def main() -> None:
    """Print sizes, the feed without scrapes, the feed with scrapes, and the scrapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=10_000, help="events a second")
    parser.add_argument("--scrapes", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.2, help="seconds between two scrapes")
    parser.add_argument("--scraper", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.scraper is not None:
        json.dump(scrape(options.scraper, options.scrapes, options.pause), sys.stdout)
        return
    with tempfile.TemporaryDirectory() as directory:
        scraped: list[Exposition] = []

        def give_way() -> None:
            until = time.perf_counter() + LONGEST_YIELD
            while scraped and scraped[0].rendering and time.perf_counter() < until:
                time.sleep(0.001)

        url = f"sqlite:///{directory}/bench.db"
        store = open_store(url, retention=86_400, fingerprints_kept=4000, give_way=give_way)
        store.start()
        committer = Committer(store, SystemClock())
        thread = threading.Thread(target=committer.run, args=(threading.Event(), lambda: None))
        thread.start()
        measure(options, Feed(options.rate, committer), scraped)
        committer.close()
        thread.join()
        store.stop()


def measure(options: argparse.Namespace, feed: Feed, scraped: list[Exposition]) -> None:
    """Feed, scrape, print."""
    gc.set_threshold(*COLLECT)
    feed.fill()
    metrics, server, stop, thread = serve(feed)
    feed.scraped = lambda: metrics.rendering
    scraped.append(metrics)
    text = b"".join(metrics.render(Format(openmetrics=True, gzip=False)).body)
    packed = metrics.render(Format(openmetrics=True, gzip=True)).body
    print(f"{text.count(10)} lines, {len(text) / 1e6:.1f} MB, {sum(map(len, packed)) / 1e6:.2f} MB compressed")
    print(f"{options.rate:.0f} events/s, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    gc.collect()
    gc.freeze()
    feed.start()
    time.sleep(5)
    quiet, feed.latencies = feed.latencies, []
    quiet_commits, feed.commits = feed.commits, []
    arguments = [f"--scraper={server.port}", f"--scrapes={options.scrapes}", f"--pause={options.pause}"]
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, check=True)
    busy = feed.latencies
    feed.stop()
    stop.set()
    thread.join()
    server.stop()
    print(f"feed without scrapes   {told(quiet)}")
    print(f"feed with scrapes      {told(busy)}")
    print(f"commits without        {told(quiet_commits)}")
    print(f"commits with           {told(feed.commits)}")
    print(f"scrapes                {told(json.loads(done.stdout))}")


if __name__ == "__main__":
    main()
