"""Unfinished tasks are the same after restarts, whatever happens to their IDs and wherever the journal has them."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from celery_monitor.adapters.store import open_store, tracked_journal
from celery_monitor.core.model import Delivery, Restored
from celery_monitor.core.monitor import Limits, Monitor
from tests.builders import NOON

KINDS = ("sent", *["received", "started"] * 2, "succeeded", "failed", "retried", "revoked", "rejected")


@pytest.mark.parametrize("seed", range(6))
def test_restarts(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight IDs are used by two workers, again and again; no ID is restored twice, and none is lost or changed."""
    monkeypatch.setattr(tracked_journal, "YOUNG_FLUSHES", 2)
    monkeypatch.setattr(tracked_journal, "MAX_YOUNG", 6)
    monkeypatch.setattr(tracked_journal, "MAX_MOVED", 3)
    chance, now, restarts = random.Random(seed), NOON, 0
    store = open_store(f"sqlite:///{tmp_path}/store.db", retention=86_400, fingerprint_window=4000)
    monitor = started(store.start(), now)
    for step in range(120):
        now += chance.choice((0.1, 1, 5, 70, 130))
        events = [event(chance, step, now) for _ in range(chance.randint(1, 5))]
        monitor.receive([Delivery(json.dumps(events).encode())], now)
        monitor.tick(now)
        if chance.random() < 0.6 and (changes := monitor.take(now, force=True)) is not None:
            store.commit(changes)
            if chance.random() < 0.4:
                expected = dict(monitor._parts.tracker.tasks)
                store.stop()
                restored = store.start()
                assert len(restored.tracked) == len(expected)
                assert dict(restored.tracked) == expected
                monitor, restarts = started(restored, now), restarts + 1
    store.stop()
    assert restarts > 10


def started(restored: Restored, now: float) -> Monitor:
    """A monitor that continues."""
    monitor = Monitor(Limits(), restored, now)
    monitor.connected(acknowledges=True)
    return monitor


def event(chance: random.Random, step: int, now: float) -> dict[str, Any]:
    """Any event of one of the IDs."""
    return {
        "type": f"task-{chance.choice(KINDS)}",
        "uuid": f"u{chance.randrange(8)}",
        "hostname": chance.choice(("celery@a", "celery@b")),
        "timestamp": now - chance.choice((0, 0, 0.05, 3)),
        "clock": step,
        "name": chance.choice(("shop.a", "shop.b")),
        "queue": "orders",
        "exception": "ValueError('no')",
        "requeue": chance.random() < 0.5,
    }
