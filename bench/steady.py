"""CPU time at typical rates and without load, on RabbitMQ and on Redis.

    PYTHONPATH=. python bench/steady.py [--rates 0 100 1000] [--seconds 30] [--per-message 1]

The daemon uses its default settings, except for the broker's address and the store. The publisher is a separate
process. With ``--exporter``, celery-exporter from a separate environment reads the same stream at the same time, so
that the figures of both are comparable even on a busy machine.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.daemon import Daemon
from tests.e2e.peer import CeleryExporter
from tests.servers import RabbitMQ, Redis

PREPARED = 22.0
"""Seconds from the start until the daemon has prepared its newest reports and 40 days of earlier ones, once."""
WARM_UP = 5.0
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextlib.contextmanager
def exporter(directory: Path, url: str, *, wanted: bool) -> Iterator[int | None]:
    """The process ID of a celery-exporter on the broker; None if none is wanted."""
    if not wanted:
        yield None
        return
    with CeleryExporter(directory, url) as peer:
        yield peer.pid


@contextlib.contextmanager
def load(url: str, rate: int, seconds: float, per_message: int) -> Iterator[None]:
    """Publish a steady stream for slightly longer than ``seconds``; nothing for a rate of 0."""
    if not rate:
        yield
        return
    tasks = int(rate * (seconds + 3 * WARM_UP) / 3.5)
    command = [sys.executable, "bench/publish.py", "--broker", url, "--tasks", str(tasks), "--rate", str(rate)]
    command += ["--per-message", str(per_message), "--prefix", f"load{rate}", "--even"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def measure(directory: Path, url: str, rate: int, arguments: argparse.Namespace) -> str:
    """Measure and print one row of the table."""
    settings = {"broker": {"probe_interval": "5s"}, "metrics": {"poll_interval": "15s"}}
    with (
        Daemon(directory, url, settings) as daemon,
        exporter(directory / "exporter", url, wanted=arguments.exporter) as peer,
    ):
        daemon.until_ready()
        time.sleep(PREPARED)
        with load(url, rate, arguments.seconds, arguments.per_message):
            time.sleep(WARM_UP)
            events, began = daemon_events(daemon), time.monotonic()
            used, theirs = daemon.cpu_seconds(), cpu_seconds(peer) if peer else 0.0
            time.sleep(arguments.seconds)
            took = time.monotonic() - began
            used = daemon.cpu_seconds() - used
            theirs = cpu_seconds(peer) - theirs if peer else 0.0
            events = daemon_events(daemon) - events
    line = f"{rate:>6} events/s wanted, {events / took:>6.0f} read: {100 * used / took:5.2f} % of a core"
    if events:
        line += f", {used / events * 1e6:5.0f} µs an event"
    if peer:
        line += f"; celery-exporter {100 * theirs / took:5.2f} %"
        if used:
            line += f" ({theirs / used:.1f} times as much)"
    return line


def daemon_events(daemon: Daemon) -> int:
    """The number of counted task events."""
    return int(
        sum(v for labels, v in daemon.metrics().get("celery_monitor_events_total", ()) if "task-" in labels["type"])
    )


def main() -> None:
    """Measure each rate on each broker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=int, nargs="+", default=[0, 100, 1000])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--per-message", type=int, default=1)
    parser.add_argument("--exporter", action="store_true", help="celery-exporter on the same stream")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        with RabbitMQ(top / "rabbitmq") as rabbitmq, Redis(top / "redis") as redis:
            for broker, url in (("RabbitMQ", rabbitmq.new_vhost()), ("Redis", redis.url())):
                for rate in arguments.rates:
                    line = measure(top / f"{broker}-{rate}", url, rate, arguments)
                    print(f"{broker:<9}{line}", flush=True)


if __name__ == "__main__":
    main()
