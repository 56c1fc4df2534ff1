"""The right to write: one process at a time, by the database's clock, whatever the others believe."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.core.model import Action, Changes, OutboxRequest, Restored, Silence, TaskRef
from celery_monitor.errors import LeaseLostError, StoreUnavailableError, StoreUnusableError
from tests.conftest import Start
from tests.contracts.conftest import FINGERPRINT_WINDOW, RETENTION
from tests.contracts.values import NOW, bucket, changes, failure, series
from tests.servers import PgBouncer, PostgreSQL
from tests.servers.waiting import wait_until

DAY = 86_400.0
REQUEST = OutboxRequest("email", "2026-07-24", Action.REPORT)


Pair = Callable[..., tuple[SqlStore, SqlStore]]


@pytest.fixture
def pair(postgresql_url: str, tmp_path: Path) -> Iterator[Pair]:
    """Two replicas' stores on one database with this lease duration; neither leads yet."""
    stores: list[SqlStore] = []

    def make(ttl: float, url: str = postgresql_url, **options: Any) -> tuple[SqlStore, SqlStore]:
        settings = {"retention": RETENTION, "fingerprint_window": FINGERPRINT_WINDOW, "lease_ttl": ttl, **options}
        stores.extend(open_store(url, directory=tmp_path / name, **settings) for name in "ab")
        return stores[0], stores[1]

    yield make
    for store in stores:
        store.stop()


@pytest.fixture
def two(pair: Pair) -> tuple[SqlStore, SqlStore]:
    """With leases of a minute."""
    return pair(60.0)


def expire(store: SqlStore) -> None:
    """Simulate a leader that was silent for longer than its lease."""
    with store._database.write(fenced=False) as connection:
        connection.exec_driver_sql("UPDATE meta SET lease_until = lease_until - 61")


def test_any_replica_takes_a_silence(two: tuple[SqlStore, SqlStore]) -> None:
    """Even one that could not get the lease, and a former leader."""
    first, second = two
    first.lead("pod-1")
    assert second.lead("pod-2") is None
    second.silences.add(Silence("standby", ("shop.*",), "deploy", NOW, NOW + 60))
    first.resign()
    assert second.lead("pod-2") is not None
    first.silences.add(Silence("former", ("shop.*",), "deploy", NOW, NOW + 60))
    assert {one.id for one in second.silences.current(NOW)} == {"standby", "former"}
    assert first.silences.end("standby", NOW + 1) is not None
    assert [one.id for one in second.silences.current(NOW + 2)] == ["former"]


def test_a_server_that_lacks_flushes_of_the_former_leader(pair: Pair, opened_third: Callable[[], SqlStore]) -> None:
    """After a failover, a standby that has seen more flushes reports it when it leads, and only once."""
    first, second = pair(60.0)
    third = opened_third()
    first.lead("pod-1")
    for sequence in (1, 2, 3):
        first.commit(changes(sequence))
    assert second.lease().term == third.lease().term == 1
    with first._database.write(fenced=False) as connection:
        connection.exec_driver_sql("UPDATE meta SET sequence = 1, lease_until = 0")
    restored = second.lead("pod-2")
    assert restored is not None
    assert restored.rolled_back is not None
    assert (restored.sequence, restored.rolled_back.flushes) == (1, 2)
    assert third.lease().term == 2
    expire(second)
    again = third.lead("pod-3")
    assert again is not None
    assert again.rolled_back is None


def test_a_newer_version_leads(pair: Pair, postgresql: PostgreSQL) -> None:
    """A standby that could not take over is not ready, with the reason, and refuses to lead."""
    first, second = pair(60.0, postgresql.new_database())
    first.lead("pod-1")
    assert second.lease().holder == "pod-1"
    with first._database.write(fenced=False) as connection:
        connection.exec_driver_sql("UPDATE celery_monitor_version SET version_num = '9999'")
        connection.exec_driver_sql("UPDATE meta SET term = term + 1")
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match=r"newer version of celery-monitor \(revision 9999\)"):
            second.lease()
    expire(first)
    assert second.lease().expires_in < 0
    with pytest.raises(StoreUnusableError, match="newer version"):
        second.lead("pod-2")


@pytest.fixture
def opened_third(postgresql_url: str, tmp_path: Path) -> Iterator[Callable[[], SqlStore]]:
    """One more replica's store on the same database."""
    stores: list[SqlStore] = []

    def make() -> SqlStore:
        settings = {"retention": RETENTION, "fingerprint_window": FINGERPRINT_WINDOW, "lease_ttl": 60.0}
        stores.append(open_store(postgresql_url, directory=tmp_path / "c", **settings))  # type: ignore[arg-type]
        return stores[0]

    yield make
    for store in stores:
        store.stop()


def test_one_process_leads(sql: SqlStore) -> None:
    """All see its name, the increasing term, and the end of the lease."""
    before = sql.lease()
    assert (before.holder, before.term) == ("", 1)
    sql.stop()
    assert sql.lead("pod-1") is not None
    state = sql.lease()
    assert (state.holder, state.term) == ("pod-1", 2)
    assert 0 < state.expires_in <= sql.lease_ttl


def test_a_renewal(sql: SqlStore) -> None:
    """It extends the lease by its whole duration; a flush renews it too, and an expired lease is still held."""
    for renew in (sql.renew, lambda: sql.commit(changes(1)), lambda: sql.commit(changes(2))):
        expire(sql)
        assert sql.lease().expires_in < 0
        renew()
        assert 0 < sql.lease().expires_in <= sql.lease_ttl


def test_the_position(sql: SqlStore) -> None:
    """It is that of the last flush with a position, and survives a restart; a broker may give any text."""
    assert sql.position() is None
    for sequence, position in enumerate(["tag-1", None, "odd \0 \udcff"], start=1):
        sql.commit(changes(sequence, position=position))
        assert sql.position() == ("tag-1" if sequence < 3 else sql.position())
    assert (sql.position() or "").startswith("odd ")
    sql.stop()
    sql.start()
    assert (sql.position() or "").startswith("odd ")


def test_a_second_process_waits(two: tuple[SqlStore, SqlStore]) -> None:
    """While the first leads, it gets no lease, reads everything, and changes nothing."""
    first, second = two
    assert (first.lease().term, first.position()) == (0, None)
    assert first.lead("a") is not None
    first.commit(changes(1, series=[series(sent=1)], position="tag-1"))
    assert second.lead("b") is None
    assert (second.lease().holder, second.position()) == ("a", "tag-1")
    assert second.reader.workers() == []
    with pytest.raises(StoreUnavailableError, match=r"another.*\(a\) leads|Another.*\(a\) leads"):
        second.start()
    first.commit(changes(2))
    with pytest.raises(LeaseLostError):
        second.renew()
    with pytest.raises(LeaseLostError):
        second.outbox.enqueue(REQUEST, NOW)


@pytest.mark.parametrize("how", ["expired", "resigned", "stopped"])
def test_a_take_over(two: tuple[SqlStore, SqlStore], how: str) -> None:
    """The second continues after the last flush of the first, in a new term."""
    first, second = two
    first.lead("a")
    first.commit(changes(1, series=[series(sent=1)]))
    {"expired": lambda: expire(first), "resigned": first.resign, "stopped": first.stop}[how]()
    restored = second.lead("b")
    assert restored is not None
    assert restored.sequence == 1
    assert (second.lease().holder, second.lease().term) == ("b", 2)
    second.commit(changes(2))


def _notes(store: SqlStore) -> None:
    (item,) = store.outbox.due(NOW + DAY, 9)
    store.outbox.note(item, "claimed")


Late = Callable[[SqlStore], object]
LATE: dict[str, Late] = {
    "flush": lambda store: store.commit(changes(2, series=[series(sent=9)], failures=[failure("u9")], position="late")),
    "prune": lambda store: store.prune(NOW + 2 * RETENTION),
    "report": lambda store: store.outbox.enqueue(OutboxRequest("email", "2026-07-25", Action.REPORT), NOW),
    "delivered": lambda store: store.outbox.delivered(store.outbox.due(NOW + DAY, 9)[0], NOW, 1),
    "retry": lambda store: store.outbox.retry(store.outbox.due(NOW + DAY, 9)[0], NOW, "no"),
    "dead": lambda store: store.outbox.dead(store.outbox.due(NOW + DAY, 9)[0], NOW, "no"),
    "uncertain": lambda store: store.outbox.uncertain(store.outbox.due(NOW + DAY, 9)[0], NOW, "no"),
    "expedite": lambda store: store.outbox.expedite("email", NOW),
    "claim": _notes,
    "revive": lambda store: store.outbox.revive(None, NOW),
    "renew": lambda store: store.renew(),
}


def content(store: SqlStore) -> object:
    """Everything that a former leader may have changed."""
    with store._database.read() as connection:
        return [
            connection.exec_driver_sql(f"TABLE {table}").all()
            for table in ("meta", "outbox", "deliveries", "series", "failures", "buckets", "task_totals")
        ]


def test_a_zombie(two: tuple[SqlStore, SqlStore]) -> None:
    """Every write of a former leader is refused with the name of the new one, and nothing is applied."""
    first, second = two
    first.lead("a")
    first.commit(changes(1, series=[series(sent=1)], failures=[failure("u1")]))
    first.outbox.enqueue(REQUEST, NOW)
    expire(first)
    second.lead("b")
    before = content(second)
    for name, late in LATE.items():
        with pytest.raises(LeaseLostError, match=r"\(b\) has taken over"):
            late(first)
        assert content(second) == before, name
    first.resign()
    first.stop()
    assert content(second) == before
    second.commit(changes(2))


def test_a_resigned_leader(two: tuple[SqlStore, SqlStore]) -> None:
    """It cannot write, even if nobody else leads; it may lead again."""
    first, _ = two
    first.lead("a")
    first.commit(changes(1))
    first.resign()
    assert first.lease().expires_in <= 0
    for late in (lambda: first.outbox.enqueue(REQUEST, NOW), first.renew, lambda: first.prune(NOW)):
        with pytest.raises(LeaseLostError):
            late()
    with pytest.raises(StoreUnavailableError, match="closed"):
        first.commit(changes(2))
    assert first.lead("a") is not None
    first.commit(changes(2))
    assert first.lease().term == 2


def test_replicas_that_share_a_directory(postgresql_url: str, tmp_path: Path) -> None:
    """The second one warns once, with the holder; both continue. A restart after the first ended does not warn."""
    first, second, third = (
        open_store(postgresql_url, directory=tmp_path, retention=RETENTION, fingerprint_window=FINGERPRINT_WINDOW)
        for _ in range(3)
    )

    def warned(store: SqlStore) -> list[dict[str, Any]]:
        with capture_logs() as lines:
            attempt(store)
        return [dict(line) for line in lines if line["event"].startswith("store.directory is in use by another")]

    try:
        assert warned(first) == []
        (warning,) = warned(second)
        assert (warning["log_level"], warning["directory"]) == ("warning", str(tmp_path))
        assert warning["other"].startswith(f"process {os.getpid()} on ")
        assert warned(second) == []
        first.stop()
        assert warned(third) == []
    finally:
        for store in (first, second, third):
            store.stop()


def test_replicas_with_directories_of_their_own(two: tuple[SqlStore, SqlStore], tmp_path: Path) -> None:
    """There is no warning."""
    for name in "ab":
        (tmp_path / name).mkdir()
    with capture_logs() as lines:
        for store in two:
            attempt(store)
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == []


def test_the_command_line(two: tuple[SqlStore, SqlStore]) -> None:
    """It writes while another process leads, without taking its lease."""
    first, beside = two
    first.lead("a")
    beside.attach()
    assert beside.outbox.revive(None, NOW) == 0
    assert beside.outbox.enqueue(REQUEST, NOW)
    first.commit(changes(1))
    assert first.lease().holder == "a"


def test_a_leader_that_stands_still_in_a_transaction(pair: Pair) -> None:
    """Its lock is released when its lease expires, so the next one can lead; the transaction is not applied."""
    first, second = pair(1.0)
    first.lead("a")

    def second_leads() -> bool:
        with suppress(StoreUnavailableError):  # its wait for the lock may end first: it asks again
            return second.lead("b") is not None
        return False

    def write_slowly() -> None:
        with first._database.write() as connection:
            connection.exec_driver_sql("UPDATE meta SET sequence = 99")
            wait_until(second_leads, what="the other one to lead")
            connection.exec_driver_sql("UPDATE meta SET sequence = 98")

    with pytest.raises(StoreUnavailableError):
        write_slowly()
    assert second.lease().holder == "b"
    second.commit(changes(1))
    with pytest.raises(LeaseLostError):
        first.renew()


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooler"])
def test_a_leader_that_stands_still_anywhere_in_a_flush(
    pair: Pair, postgresql_url: str, postgresql: PostgreSQL, start: Start, tmp_path: Path, *, pooled: bool
) -> None:
    """Also between two pipelined statements, for the second of which the server waits forever."""
    url = postgresql_url
    if pooled:
        pooler = start(PgBouncer(postgresql, tmp_path / "pgbouncer"))
        url = pooler.url(postgresql_url.rpartition("/")[2])
    passed, stop_at = 0, 0

    def stand_still() -> None:
        nonlocal passed
        passed += 1
        if passed == stop_at:
            wait_until(lambda: attempt(other) is not None, 60, what="the other one to lead")

    stores = pair(1.0, url, yield_point=stand_still)
    sequence = 0
    for turn, place in enumerate(("middle",) if pooled else ("middle", "end")):
        leader, other = stores[turn % 2], stores[1 - turn % 2]
        restored = wait_until(lambda leader=leader: attempt(leader), 60)  # type: ignore[misc]
        assert restored is not None
        assert restored.sequence == sequence
        sequence += 1
        passed, stop_at = 0, 0
        leader.commit(full(sequence))
        assert passed > 3, "a flush has several moments between its statements"
        passed, stop_at = 0, passed if place == "end" else passed // 2 + 1
        with pytest.raises((StoreUnavailableError, LeaseLostError)):
            leader.commit(full(sequence + 1))
        with pytest.raises(LeaseLostError):
            leader.renew()
        sequence += 1
        other.commit(full(sequence))  # nothing of the other one's flush was applied
        other.resign()


def attempt(store: SqlStore) -> Restored | None:
    """Try to lead; fails while the former leader holds the lock."""
    with suppress(StoreUnavailableError):
        return store.lead("any")
    return None


def full(sequence: int) -> Changes:
    """A flush with several statements."""
    name = f"task{sequence}"
    return changes(
        sequence,
        series=[series(name, sent=sequence)],
        buckets=[bucket(900 * sequence, name, sent=1)],
        failures=[failure(f"u{sequence}", name=name)],
        tracked=[(f"t{sequence}", TaskRef(name=name))],
        forgotten=[(f"t{sequence - 1}", sequence - 1)],
    )
