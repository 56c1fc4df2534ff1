"""The migrations create the tables that the statements use, in each dialect."""

import copy
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from msgspec import structs
from sqlalchemy import Connection, Dialect, Engine, create_engine, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from celery_monitor.adapters.store import SqlStore, migrate, open_store
from celery_monitor.adapters.store.enqueue import Enqueuer
from celery_monitor.adapters.store.flush import FlushWriter
from celery_monitor.adapters.store.schema import metadata
from celery_monitor.adapters.store.tracked_journal import YOUNG_FLUSHES
from celery_monitor.core.model import HistoryRow, TaskRef
from tests.contracts.values import changes
from tests.servers.postgresql import PostgreSQL

Made = Callable[[Connection], None]
MADE: list[Made] = [migrate.create, partial(migrate.migrate, to="head")]


@pytest.mark.parametrize("made", MADE, ids=["new", "migrated"])
def test_the_schema(tmp_path: Path, made: Made) -> None:
    """A new file and a migrated one have the tables, columns and indexes of ``schema``, no more and no less.

    What is not compared by Alembic (partial indexes, tables without row ids) is the same, too.
    """
    engine = create_engine(f"sqlite:///{tmp_path}/store.db")
    with engine.begin() as connection:
        made(connection)
        options = {"version_table": migrate.VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        assert migrate.revision(connection) == _newest()
        assert migrate.check(connection, "here")
        rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").all()
        found: dict[str, str] = dict(map(tuple, rows))
    engine.dispose()
    dialect = sqlite.dialect()
    wanted = {table.name: str(CreateTable(table).compile(dialect=dialect)) for table in metadata.tables.values()}
    for table in metadata.tables.values():
        wanted |= {str(index.name): str(CreateIndex(index).compile(dialect=dialect)) for index in table.indexes}
    wanted[migrate.VERSION_TABLE] = (
        f"CREATE TABLE {migrate.VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, "
        f"CONSTRAINT {migrate.VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
    )
    del found["sqlite_sequence"]
    assert {name: _plain(sql) for name, sql in found.items()} == {name: _plain(sql) for name, sql in wanted.items()}


def _newest() -> str | None:
    return ScriptDirectory(str(Path(migrate.__file__).with_name("migrations"))).get_current_head()


def test_each_file_begins_with_its_revision() -> None:
    """The names of the files equal Alembic's revisions: one line without a branch."""
    scripts = ScriptDirectory(str(Path(migrate.__file__).with_name("migrations")))
    assert migrate.revisions() == [script.revision for script in scripts.walk_revisions()][::-1]


def test_a_start_needs_no_alembic(tmp_path: Path) -> None:
    """A new store and a current one are opened without it; an older one is migrated."""
    url = f"sqlite:///{tmp_path}/store.db"
    script = (
        "import sys\n"
        "from celery_monitor.adapters.store import open_store\n"
        "for number in range(2):\n"
        "    store = open_store(sys.argv[1], retention=1, fingerprint_window=1)\n"
        "    store.start()\n"
        "    store.stop()\n"
        "print('alembic' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, url], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "False\n"


SENT = [
    # key, delivered_at, delivered_count, delivery_error; its outbox rows: action, state, attempts
    ("delivered", 5.0, 3, None, [("trigger", "delivered", 1)]),
    ("grew", 5.0, 3, None, [("trigger", "delivered", 0), ("trigger", "pending", 0)]),
    ("refused later", 5.0, 3, "400", [("trigger", "delivered", 0), ("trigger", "dead", 4)]),
    ("waits", None, 0, "503", [("trigger", "pending", 2)]),
    ("resolved", 5.0, 1, None, [("trigger", "delivered", 0), ("resolve", "delivered", 0)]),
    ("to be resolved", 5.0, 1, None, [("trigger", "delivered", 0), ("resolve", "pending", 1)]),
    ("kept longer than its rows", 5.0, 9, None, []),
    ("suppressed", None, 0, None, []),
]
DELIVERIES = {
    # state, attempts, error, delivered_at, delivered_count, receipt
    "delivered": ("delivered", 2, None, 5.0, 3, "delivered"),
    "grew": ("pending", 1, None, 5.0, 3, "grew"),
    "refused later": ("dead", 5, "400", 5.0, 3, "refused later"),
    "waits": ("pending", 2, "503", None, 0, None),
    "resolved": ("delivered", 2, None, 5.0, 1, "resolved"),
    "to be resolved": ("pending", 2, None, 5.0, 1, "to be resolved"),
    "kept longer than its rows": ("delivered", 0, None, 5.0, 9, "kept longer than its rows"),
}


def test_deliveries_of_an_older_store(tmp_path: Path) -> None:
    """Each incident's state becomes its delivery on the only channel; waiting rows still wait, once."""
    engine = create_engine(f"sqlite:///{tmp_path}/store.db")
    check_deliveries(engine)
    engine.dispose()


def test_deliveries_of_an_older_store_on_a_server(postgresql: PostgreSQL) -> None:
    """The same on PostgreSQL."""
    engine = create_engine(postgresql.new_database().replace("postgresql://", "postgresql+psycopg://"))
    check_deliveries(engine)
    engine.dispose()


def check_deliveries(engine: Engine) -> None:
    """Migrate the data of an older version, and check it."""
    row = (
        "INSERT INTO outbox"
        " (channel, key, action, route, revision, attempts, created_at, due_at, refreshed_due_at, state)"
        " VALUES (:channel, :key, :action, '', 1, :attempts, 1, 1, 1, :state)"
    )
    names = ("delivered_at", "delivered_count", "delivery_error")
    remaining = text("SELECT key, channel, action, route, attempts, due_at, state FROM outbox ORDER BY id")
    with engine.begin() as connection:
        migrate.migrate(connection, "0009")
        incident = (
            "INSERT INTO incidents"
            " (key, state, opened_at, first_at, body, delivered_at, delivered_count, delivery_error)"
            " VALUES (:key, 'open', 1, 1, '{}', :delivered_at, :delivered_count, :delivery_error)"
        )
        for key, *sent, rows in SENT:
            connection.execute(text(incident), {"key": key, **dict(zip(names, sent, strict=True))})
            for action, state, attempts in rows:
                values = {"channel": "pagerduty", "key": key, "action": action, "attempts": attempts, "state": state}
                connection.execute(text(row), values)
        mail = {"channel": "email", "key": "2026-11-22", "action": "report", "attempts": 0, "state": "pending"}
        connection.execute(text(row), mail)
        before = connection.execute(remaining).all()
    with engine.begin() as connection:
        migrate.upgrade(connection)
        assert connection.execute(remaining).all() == before
        found = {one[0]: tuple(one[1:]) for one in connection.execute(text("SELECT * FROM deliveries"))}
    assert found == {key: ("pagerduty", *delivery) for key, delivery in DELIVERIES.items()}


def test_sums_of_an_older_store(tmp_path: Path) -> None:
    """The fleet's sums equal the buckets of the older version; tasks and workers stay."""
    check_sums(f"sqlite:///{tmp_path}/store.db", tmp_path)


def test_sums_of_an_older_store_on_a_server(postgresql: PostgreSQL, tmp_path: Path) -> None:
    """The same on PostgreSQL."""
    check_sums(postgresql.new_database(), tmp_path)


def check_sums(url: str, directory: Path) -> None:
    """Migrate the data of an older version, read it, and let it expire."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        migrate.migrate(connection, "0015")
        bucket = "INSERT INTO buckets VALUES (:start, :name, 'q', 1, 1, 1, :succeeded, :failed, 0, 0, 0, 0.5, 1)"
        total = "INSERT INTO task_totals VALUES (:name, 'q', 3, 3, 3, :succeeded, :failed, 0, 0, 0, 1.5, 3, NULL)"
        for name, succeeded, failed in (("a", 2**40, 0), ("b", 1, 2**41)):
            values = {"name": name, "succeeded": succeeded, "failed": failed}
            for start in (0, 900, 1800):
                connection.execute(text(bucket), {"start": start, **values})
            connection.execute(text(total), {**values, "succeeded": 3 * succeeded, "failed": 3 * failed})
        tracked = "INSERT INTO tracked VALUES ('u', 'a', 'q', 2, -5, 1, 1, 'h', NULL)"
        connection.execute(text(tracked))
        worker = "INSERT INTO workers VALUES (:host, :up, 7, 0, 1, 1, '', '', '', 1, 0, 0, 0, 0, :up)"
        for host, up in (("up", True), ("down", False)):
            connection.execute(text(worker), {"host": host, "up": up})
    engine.dispose()
    store = open_store(url, directory=directory, retention=900, fingerprint_window=1)
    restored = store.start()
    assert restored.tracked == [
        ("u", TaskRef(name="a", queue="q", stage=2, due_at=-5.0, started_at=1.0, seen_minute=1, saved=1, host="h"))
    ]
    # Whether one that is down said good-bye was not kept: it is taken for one that may finish what it runs.
    lives = {one.hostname: (one.began_at, one.goodbye_at, one.goodbye_sign) for one in restored.workers}
    assert lives == {"up": (0.0, 0.0, 0.0), "down": (0.0, 7.0, 7.0)}
    counts = (2, 2, 2, 2**40 + 1, 2**41, 0, 0, 0)
    assert store.reader.history(0, 2700, step=900) == [HistoryRow("", at, counts, 1.0, 2) for at in (0, 900, 1800)]
    store.prune(2700)
    assert [row.start for row in store.reader.history(0, 2700, step=900)] == [1800]
    assert [row.name for row in store.reader.failing(0, 2700)] == ["b"]
    store.stop()


def test_unfinished_tasks_of_an_older_store(tmp_path: Path) -> None:
    """Those in the table and in the journal are restored once, continue, and can be removed."""
    check_unfinished(f"sqlite:///{tmp_path}/store.db", tmp_path)


def test_unfinished_tasks_of_an_older_store_on_a_server(postgresql: PostgreSQL, tmp_path: Path) -> None:
    """The same on PostgreSQL."""
    check_unfinished(postgresql.new_database(), tmp_path)


def check_unfinished(url: str, directory: Path) -> None:
    """Migrate rows and a journal from before revision 0024, where an ID alone was the key, and continue them."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        migrate.migrate(connection, "0023")
        row = "INSERT INTO tracked (uuid, name, stage, due_at, started_at, seen) VALUES (:uuid, 'row', 0, 0, 0, 1)"
        for uuid in ("", "row", "ended row", "updated row", "row that ends"):
            connection.execute(text(row), {"uuid": uuid})
        journal: tuple[tuple[list[tuple[str, bool]], list[str]], ...] = (
            # As stored: the entry's ninth field holds further runs, and its seventh whether it was saved before.
            ([("new", False), ("updated", False), ("ended", False), ("new that ends", False)], []),
            ([("updated", True), ("updated row", True)], ["ended row", "ended"]),
        )
        for sequence, (entries, removed) in enumerate(journal, 1):
            run = ["run", "q", 2, 0.0, 0.0, 0, False, "celery@b", None, 0.0, 0.0, None]
            fields = [f"flush {sequence}", "q", 2, 0.0, 1.5, 7]
            stored = [[uuid, [*fields, saved, "celery@a", [run], 0.0, 0.0, None]] for uuid, saved in entries]
            body = msgspec.msgpack.encode((stored, removed))
            insert = text("INSERT INTO tracked_changes VALUES (:sequence, :body)")
            connection.execute(insert, {"sequence": sequence, "body": body})
    engine.dispose()
    store = open_store(url, directory=directory, retention=900, fingerprint_window=1)
    restored = dict(store.start().tracked)
    with store._database.write() as connection:
        connection.execute(text("UPDATE meta SET sequence = 2"))
    names = {
        "": "row",
        "row": "row",
        "row that ends": "row",
        "updated row": "flush 2",
        "new": "flush 1",
        "updated": "flush 2",
    }
    assert {uuid: ref.name for uuid, ref in restored.items()} == {**names, "new that ends": "flush 1"}
    assert restored["updated"].others == [TaskRef("run", "q", 2, host="celery@b")]
    continued = [(uuid, structs.replace(restored[uuid], name="flush 3")) for uuid in ("row", "new", "updated")]
    gone = [(uuid, restored[uuid].saved) for uuid in ("row that ends", "new that ends")]
    store.commit(changes(3, tracked=continued, forgotten=gone))
    names = {"": "row", "row": "flush 3", "new": "flush 3", "updated": "flush 3", "updated row": "flush 2"}
    last = 3
    for _ in ("in the journal", "in the table"):
        assert {uuid: ref.name for uuid, ref in store.reader.tracked(99)} == names
        store.stop()
        restored = dict(store.start().tracked)
        assert {uuid: ref.name for uuid, ref in restored.items()} == names
        last = pass_flushes(store, last)
    store.commit(changes(last + 1, forgotten=[(uuid, ref.saved) for uuid, ref in restored.items()]))
    pass_flushes(store, last + 1)
    with store._database.read() as reading:
        for table in ("tracked", "tracked_changes"):
            assert reading.scalar(text(f"SELECT count(*) FROM {table}")) == 0  # noqa: S608 - only fixed names
    store.stop()


def test_many_unfinished_tasks_of_an_older_store(tmp_path: Path) -> None:
    """SQLite moves them to a new table in portions, within the space of the old one."""
    engine = create_engine(f"sqlite:///{tmp_path}/store.db")
    row = "INSERT INTO tracked (uuid, name, stage, due_at, started_at, seen) VALUES (:uuid, 'n', 0, 0, 0, 1)"
    uuids = [f"task {number}" for number in range(25_001)]
    pages = text("SELECT page_count FROM pragma_page_count")
    with engine.begin() as connection:
        migrate.migrate(connection, "0023")
        connection.execute(text(row), [{"uuid": uuid} for uuid in uuids])
        before = connection.scalar(pages)
        migrate.upgrade(connection)
        rows = connection.execute(text("SELECT saved, uuid, name FROM tracked")).all()
        assert sorted(map(tuple, rows)) == sorted((1, uuid, "n") for uuid in uuids)
        assert connection.scalar(pages) < 1.6 * before
    engine.dispose()


def pass_flushes(store: SqlStore, last: int) -> int:
    """Commit as many empty flushes as move all changes from the journal to the table. Returns the last sequence."""
    for sequence in range(last + 1, last + 1 + YOUNG_FLUSHES):
        store.commit(changes(sequence))
    return last + YOUNG_FLUSHES


DIALECTS: list[Dialect] = [
    sqlite.dialect(),
    postgresql.dialect(paramstyle="format"),  # type: ignore[no-untyped-call]  # SQLAlchemy has no type for it
]


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_dialects(dialect: Dialect) -> None:
    """Every prepared statement and table can be compiled for SQLite and PostgreSQL."""
    FlushWriter(dialect, fingerprint_window=1)
    Enqueuer(dialect)
    for table in metadata.tables.values():
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=dialect))


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_the_second_store_of_a_process_compiles_no_statements(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each statement of a flush is compiled once per process; limits are parameters of the shared statements."""

    class Refusing(type(dialect).statement_compiler):  # type: ignore[misc]
        def __init__(self, *_: object, **__: object) -> None:
            raise AssertionError("a statement was compiled again")

    FlushWriter(dialect, fingerprint_window=1, max_ended=1)
    second = copy.copy(dialect)
    monkeypatch.setattr(second, "statement_compiler", Refusing)
    FlushWriter(second, fingerprint_window=2, max_ended=2)


def _plain(sql: str) -> str:
    """Without differences in layout."""
    for mark in "(),":
        sql = sql.replace(mark, f" {mark} ")
    return " ".join(sql.split())
