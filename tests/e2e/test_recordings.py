"""The recordings of two fleets, sent through real brokers like the original messages."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from celery.events.event import get_exchange
from kombu import Connection, Producer

from tests.conftest import Start
from tests.e2e.daemon import Daemon
from tests.servers import wait_until

_DATA = Path(__file__).resolve().parents[1] / "data"

_RUN = {"sent": 1, "received": 1, "started": 1}
_FAILED = {**_RUN, "failed": 1}
_BOTH = {
    "shop.billing.charge": {"sent": 12, "received": 12, "started": 12, "failed": 12},
    "shop.billing.refund": {"sent": 3, "received": 3, "started": 3, "retried": 2, "failed": 1},
    "shop.cron.nightly": {**_RUN, "succeeded": 1},
    "shop.gone.task": {"sent": 1, "failed": 1},
    "shop.images.detect": _FAILED,
    "shop.images.hard": _FAILED,
    "shop.images.oom": _FAILED,
    "shop.images.oom_late": {"sent": 1, "received": 2, "started": 2, "rejected": 1, "succeeded": 1},
    "shop.mail.remind": {"sent": 11, "received": 11, "started": 11, "succeeded": 11},
    "shop.orders.price": {"sent": 37, "received": 36, "started": 35, "succeeded": 35, "revoked": 2},
    "shop.orders.weird": _FAILED,
    "shop.queue.ignore": _RUN,
}
COUNTS = {
    "4.4.7": _BOTH | {"shop.orders.slow": {**_RUN, "revoked": 2}, "shop.queue.reject": {**_RUN, "rejected": 1}},
    "5.7.0": _BOTH | {"shop.orders.slow": {**_RUN, "revoked": 1}, "shop.queue.reject": {**_FAILED, "rejected": 1}},
}
_CLASSES = {
    "shop.billing.charge": {"ValueError": 12},
    "shop.billing.refund": {"TimeoutError": 1},
    "shop.gone.task": {"NotRegistered": 1},
    "shop.images.detect": {"SoftTimeLimitExceeded": 1},
    "shop.images.hard": {"TimeLimitExceeded": 1},
    "shop.images.oom": {"WorkerLostError": 1},
    "shop.orders.weird": {"Weird": 1},
}
CLASSES = {"4.4.7": _CLASSES, "5.7.0": _CLASSES | {"shop.queue.reject": {"Reject": 1}}}
TOTALS = {
    "4.4.7": {
        "sent": 73, "received": 72, "started": 71, "succeeded": 48, "failed": 18, "retried": 2, "rejected": 2,
        "revoked": 4,
    },
    "5.7.0": {
        "sent": 73, "received": 72, "started": 71, "succeeded": 48, "failed": 19, "retried": 2, "rejected": 2,
        "revoked": 3,
    },
}  # fmt: skip
FAILED_EVENTS = {"4.4.7": 18, "5.7.0": 20}
WORKER_EVENTS = {"4.4.7": 26, "5.7.0": 22}


def replay(version: str, broker_url: str) -> None:
    """Publish a recording with kombu, each message with its routing key, headers and body."""
    lines = (_DATA / f"events-celery-{version}-rabbitmq.jsonl").read_text().splitlines()
    with Connection(broker_url) as connection, connection.channel() as channel:
        producer = Producer(channel, get_exchange(connection))
        for line in lines:
            message = json.loads(line)
            producer.publish(
                message["body"],
                routing_key=message["routing_key"],
                headers=message["headers"],
                content_type=message["content_type"],
                content_encoding=message["content_encoding"],
                delivery_mode=1,
            )


def total(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """The sum over all tasks."""
    found: dict[str, int] = {}
    for numbers in counts.values():
        for kind, number in numbers.items():
            found[kind] = found.get(kind, 0) + number
    return found


@pytest.mark.parametrize("version", ["4.4.7", "5.7.0"])
def test_a_recorded_fleet_is_counted_exactly(version: str, broker_url: str, start: Start, tmp_path: Path) -> None:
    """Every event is counted under its task, with its exception's class; the duplicate is one failure."""
    daemon = start(Daemon(tmp_path / "daemon", broker_url))
    daemon.until_ready()

    replay(version, broker_url)

    daemon.until_counts(COUNTS[version])
    assert total(daemon.counts()) == TOTALS[version]
    assert daemon.exceptions() == CLASSES[version]
    assert daemon.metric("monitor_unnamed_failures_total") == 0
    kinds = ("worker-online", "worker-heartbeat", "worker-offline")

    def of_workers() -> float:
        return sum(daemon.metric("monitor_events_total", type=kind) for kind in kinds)

    # Its last events are theirs, and count for no task.
    wait_until(lambda: of_workers() >= WORKER_EVENTS[version], 60, what="the workers' events")
    assert of_workers() == WORKER_EVENTS[version]
    assert daemon.metric("monitor_events_total", type="task-failed") == FAILED_EVENTS[version]
    for kind, number in TOTALS[version].items():
        assert daemon.metric(f"task_{kind}_total") == number
