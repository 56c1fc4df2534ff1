"""Events and failures with sensible defaults, for tests of the core."""

import gzip
import json
from pathlib import Path
from typing import Any

from celery_monitor.core.incident import TaskFailure
from celery_monitor.core.model import ChannelDelivery, Delivery, Event, Incident, IncidentRow
from celery_monitor.core.monitor import MAX_TICK_GAP, Monitor

DATA = Path(__file__).parent / "data"
NOON = 1_700_049_600.0
"""2023-11-15 12:00 UTC, the start of an hour and of a bucket."""


def event(kind: str, uuid: str = "u1", at: float = NOON, **fields: Any) -> Event:
    """``task-`` is added to a kind without a dash."""
    return Event(type=kind if "-" in kind else f"task-{kind}", timestamp=at, uuid=uuid, hostname="w1@box", **fields)


def body(*events: dict[str, Any]) -> bytes:
    """A message with one event or a list of events."""
    return json.dumps(events[0] if len(events) == 1 else events).encode()


def raw(kind: str, uuid: str = "u1", at: float = NOON, **fields: Any) -> dict[str, Any]:
    """An event as Celery sends it."""
    return {"type": f"task-{kind}", "uuid": uuid, "timestamp": at, "hostname": "w1@box", "clock": 1, **fields}


def life(uuid: str, name: str = "shop.pay", at: float = NOON, end: str = "succeeded", **fields: Any) -> list[bytes]:
    """The four messages of a task from sent to its end, a second apart."""
    return [
        body(raw("sent", uuid, at, name=name, queue="pay", retries=0)),
        body(raw("received", uuid, at + 1, name=name)),
        body(raw("started", uuid, at + 2)),
        body(raw(end, uuid, at + 3, **fields)),
    ]


def failed(task: str = "shop.pay", at: float = NOON, uuid: str = "u1", **fields: Any) -> TaskFailure:
    """A failure as the decider receives it."""
    values = {"queue": "pay", "exception": "ValueError", "hostname": "w1@box", "message": "no", "traceback": ""}
    return TaskFailure(uuid=uuid, task=task, at=at, **(values | fields))


def sent(
    incident: Incident, delivered_at: float | None, count: int, error: str | None, channel: str = "oncall"
) -> IncidentRow:
    """A stored incident, and its delivery on its only channel."""
    state = "pending" if delivered_at is None else "delivered"
    return IncidentRow(incident, (ChannelDelivery(channel, state, 1, error, delivered_at, count, None),))


def recorded(version: str) -> list[Delivery]:
    """A recording of a real fleet, message by message."""
    lines = (DATA / f"events-celery-{version}-rabbitmq.jsonl").read_text().splitlines()
    return [Delivery(line["body"].encode(), line["content_type"]) for line in map(json.loads, lines)]


def reruns(broker: str, kind: str = "reruns") -> tuple[list[Delivery], dict[str, dict[str, int]]]:
    """A recording of a real fleet that runs IDs more than once, and the fleet's own counts by task."""
    base = str(DATA / f"{kind}-celery-5.7.0-{broker}")
    lines = gzip.decompress(Path(base + ".jsonl.gz").read_bytes()).decode().splitlines()
    counts = json.loads(Path(base + ".json").read_text())
    return [Delivery(line["body"].encode(), line["content_type"]) for line in map(json.loads, lines)], counts


def pass_time(of: Monitor, seconds: int, start: float = NOON) -> None:
    """Tick a monitor every second for this long."""
    for passed in range(0, seconds + int(MAX_TICK_GAP), int(MAX_TICK_GAP)):
        of.tick(start + min(passed, seconds))
