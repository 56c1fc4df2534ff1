"""Seconds from publishing a task-failed event to its page at PagerDuty, while a real RabbitMQ is under load.

    PYTHONPATH=. python bench/paging.py [--rate 5000] [--pages 200]

Each page is about the first failure of a different task. The failure is published at a random moment of the flush
interval, and the time ends when the request arrives at a local server that replaces PagerDuty. The load comes from a
separate process; its failures page nobody.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.publish import body, publisher
from tests.e2e.daemon import Daemon
from tests.e2e.paging import Failing, pager
from tests.servers import RabbitMQ
from tests.servers.pagerduty import PagerDutyServer
from tests.servers.waiting import wait_until

TARGET = 1.0
"""Maximum seconds for 99 of 100 pages."""
_SETTLED = 3.0
"""Seconds of load before the first page."""
_PER_SECOND = 5.0
"""Number of pages: few enough that none waits for another one."""


@contextmanager
def load(url: str, rate: float, per_message: int = 3) -> Iterator[None]:
    """Publish events of other tasks until the end of the block."""
    if not rate:
        yield
        return
    arguments = ["--broker", url, "--rate", str(rate), "--tasks", "100000000"]
    arguments += ["--per-message", str(per_message), *(["--even"] if rate <= 1_000 else [])]
    command = [sys.executable, "-m", "bench.publish", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def page(url: str, number: int) -> dict[str, float]:
    """Publish failures. Returns the key of each and its publication time (monotonic)."""
    to = publisher(url, pipelined=1)
    published = {}
    for index in range(number):
        failing = Failing(f"page.task{index:06}", time.time())
        events = body(failing.events())
        published[failing.key] = time.monotonic()
        to.publish(events)
        time.sleep(random.uniform(0.0, 2 / _PER_SECOND))
    to.settle()
    to.close()
    return published


def measured(
    daemon: Daemon, server: PagerDutyServer, url: str, rate: float, pages: int, *, per_message: int
) -> tuple[list[float], float]:
    """The duration of each page, sorted, and the events per second that the daemon read meanwhile."""
    with load(url, rate, per_message):
        time.sleep(_SETTLED)
        began, before = time.monotonic(), events(daemon)
        published = page(url, pages)
        wait_until(lambda: len(server.opened()) == pages, 60, what="all pages")
        read = (events(daemon) - before) / (time.monotonic() - began)
    arrived = {seen.key: seen.at for seen in reversed(server.taken())}
    return sorted(arrived[key] - at for key, at in published.items()), read


def events(daemon: Daemon) -> float:
    """The number of events that the daemon has read."""
    return daemon.metric("monitor_events_total")


def quantile(took: Sequence[float], share: float) -> float:
    """A quantile of sorted values."""
    return took[min(len(took) - 1, int(share * len(took)))]


def run(url: str, directory: Path, rate: float, pages: int, *, per_message: int = 3) -> tuple[list[float], float]:
    """Like ``measured``, with a new daemon on this broker."""
    unlimited = 1_000_000
    settings: dict[str, dict[str, Any]] = {
        "alerts": {
            "storm": {"tasks": unlimited},
            "rules": [{"name": "load", "match": ["load.*"], "page": False}],
        },
        "pagerduty": {"rate_limit": unlimited},
    }
    with PagerDutyServer(rate_limit=unlimited) as server, pager(directory, url, server, settings) as daemon:
        daemon.until_ready()
        return measured(daemon, server, url, rate, pages, per_message=per_message)


def line(took: Sequence[float]) -> str:
    """A line about the sorted durations of pages."""
    p99 = quantile(took, 0.99)
    return (
        f"{len(took)} pages: median {statistics.median(took):.3f} s, "
        f"p99 {p99:.3f} s ({'within' if p99 <= TARGET else 'beyond'} {TARGET:g} s), longest {took[-1]:.3f} s"
    )


def main() -> None:
    """Measure and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=5_000, help="events a second beside the pages")
    parser.add_argument("--pages", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, RabbitMQ(Path(name, "rabbitmq")) as broker:
        took, read = run(broker.new_vhost(), Path(name, "daemon"), arguments.rate, arguments.pages)
    print(f"beside {read:.0f} events/s: {line(took)}")


if __name__ == "__main__":
    main()
