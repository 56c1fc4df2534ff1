"""How long data is kept: retention, fingerprints of closed connections, and the size of the file."""

import math
import os
from pathlib import Path

import pytest

from celery_monitor.adapters.store import SqlStore
from celery_monitor.adapters.store.flush import EPOCH_RETENTION
from celery_monitor.adapters.store.retention import CHUNK_SIZE, CLAIM_RETENTION
from celery_monitor.core.model import BUCKET_SECONDS, Action, IncidentState, OutboxRequest
from celery_monitor.core.paging import Page
from celery_monitor.ports import FailureFilter
from tests.adapters.store.conftest import Open
from tests.contracts.values import NOW, START, bucket, changes, error, failure, group, incident, series, vector

DAY = 86_400


def restarted_fingerprints(store: SqlStore) -> dict[int, bytes]:
    """The fingerprints by epoch."""
    store.stop()
    return dict(store.start().fingerprints)


def blob(number: int, length: int = 1) -> bytes:
    """Distinct fingerprints."""
    return b"".join((number * 1000 + i).to_bytes(8, "big") for i in range(length))


def test_fingerprints_of_one_connection(opened: Open) -> None:
    """At least the required number is kept for any sizes of flushes, and not many more."""
    store = opened(fingerprint_window=10)
    store.start()
    sizes = [1, 9, 3, 25, 1, 1, 4, 10, 2, 7]
    everything = b""
    for sequence, size in enumerate(sizes, 1):
        everything += blob(sequence, size)
        store.commit(changes(sequence, epoch=1, fingerprints=blob(sequence, size)))
        restored = restarted_fingerprints(store)[1]
        assert everything.endswith(restored)
        assert min(len(everything), 80) <= len(restored) < 80 + 8 * max(sizes)


def test_fingerprints_of_many_connections(opened: Open) -> None:
    """Each connection's last ones are kept for an hour after the next connection started."""
    store = opened(fingerprint_window=2)
    store.start()
    for epoch in range(1, 6):
        for part in range(3):
            sequence = (epoch - 1) * 3 + part + 1
            store.commit(changes(sequence, now=NOW + epoch * DAY, epoch=epoch, fingerprints=blob(sequence)))
    # The second to last one ended a day ago by its own messages, but only now by what is known.
    assert restarted_fingerprints(store) == {4: blob(11) + blob(12), 5: blob(14) + blob(15)}
    end = NOW + 5 * DAY + EPOCH_RETENTION
    store.commit(changes(16, now=end - 1, epoch=5, fingerprints=blob(16)))
    assert set(restarted_fingerprints(store)) == {4, 5}
    store.commit(changes(17, now=end, epoch=5, fingerprints=blob(17)))
    assert set(restarted_fingerprints(store)) == {5}


def test_epochs_go_on(opened: Open) -> None:
    """The number of the last connection is stored, also if flushes without messages follow."""
    store = opened()
    store.start()
    store.commit(changes(1, epoch=7, fingerprints=blob(1)))
    store.commit(changes(2))
    store.stop()
    assert store.start().epoch == 7


def test_counters_that_stand_still(store: SqlStore) -> None:
    """Only changed counters are written, one row for each 15 minutes."""
    for sequence in range(1, 41):
        moving = {"still": 7.0, "messages": float(sequence)}
        store.commit(changes(sequence, now=NOW + sequence * 60, counters=moving))
    with store._database.read() as connection:
        rows = connection.exec_driver_sql("SELECT name, count(*) FROM counters GROUP BY name").all()
    assert {row[0]: row[1] for row in rows} == {"still": 1, "messages": 3}


def test_counters_of_a_clock_that_was_ahead(store: SqlStore) -> None:
    """Each time has the counters by the correct clock, once that time has come."""
    store.commit(changes(1, counters={"messages": 10.0, "starts": 1.0}))
    for step in range(8):
        ahead = {"messages": 15.0 + step, "starts": 1.0 + step / 10}
        store.commit(changes(2 + step, now=NOW + 3600 + step * 900, counters=ahead))
    for step in range(16):
        counters = {"messages": 100.0 + step, "starts": 2.0}
        store.commit(changes(10 + step, now=NOW + 60 + step * 900, counters=counters))
        assert store.reader.counters(NOW + 61 + step * 900) == counters
    for step in range(16):
        assert store.reader.counters(NOW + 61 + step * 900) == {"messages": 100.0 + step, "starts": 2.0}
    assert store.reader.counters(NOW + 1) == {}
    assert store.reader.counters(math.inf) == {"messages": 115.0, "starts": 2.0}


def test_counters_of_a_clock_that_was_behind(store: SqlStore) -> None:
    """A clock that starts at 1970 does not remove earlier counters."""
    for sequence in range(1, 49):
        store.commit(changes(sequence, now=NOW + sequence * 1800, counters={"messages": float(sequence)}))
    for minute in range(60):
        store.commit(changes(49 + minute, now=minute * 60, counters={"messages": 49.0 + minute}))
    store.commit(changes(109, now=NOW + 100_000, counters={"messages": 109.0}))
    for sequence in range(1, 49):
        assert store.reader.counters(NOW + sequence * 1800) == {"messages": float(sequence)}
    assert store.reader.counters(NOW + 100_000) == {"messages": 109.0}


def test_retention_of_counters_of_a_clock_that_was_ahead(opened: Open) -> None:
    """Counters of a wrong clock do not replace older, correct ones."""
    store = opened(retention=10.0 * DAY)
    store.start()
    store.commit(changes(1, now=NOW + DAY, counters={"starts": 1.0}))
    store.commit(changes(2, counters={"starts": 2.0}))
    store.prune(NOW + 30 * DAY)
    store.stop()
    assert store.start().counters == {"starts": 2.0}


def test_retention(opened: Open) -> None:
    """Data older than the retention is deleted; newer data, totals and open incidents stay."""
    store = opened(retention=10.0 * DAY)
    store.start()
    states = [IncidentState.EXPIRED] * 3 + [IncidentState.OPEN]
    for sequence, age in enumerate((20, 11, 9, 0), 1):
        at, name = NOW - age * DAY, f"age{age}"
        rows = [OutboxRequest("pagerduty", f"{name}-{state}", Action.TRIGGER, f"{name}-{state}", at) for state in "pdx"]
        store.commit(
            changes(
                sequence,
                now=at,
                series=[series(name, sent=1)],
                buckets=[bucket(START - age * DAY, name, sent=1, failed=1)],
                groups=[group(name, at, at)],
                errors=[error(name, start=START - age * DAY)],
                failures=[failure(name, name=name, at=at, group=name)],
                incidents=[
                    incident(f"{name}-{letter}", opened_at=at, first_at=at, state=state)
                    for letter, state in zip("pdxo", states, strict=True)
                ],
                outbox=rows,
                counters={"messages": float(sequence), "starts": 1.0, f"only.{name}": 1.0},
            )
        )
        pending = {item.key: item for item in store.outbox.due(at, 99)}
        store.outbox.delivered(pending[f"{name}-d"], at, 1)
        store.outbox.dead(pending[f"{name}-x"], at, "400")
    store.prune(NOW)
    reader = store.reader
    assert [row.name for row in reader.buckets(0, NOW + 1)] == ["age9", "age0"]
    tasks = reader.tasks(limit=9).rows
    assert tasks == reader.tasks(since=0.0, limit=9).rows
    assert {row.name for row in tasks if any(row.counts)} == {row.name for row in tasks} == {"age9", "age0"}
    assert {row.id for row in reader.groups(0, NOW + 1)} == {"age9", "age0"}
    assert [f.uuid for f in reader.failures(FailureFilter()).rows] == ["age0", "age9"]
    remaining = {row.incident.key for row in reader.incidents(limit=99).rows}
    old = {"age20-o", "age11-o", "age20-p", "age11-p"}
    assert remaining >= old
    assert {key for key in remaining if key.startswith(("age20", "age11"))} == old
    assert {item.key for item in store.outbox.items(dead=False, limit=99).rows} == {
        "age20-p", "age11-p", "age9-p", "age9-x", "age0-p", "age0-x",
    }  # fmt: skip
    assert reader.counters(NOW - 10 * DAY) == {"messages": 2.0, "starts": 1.0, "only.age20": 1.0, "only.age11": 1.0}
    assert reader.counters(NOW - 15 * DAY).get("messages") is None
    store.stop()
    assert {s.key.name for s in store.start().series} == {"age20", "age11", "age9", "age0"}


def test_a_report_that_was_sent_is_remembered(opened: Open) -> None:
    """Longer than the retention, so that a monthly report is not claimed twice; pages and dead reports are not."""
    store = opened(retention=10.0 * DAY)
    store.start()
    store.commit(changes(1, outbox=[OutboxRequest("pagerduty", "page", Action.TRIGGER)]))
    sent, dead = (OutboxRequest("email", date, Action.REPORT) for date in ("2026-08-31", "2026-07-31"))
    assert store.outbox.enqueue(dead, NOW)
    store.outbox.dead(next(item for item in store.outbox.due(NOW, 9) if item.key == dead.key), NOW, "550")
    assert store.outbox.enqueue(sent, NOW)
    for item in store.outbox.due(NOW, 9):
        store.outbox.delivered(item, NOW, 1)
    store.prune(NOW + 32 * DAY)
    assert not store.outbox.enqueue(sent, NOW)
    assert store.outbox.last_delivered("pagerduty") is None
    assert store.outbox.items(dead=True, limit=9).rows == []
    store.prune(NOW + CLAIM_RETENTION + 1)
    assert store.outbox.enqueue(sent, NOW)


def test_totals_over_the_retention(opened: Open) -> None:
    """A task has the exact counts of its remaining buckets."""
    store = opened(retention=10.0 * DAY)
    store.start()
    for sequence, age in enumerate((20, 15, 9, 5, 0), 1):
        store.commit(changes(sequence, buckets=[bucket(START - age * DAY, sent=2**sequence, failed=1)]))
    store.prune(NOW)
    (row,) = store.reader.tasks(limit=9).rows
    assert (row.counts, row.runtime_sum, row.runtime_count) == (vector(sent=8 + 16 + 32, failed=3), 1.5, 3)
    fleet = store.reader.history(0, NOW + 1, step=BUCKET_SECONDS)
    assert [(one.start, one.counts) for one in fleet] == [
        (START - age * DAY, vector(sent=sent, failed=1)) for age, sent in ((9, 8), (5, 16), (0, 32))
    ]


def test_prune_in_portions(opened: Open) -> None:
    """One call deletes a bounded number of rows, so that flushes do not wait; the next call continues."""
    store = opened(retention=1.0)
    store.start()
    rows = CHUNK_SIZE + 100
    store.commit(changes(1, buckets=[bucket(START - 9000, f"n{i}") for i in range(rows)]))
    store.prune(NOW)
    assert len(store.reader.buckets(0, NOW)) == 100
    store.prune(NOW)
    assert store.reader.buckets(0, NOW) == []


def test_space_comes_back(opened: Open, path: Path) -> None:
    """The log does not grow forever, and the file shrinks when most of it is free."""
    store = opened(retention=1.0)
    store.start()
    for sequence in range(1, 31):
        failures = [failure(f"u{i}", group=f"{sequence}-{i}", traceback=os.urandom(2000).hex()) for i in range(200)]
        store.commit(changes(sequence, failures=failures))
        if sequence % 10 == 0:
            store.prune(NOW)
    full = path.stat().st_size
    assert path.with_name("store.db-wal").stat().st_size < 1_000_000
    for _ in range(10):
        store.prune(NOW + 100)
    assert path.stat().st_size < full / 2
    assert store.reader.failures(FailureFilter()) == Page([])


@pytest.mark.parametrize("state", [IncidentState.SUPPRESSED, IncidentState.RESOLVED])
def test_quiet_incidents_come_back_for_a_time(opened: Open, state: IncidentState) -> None:
    """As long as failures may join them; thousands of older ones are not read at each start."""
    store = opened(quiet_retention=48 * 3600.0)
    store.start()
    ages = (1, 47, 49)
    store.commit(changes(1, incidents=[incident(f"h{age}", state=state, opened_at=NOW - age * 3600) for age in ages]))
    store.stop()
    assert {i.key for i in store.start().incidents} == {"h1", "h47"}
    store.stop()
    assert {i.key for i in opened(quiet_retention=3 * 3600.0).start().incidents} == {"h1"}
