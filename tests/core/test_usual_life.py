"""The fast path of ``Tracker.advance`` gives the same results as the general one."""

import random
from copy import copy
from typing import Any

import pytest

from celery_monitor.core.model import Event
from celery_monitor.core.track import Tracker
from celery_monitor.core.transitions import KINDS
from tests.builders import NOON

USUAL = ["sent", "received", "started", "succeeded"]
LATE = "2026-11-23T13:00:00+00:00"


def tracker(*, capture_arguments: bool, keep_ended: bool) -> tuple[Tracker, list[Any]]:
    """A tracker and the ends that it reports."""
    ended: list[Any] = []

    def end(run: tuple[Any, ...]) -> None:
        ended.append((run[0], copy(run[1]), *run[2:]))

    made = Tracker(
        max_tasks=100, max_age=86_400.0, linger=60.0, capture_arguments=capture_arguments, max_argument_bytes=2_000,
        on_ended=end if keep_ended else None,
    )  # fmt: skip
    made.slow = 5.0
    made.tick(NOON)
    return made, ended


def stream(chance: random.Random) -> list[Event]:
    """Mostly complete runs in order, mixed with other kinds, workers and odd fields."""
    events = []
    for number in range(60):
        kind = USUAL[number % 4] if chance.random() < 0.8 else chance.choice(list(KINDS)).removeprefix("task-")
        uuid = f"u{number // 4 % 5}" if chance.random() < 0.8 else chance.choice(["u1", "\n" * 70, "\u6f22" * 200])
        named = kind in {"sent", "received"} and chance.random() < 0.9
        fields: dict[str, Any] = {
            "hostname": chance.choice(["", "celery@a", "celery@b"]) if chance.random() < 0.2 else "celery@a",
            "name": chance.choice(["a.b", "a.b", "c.d", ""]) if named else None,
            "queue": chance.choice(["q", "", None]) if kind == "sent" else None,
            "runtime": chance.choice([None, 1.5]),
            "root_id": chance.choice([None, uuid, "root"]),
            "parent_id": chance.choice([None, None, "parent"]),
            "retries": chance.choice([None, 0, 2]),
            "eta": chance.choice([None, None, LATE, "never"]),
            "expires": chance.choice([None, None, LATE, "never"]),
            "args": chance.choice([None, "(1,)", "x" * 900]),
            "requeue": chance.choice([None, True, False]),
        }
        at = 0.0 if chance.random() < 0.02 else NOON + number * chance.choice([1, 1, 1, 3])
        events.append(Event(type=f"task-{kind}", timestamp=at, uuid=uuid, **fields))
    return events


@pytest.mark.parametrize("capture_arguments", [False, True])
def test_same_as_the_general_way(*, capture_arguments: bool) -> None:
    """Results, entries, ends, slow runs, arguments, queues, and stored changes are equal after each event."""
    for seed in range(150):
        quick, quick_ended = tracker(capture_arguments=capture_arguments, keep_ended=seed % 2 == 0)
        plain, plain_ended = tracker(capture_arguments=capture_arguments, keep_ended=seed % 2 == 0)
        for number, one in enumerate(stream(random.Random(seed))):
            kind, twin = KINDS[one.type], copy(one)
            assert quick.advance(one, kind) == plain.advance_any(twin, kind)
            assert one == twin
            assert list(quick.tasks.items()) == list(plain.tasks.items())
            assert (quick_ended, quick.slow_runs) == (plain_ended, plain.slow_runs)
            assert list(quick.arguments.items()) == list(plain.arguments.items())
            assert (quick.queue_of, len(quick)) == (plain.queue_of, len(plain))
            if number % 7 == 0:
                assert quick.take(1) == plain.take(1)
            for each in (quick, plain):
                if number % 20 == 0:
                    each.tick(NOON + number * 4.0)
                if number % 13 == 0 and one.uuid in each.tasks:
                    each.lose(one.uuid, each.tasks[one.uuid], NOON + number)
        assert quick.take(1) == plain.take(1)
