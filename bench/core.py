"""Cost of decode + track + aggregate + decide per event, in this process, on the recorded mix. No broker, no store.

    python bench/core.py [--events 300000]

Each round is a copy of the recordings with new task IDs, prepared outside of the measured time.
"""

import argparse
import json
import time
from pathlib import Path
from uuid import uuid4

from celery_monitor.core.model import Delivery, Restored
from celery_monitor.core.monitor import Limits, Monitor

DATA = Path(__file__).parent.parent / "tests" / "data"
BATCH = 500


def recorded() -> list[str]:
    """The message bodies of both recordings."""
    lines = [line for path in sorted(DATA.glob("events-*.jsonl")) for line in path.read_text().splitlines()]
    return [json.loads(line)["body"] for line in lines]


def rounds(bodies: list[str], events: int) -> tuple[list[Delivery], int]:
    """Enough copies of the recordings, each with different uuids."""
    uuids = sorted({str(event["uuid"]) for body in bodies for event in _events(body) if "uuid" in event})
    total, deliveries = 0, []
    in_one = sum(len(_events(body)) for body in bodies)
    joined = "\x00".join(bodies)
    while total < events:
        text = joined
        for uuid in uuids:
            text = text.replace(uuid, str(uuid4()))
        deliveries += [Delivery(body.encode()) for body in text.split("\x00")]
        total += in_one
    return deliveries, total


def _events(body: str) -> list[dict[str, object]]:
    found = json.loads(body)
    return found if isinstance(found, list) else [found]


def main() -> None:
    """Print the CPU time per event in µs: the best and the median of five runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    arguments = parser.parse_args()
    deliveries, total = rounds(recorded(), arguments.events)
    now = 1_795_397_300.0
    for fingerprints in (False, True):
        costs = []
        for _ in range(5):
            monitor = Monitor(Limits(), Restored(), now)
            monitor.connected(acknowledges=fingerprints)
            began = time.process_time()
            for start in range(0, len(deliveries), BATCH):
                monitor.receive(deliveries[start : start + BATCH], now)
            costs.append((time.process_time() - began) / total * 1e6)
        costs.sort()
        label = "on" if fingerprints else "off"
        print(f"{total} events, fingerprints {label}: best {costs[0]:.2f}, median {costs[2]:.2f} µs per event")


if __name__ == "__main__":
    main()
