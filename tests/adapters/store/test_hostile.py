"""No data from a fleet prevents the daemon from committing."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.adapters.store.encode import storable
from celery_monitor.core.model import Action, Checkpoint, OutboxRequest, QueueLengthDelta, SeriesKey, TaskRef
from celery_monitor.core.paging import Page
from celery_monitor.ports import FailureFilter
from tests.contracts.values import NOW, START, bucket, changes, error, failure, group, incident, series, worker
from tests.properties import examples

TEXTS = {
    "emoji": "💥" * 100,
    "nul": "before\0after",
    "quotes": "'; DROP TABLE series; -- \" ? :name %s",
    "bidi": "\u202egnp.exe\u2066",
    "megabyte": "é" * 1_000_000,
    "empty": "",
    "newlines": "a\r\n\tb\x1b[31m",
}


def everywhere(text: str, sequence: int = 1) -> Any:
    """A flush with ``text`` in every field that a fleet controls."""
    return changes(
        sequence,
        series=[structs.replace(series(text, text, text), exceptions={text: 1})],
        buckets=[bucket(name=text, queue=text, sent=1)],
        checkpoints=[Checkpoint(0, SeriesKey(text, text, text), (), ())],
        queue_lengths=[QueueLengthDelta(START, text, 1, 2, 2)],
        groups=[structs.replace(group(), name=text, exception=text, frame=text)],
        errors=[error()],
        failures=[
            failure(text, name=text, queue=text, hostname=text, exception=text, message=text, traceback=text, args=text)
        ],
        tracked=[(text, TaskRef(name=text, queue=text))],
        workers=[worker(text, sw_ident=text)],
        incidents=[incident(text, task=text, message=text, workers={text: 1}, samples=(text,))],
        outbox=[OutboxRequest("pagerduty", text, Action.TRIGGER, text, NOW)],
        counters={text: 1.0},
    )


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_texts_are_kept(store: SqlStore, text: str) -> None:
    """Any text is restored unchanged from every field."""
    flush = everywhere(text)
    store.commit(flush)
    reader = store.reader
    assert reader.failures(FailureFilter(task=text, exception=text)) == Page(list(flush.failures))
    assert reader.failure(text) == list(flush.failures)
    assert [(row.name, row.queue) for row in reader.buckets(0, NOW * 2)] == [(text, text)]
    assert [row.frame for row in reader.groups(0, NOW * 2)] == [text]
    (hour,) = reader.task_hours(text, 0, NOW)
    assert hour.runtime.counts == flush.series[0].runtime.counts
    lengths = reader.queue_lengths(0, NOW * 2, step=900, limit=9, queues=[text]).rows
    assert [row.queue for row in lengths] == [text]
    assert [row.incident for row in reader.incidents(limit=9).rows] == list(flush.incidents)
    assert store.outbox.incident(text) == flush.incidents[0]
    assert [(item.key, item.route) for item in store.outbox.due(NOW, 9)] == [(text, text)]
    assert reader.workers() == list(flush.workers)
    store.stop()
    restored = store.start()
    assert list(restored.series) == list(flush.series)
    assert [(uuid, ref.name) for uuid, ref in restored.tracked] == [(text, text)]
    assert restored.counters == {text: 1.0}


@pytest.mark.parametrize("text", ["\ud800", "ok \udcff\0 ok"])
def test_lone_surrogates(store: SqlStore, text: str) -> None:
    """They are stored as an escape, and the flush is complete and counted once."""
    shown = text.encode(errors="backslashreplace").decode()
    flush = everywhere(text)
    store.commit(flush)
    store.commit(flush)
    assert [(row.name, row.counts[0]) for row in store.reader.buckets(0, NOW * 2)] == [(shown, 1)]
    assert len(store.reader.failure(shown)) == 1
    item = store.outbox.due(NOW, 9)[0]
    assert item.key == shown
    store.outbox.retry(item, NOW, f"refused: {text}")
    store.outbox.dead(store.outbox.due(NOW, 9)[0], NOW, f"refused: {text}")
    store.stop()
    restored = store.start()
    assert restored.counters == {shown: 1.0}
    assert list(restored.incidents) == [
        incident(shown, task=shown, message=shown, workers={shown: 1}, samples=(shown,))
    ]


@pytest.mark.parametrize(
    ("number", "stored"), [(2**70, 2**63 - 1), (-(2**70), 1 - 2**63), (2**63 - 1, 2**63 - 1), (0, 0)]
)
def test_huge_integers(store: SqlStore, number: int, stored: int) -> None:
    """Numbers beyond 64 bits are limited, not refused."""
    store.commit(changes(1, workers=[worker(pid=number)], tracked=[("u", TaskRef(seen_minute=number))]))
    assert store.reader.workers() == [worker(pid=stored)]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e308, 5e-324])
def test_odd_floats(store: SqlStore, number: float) -> None:
    """Any float can be written, and the store starts with it."""
    flush = changes(
        1,
        failures=[failure(at=number)],
        workers=[worker(last_heartbeat=number)],
        series=[structs.replace(series(), runtime=structs.replace(series().runtime, sum=number))],
        tracked=[("u", TaskRef(due_at=number))],
    )
    store.commit(flush)
    (found,) = store.reader.failure("u1")
    assert found.at == (0.0 if math.isnan(number) else number)
    store.stop()
    assert len(store.start().series) == 1


def test_scrubbed_copies_all() -> None:
    """Storable values are unchanged."""
    flush = everywhere("plain \u00e9💥")
    assert storable(flush) == flush


@settings(max_examples=examples(30))
@given(st.text(alphabet=st.characters(), max_size=20), st.integers(), st.floats())
def test_anything(text: str, integer: int, real: float) -> None:
    """Any flush is committed, the next one too, and the store starts again."""
    store = open_store("sqlite://", retention=1e9, fingerprint_window=10)
    store.start()
    store.commit(everywhere(text))
    store.commit(
        changes(2, workers=[worker(text, processed=integer, last_heartbeat=real)], counters={text: real, "n": integer})
    )
    store.stop()
