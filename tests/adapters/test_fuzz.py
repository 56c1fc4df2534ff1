"""Hostile messages by the thousand, from the bytes to the store: no crash, no stall, each counted by its reason.

Bodies are the recordings' own, mutated in their bytes and in their JSON: wrong types, huge numbers, nulls, deep
nesting, invalid UTF-8, lone surrogates, NUL, long strings. What the monitor makes of them is committed to a real store.
"""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celery_monitor.adapters.store import open_store
from celery_monitor.core.model import Delivery
from celery_monitor.core.monitor import Limits, Monitor
from tests.builders import recorded

NOW = 1_795_397_300.0
FLUSH = 2_000
HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 2**63, -(2**63), 10**400, 1e308, -1e308, 1e-320, float("nan"), float("inf"),
    "", "\x00", "\ud800", "\u202e", "a\r\nb", "💥" * 50, "x" * 10_000, [], {}, [[[[]]]], {"a": {"b": []}},
    "task-failed", "worker-heartbeat", "monitor-probe", ["task-failed"], NOW, str(NOW), "NotRegistered('')",
    "ExceptionWithTraceback()", "'; DROP TABLE series; --", "{task}/{hour}", "</script>", "%s%n", "../../etc/passwd",
]  # fmt: skip


def mutations(chance: random.Random) -> list[Callable[[bytes], bytes]]:
    """Mutations of a body."""

    def flip(body: bytes) -> bytes:
        changed = bytearray(body)
        for _ in range(chance.randint(1, 8)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        return bytes(changed)

    def cut(body: bytes) -> bytes:
        return body[: chance.randrange(len(body))]

    def field(body: bytes) -> bytes:
        value = json.loads(body)
        event = chance.choice(value) if isinstance(value, list) else value
        for _ in range(chance.randint(1, 3)):
            event[chance.choice([*event, "uuid", "name", "queue", "exception"])] = copy.copy(chance.choice(HOSTILE))
        return json.dumps(value).encode("utf-8", "surrogatepass")

    def elements(body: bytes) -> bytes:
        value = json.loads(body)
        return json.dumps([value, chance.choice(HOSTILE), value] if isinstance(value, dict) else value * 3).encode()

    def deep(body: bytes) -> bytes:
        depth = chance.choice((10, 1_000, 20_000))
        return b"[" * depth + body + b"]" * chance.choice((depth, 0))

    def whole(_: bytes) -> bytes:
        return json.dumps(chance.choice(HOSTILE)).encode("utf-8", "surrogatepass")

    return [flip, flip, cut, field, field, field, field, elements, deep, whole]


def bodies(number: int, seed: int) -> Iterator[bytes]:
    """Mutated bodies, and occasionally one of 10 MB."""
    chance = random.Random(seed)
    originals = [delivery.body for version in ("4.4.7", "5.7.0") for delivery in recorded(version)]
    ways = mutations(chance)
    for count in range(number):
        body = chance.choice(originals)
        if count % 100_000 == 50_000:
            huge = "x" * 10_000_000
            for name in ("exception", "traceback", "name", "uuid", "type", "queue", "hostname", "args"):
                event = {"type": "task-failed", "uuid": "u", "timestamp": NOW, name: huge}
                yield json.dumps(event).encode()
        yield chance.choice(ways)(body)


@pytest.mark.parametrize(
    "number", [20_000, pytest.param(1_000_000, marks=[pytest.mark.campaign, pytest.mark.timeout(0)])]
)
def test_hostile_bodies(tmp_path: Path, number: int) -> None:
    """Every body is counted, every event is counted or discarded with a reason, and everything can be stored."""
    limits = Limits(capture_arguments=True, hostname_label=True, max_task_names=500, max_tasks=20_000)
    store = open_store(f"sqlite:///{tmp_path}/fuzz.db", retention=86400.0 * 30, fingerprint_window=4000)
    monitor = Monitor(limits, store.start(), NOW)
    monitor.connected(acknowledges=True)
    batch: list[Delivery] = []
    sent = 0

    def flush(now: float) -> None:
        monitor.receive(batch, now)
        monitor.tick(now)
        monitor.take_notices()
        monitor.take_arrivals()
        monitor.take_probes()
        batch.clear()
        changes = monitor.take(now)
        if changes is not None:
            store.commit(changes)

    for body in bodies(number, seed=20261123):
        batch.append(Delivery(body, redelivered=sent % 7 == 0))
        sent += 1
        if len(batch) == FLUSH:
            flush(NOW + sent / 1000)
    flush(NOW + sent / 1000)
    before = monitor.snapshot()
    assert before.counters["messages"] == sent
    assert before.counters["discarded.malformed"] > sent / 100
    assert before.counters["events.task-failed"] > sent / 100
    store.stop()

    again = open_store(f"sqlite:///{tmp_path}/fuzz.db", retention=86400.0 * 30, fingerprint_window=4000)
    after = Monitor(limits, again.start(), NOW + sent / 1000).snapshot()
    again.stop()
    restored = {series.key: (series.counts, series.exceptions) for series in after.series}
    assert restored == {series.key: (series.counts, series.exceptions) for series in before.series}
