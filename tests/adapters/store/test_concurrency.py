"""The flush, the notifiers, the page and the command line use one file at the same time."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from celery_monitor.adapters.store import SqlStore
from celery_monitor.adapters.store.dialects import sqlite
from celery_monitor.core.model import Action, OutboxRequest
from celery_monitor.errors import StoreUnavailableError
from tests.adapters.store.conftest import Open
from tests.contracts.values import NOW, bucket, changes, failure, incident, series


def test_readers_see_whole_flushes(store: SqlStore) -> None:
    """During flushes, each query sees one consistent state, and neither queries nor flushes are refused."""
    done = threading.Event()
    torn: list[tuple[int, int]] = []
    looks: list[int] = []

    def read() -> None:
        while not done.is_set():
            counts = {row.name: row.counts[0] for row in store.reader.buckets(0, NOW * 2)}
            if len(set(counts.values())) > 1:
                torn.append((min(counts.values()), max(counts.values())))
            looks.append(len(counts))

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        for sequence in range(1, 2_000):
            store.commit(changes(sequence, buckets=[bucket(name=f"n{i}", sent=1) for i in range(20)]))
            if sequence >= 50 and (len(looks) > 10 or any(reader.done() for reader in readers)):
                break
        done.set()
        for reader in readers:
            reader.result(120)
    assert torn == []
    assert len(looks) > 10
    assert {row.counts[0] for row in store.reader.buckets(0, NOW * 2)} == {sequence}


def test_an_open_query_keeps_no_writer_waiting(store: SqlStore) -> None:
    """An open read transaction does not delay a flush or the pruning, and sees its snapshot."""
    store.commit(changes(1, buckets=[bucket(sent=1)]))
    with store._database.read() as connection:
        seen = connection.exec_driver_sql("SELECT sum(sent) FROM buckets").scalar()
        store.commit(changes(2, buckets=[bucket(sent=1)]))
        store.prune(NOW)
        assert connection.exec_driver_sql("SELECT sum(sent) FROM buckets").scalar() == seen == 1


def test_couriers_and_the_command_line(opened: Open, store: SqlStore) -> None:
    """Nothing is lost or doubled when the flush, a notifier and other processes write at once."""
    other = opened()
    other.attach()
    claims: list[bool] = []

    def claim() -> None:
        claims.extend(
            other.outbox.enqueue(OutboxRequest("email", f"2026-11-{day:02}", Action.REPORT), NOW)
            for day in range(1, 21)
        )

    def deliver() -> int:
        sent = 0
        while sent < 50:
            for item in store.outbox.due(NOW, 10):
                if item.channel == "pagerduty":
                    store.outbox.delivered(item, NOW, 1)
                    sent += 1
        return sent

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(job) for job in (claim, claim)]
        notifier = pool.submit(deliver)
        for sequence in range(1, 51):
            row = OutboxRequest("pagerduty", f"k{sequence}", Action.TRIGGER, "", NOW)
            store.commit(changes(sequence, outbox=[row], incidents=[incident(f"k{sequence}")], series=[series()]))
        for job in running:
            job.result(300)
        notifier.result(300)
    assert sorted(claims) == [False] * 20 + [True] * 20
    assert store.outbox.pending() == {"email": (20, NOW)}
    assert len([r for r in store.reader.incidents(limit=99).rows if r.delivered_count == 1]) == 50


def test_locked_by_another_program(store: SqlStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long foreign transaction makes a flush fail after a bounded wait without effect; then it succeeds."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.1)
    store._database.stop()
    store.start()
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="locked"):
        store.commit(changes(1, buckets=[bucket(sent=1)]))
    with pytest.raises(StoreUnavailableError):
        store.outbox.enqueue(OutboxRequest("email", "2026-11-22", Action.REPORT), NOW)
    assert store.reader.buckets(0, NOW * 2) == []
    blocker.close()
    store.commit(changes(1, buckets=[bucket(sent=1)]))
    assert [row.counts[0] for row in store.reader.buckets(0, NOW * 2)] == [1]


def test_a_failed_flush_costs_its_connection(store: SqlStore) -> None:
    """After a failure a new connection is used, whatever the state of the old one."""

    def connection_in_use() -> object:
        with store._database.write() as connection:
            return connection.connection.dbapi_connection

    before = connection_in_use()
    assert connection_in_use() is before
    with pytest.raises(StoreUnavailableError, match="RuntimeError"), store._database.write():
        raise RuntimeError
    assert connection_in_use() is not before


def test_errors_hold_no_values(store: SqlStore) -> None:
    """Neither an error's text nor its causes contain values of a task."""
    with store._database.write() as connection:
        connection.exec_driver_sql("DROP TABLE failures")
    with pytest.raises(StoreUnavailableError) as caught:
        store.commit(changes(1, failures=[failure("s3cret")]))
    error: BaseException | None = caught.value
    while error is not None:
        assert "s3cret" not in str(error)
        error = error.__cause__
