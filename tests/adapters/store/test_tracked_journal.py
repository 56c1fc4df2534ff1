"""Active tasks are stored as a journal in front of a table: together they are the committed state at any time."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs
from sqlalchemy import Connection, select, text

from celery_monitor.adapters.store import SqlStore, open_store, schema, tracked_journal
from celery_monitor.adapters.store.flush import FlushWriter
from celery_monitor.core.model import Changes, TaskDetails, TaskRef
from celery_monitor.errors import StoreFullError, StoreUnavailableError
from tests.contracts.values import changes

IDS = [f"u{number}" for number in range(12)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal with a low limit."""
    monkeypatch.setattr(tracked_journal, "YOUNG_FLUSHES", 3)
    monkeypatch.setattr(tracked_journal, "MAX_YOUNG", 8)


@pytest.fixture
def store(store_url: str, tmp_path: Path) -> Iterator[SqlStore]:
    """Started and empty."""
    store = open_store(store_url, directory=tmp_path, retention=1e9, fingerprint_window=4)
    store.start()
    yield store
    store.stop()


class Core:
    """Produces changes like the core, and knows the expected state."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.tasks: dict[str, TaskRef] = {}
        self.sequence = 0

    def take(self) -> Changes:
        """Some tasks start, some continue, some end, some restart at once."""
        self.sequence += 1
        chosen = self.random.sample(IDS, self.random.randrange(7))
        ended = [uuid for uuid in chosen if uuid in self.tasks and self.random.random() < 0.6]
        gone = [(uuid, self.tasks.pop(uuid).saved) for uuid in ended]
        again = [uuid for uuid in chosen if uuid not in ended or self.random.random() < 0.2]
        tracked = []
        for uuid in again:
            ref = self.tasks.get(uuid) or TaskRef(name="a", host="celery@a")
            new = structs.replace(ref, stage=self.random.randrange(3), seen_minute=self.random.randrange(10**6))
            if self.random.random() < 0.2:
                new = structs.replace(new, details=TaskDetails(eta=1.5, root="r"), others=[TaskRef(name="b", host="h")])
            tracked.append((uuid, new))
            self.tasks[uuid] = structs.replace(new, saved=new.saved or self.sequence)
        return changes(self.sequence, tracked=tracked, forgotten=gone)


def table(store: SqlStore) -> set[str]:
    """IDs in the table."""
    with store._database.read() as connection:
        return set(connection.execute(select(schema.tracked.c.uuid)).scalars())


def left(store: SqlStore) -> int:
    """Number of flushes in the journal."""
    with store._database.read() as connection:
        return len(connection.execute(select(schema.tracked_changes.c.sequence)).all())


@pytest.mark.parametrize(("seed", "portion"), [(0, 5_000), (1, 1), (2, 3)])
def test_at_any_time(store: SqlStore, seed: int, portion: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For any failure of transactions and processes, the committed state is restored."""
    monkeypatch.setattr(tracked_journal, "MAX_MOVED", portion)
    core = Core(seed)
    write = FlushWriter.write

    def fail(self: FlushWriter, connection: Connection, *args: object, **options: bool) -> None:
        write(self, connection, *args, **options)  # type: ignore[arg-type]
        monkeypatch.setattr(FlushWriter, "write", write)
        raise StoreFullError("full") if core.random.random() < 0.5 else StoreUnavailableError("away")

    for _ in range(40):
        flush, what = core.take(), core.random.random()
        if what < 0.2:
            monkeypatch.setattr(FlushWriter, "write", fail)
        try:
            store.commit(flush)
        except StoreUnavailableError:
            store.commit(flush)
        if what > 0.9:
            store.stop()
            assert dict(store.start().tracked) == core.tasks
        by_age = sorted(ref.seen_minute for ref in core.tasks.values())
        assert [ref.seen_minute for _, ref in store.reader.tracked(5)] == by_age[:5]
        for uuid in IDS[:3]:
            assert store.reader.tracked(9, uuid=uuid) == ([(uuid, core.tasks[uuid])] if uuid in core.tasks else [])
    for _ in range(20 if portion == 1 else 10):
        core.sequence += 1
        store.commit(changes(core.sequence))
    assert (table(store), left(store)) == (set(core.tasks), 0)


def test_a_burst_is_moved_in_portions(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """No flush moves more than a portion, or half more than it adds, and the journal always shrinks to its limit."""
    monkeypatch.setattr(tracked_journal, "MAX_MOVED", 10)
    burst = [(f"b{number}", TaskRef(name="a")) for number in range(95)]
    store.commit(changes(1, tracked=burst))
    moved = []
    for sequence in range(2, 9):
        before = len(table(store))
        brought = [(f"c{sequence}.{number}", TaskRef(name="a")) for number in range(8)]
        gone = [("b94", 1)] if sequence == 3 else []  # it is a row by then, and the journal still has it too
        store.commit(changes(sequence, tracked=brought, forgotten=gone))
        moved.append(len(table(store)) - before)
        if sequence in {2, 3}:
            store.stop()
            assert len(list(store.start().tracked)) == 95 + 8 * (sequence - 1) - (sequence == 3)
    assert max(moved) == 12
    for sequence in range(9, 19):
        store.commit(changes(sequence, tracked=[(f"d{sequence}", TaskRef(name="a"))]))
    assert left(store) == 3
    assert "b94" not in table(store)
    assert len(table(store)) == 94 + 8 * 7 + 7


def test_short_tasks_are_never_rows(store: SqlStore) -> None:
    """Only tasks that outlive the journal become rows; a burst is moved earlier, so the journal is bounded."""
    for sequence in range(1, 9):
        gone = [(f"t{sequence - 2}", sequence - 2)] if sequence > 2 else []
        store.commit(changes(sequence, tracked=[(f"t{sequence}", TaskRef(name="a"))], forgotten=gone))
        assert (table(store), left(store)) == (set(), min(sequence, 3))
    store.commit(changes(9, tracked=[(f"b{number}", TaskRef(name="a")) for number in range(20)]))
    store.commit(changes(10, tracked=[("c", TaskRef(name="a"))]))
    assert (len(table(store)), left(store)) == (20 + 2, 1)


@pytest.mark.parametrize("odd", [TaskRef(name="\ud800"), TaskRef(due_at=float("nan")), TaskRef(seen_minute=2**63)])
def test_values_that_no_database_takes(store: SqlStore, odd: TaskRef) -> None:
    """They are stored as closely as possible, at any flush."""
    for sequence, tracked in enumerate(([("u", odd)], [("v", TaskRef(name="b"))], [], [], []), 1):
        store.commit(changes(sequence, tracked=tracked))
    assert (table(store), left(store)) == ({"u", "v"}, 0)
    store.stop()
    assert [uuid for uuid, _ in store.start().tracked] == ["u", "v"]


def test_an_odd_id_is_removed_as_well(store: SqlStore) -> None:
    """Under its stored name, from the table and the journal."""
    store.commit(changes(1, tracked=[("u\0", TaskRef(name="a\0"))]))
    for sequence in range(2, 5):
        store.commit(changes(sequence))
    assert len(table(store)) == 1
    store.commit(changes(5, forgotten=[("u\0", 1)]))
    store.stop()
    assert list(store.start().tracked) == []
    for sequence in range(6, 9):
        store.commit(changes(sequence))
    assert (table(store), left(store)) == (set(), 0)


@pytest.mark.parametrize("value", [b"\xc1", b"\x92\x91\x92\xa1u\x91\x05\x90", b"\x92\x91\x92\xa1u\x80\x90", b"\x05"])
def test_a_value_that_is_not_ours_is_left_out(store: SqlStore, value: bytes) -> None:
    """A damaged row of the journal loses its contents and does not prevent the start."""
    store.commit(changes(1, tracked=[("u", TaskRef(name="a"))]))
    store.commit(changes(2, tracked=[("v", TaskRef(name="a"))]))
    with store._database.write() as connection:
        connection.execute(text("UPDATE tracked_changes SET body = :body WHERE sequence = 1"), {"body": value})
    store.stop()
    assert [uuid for uuid, _ in store.start().tracked] == ["v"]
    for sequence in range(3, 6):
        store.commit(changes(sequence))
    assert (table(store), left(store)) == ({"v"}, 0)


def test_values_that_repeat_are_one_object_after_a_start(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a live stream: otherwise a start needs half as much memory again."""
    monkeypatch.setattr(tracked_journal, "MAX_YOUNG", 2)  # the last flush stays in the journal, the first is moved
    task = TaskRef("shop.pay", "mail", host="celery@box", seen_minute=29_398_335)
    for sequence in range(2):
        sent, started = structs.replace(task, due_at=1.5, sent_at=1.5), structs.replace(task, started_at=2.5)
        tracked = [(f"{sequence}sent", sent), (f"{sequence}started", started)]
        store.commit(changes(sequence + 1, tracked=tracked))
    store.stop()
    restored = dict(store.start().tracked)
    assert len(table(store)) == 2
    for one, other in (("0sent", "0started"), ("1sent", "1started")):
        for field in ("name", "queue", "host", "seen_minute", "received_at"):
            assert getattr(restored[one], field) is getattr(restored[other], field), (one, field)
        assert restored[one].due_at is restored[one].sent_at
        assert restored[other].due_at is restored[other].sent_at
    assert restored["1started"].started_at == 2.5
