"""Resident memory of the daemon with many active tasks, received from a real RabbitMQ.

    PYTHONPATH=. python bench/memory.py [--tasks 1000000] [--turns 1000000]

First, the given number of tasks is received and none starts. Then the number stays constant: in each turn the oldest
task starts and succeeds and another one is received, which is three events. The benchmark reads from the store how many
events are committed, so that waiting takes no CPU time and no memory of the daemon.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from bench.committed import CommittedEvents
from bench.publish import AmqpPublisher, body
from tests.e2e.daemon import Daemon
from tests.servers import RabbitMQ

PER_MESSAGE = 20
AHEAD = 60_000
"""Maximum number of events in the queue, below the size at which it drops events."""
NAMES = 50


def event(kind: str, task: int) -> dict[str, Any]:
    """A task event as workers send it."""
    found: dict[str, Any] = {
        "hostname": f"celery@box{task % 4}",
        "utcoffset": 0,
        "pid": 4000,
        "clock": task,
        "uuid": str(UUID(int=(task * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 2**128)),
        "timestamp": time.time(),
        "type": f"task-{kind}",
    }
    if kind == "received":
        found |= {"name": f"shop.orders.task{task % NAMES}", "args": f"({task},)", "kwargs": "{}", "retries": 0}
    elif kind == "succeeded":
        found |= {"result": "None", "runtime": 0.1}
    return found


def waiting(tasks: int) -> Iterator[dict[str, Any]]:
    """The events of this many tasks that are received."""
    return (event("received", task) for task in range(tasks))


def turning(tasks: int, turns: int) -> Iterator[dict[str, Any]]:
    """The events of the turns: the oldest task succeeds and a new one is received."""
    for task in range(turns):
        yield event("started", task)
        yield event("succeeded", task)
        yield event("received", tasks + task)


def feed(daemon: Daemon, events: Iterator[dict[str, Any]], before: int) -> int:
    """Publish, never far ahead of the daemon. Returns its count of task events, including those ``before``."""
    sent = checked = before
    batch: list[dict[str, Any]] = []
    with AmqpPublisher(daemon.settings["broker"]["url"]) as to, committed(daemon) as done:
        for each in events:
            batch.append(each)
            sent += 1
            if len(batch) == PER_MESSAGE:
                to.publish(body(batch))
                batch = []
            if sent - checked >= AHEAD // 2:
                checked = sent
                done.wait_for(checked - AHEAD // 2)
        if batch:
            to.publish(body(batch))
        to.settle()
        done.wait_for(sent)
    return sent


def committed(daemon: Daemon) -> CommittedEvents:
    """The committed task events of a daemon."""
    return CommittedEvents(daemon.settings["store"]["url"])


def measure(daemon: Daemon, tasks: int, turns: int) -> tuple[int, int]:
    """Resident memory in bytes with all tasks active, and after the turns. Prints both."""
    daemon.until_ready()
    print(f"at the start: {daemon.resident_bytes() / 1e6:.0f} MB")
    sizes = []
    sent = 0
    for events in (waiting(tasks), turning(tasks, max(turns, 1))):
        began, cpu, before = time.monotonic(), daemon.cpu_seconds(), sent
        sent = feed(daemon, events, before)
        took, used, number = time.monotonic() - began, daemon.cpu_seconds() - cpu, sent - before
        sizes.append(daemon.resident_bytes())
        print(
            f"{number} events later: {sizes[-1] / 1e6:.0f} MB resident, {daemon.metric('monitor_tracked_tasks'):.0f} "
            f"tasks under way ({number / took:.0f} events/s, {used / number * 1e6:.1f} µs of processor time an event)"
        )
    return sizes[0], sizes[1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        RabbitMQ(Path(name, "rabbitmq")) as broker,
        Daemon(Path(name, "daemon"), broker.url(), {"tracking": {"max_tasks": arguments.tasks}}) as daemon,
    ):
        measure(daemon, arguments.tasks, arguments.turns)


if __name__ == "__main__":
    main()
