"""The tables that migrations make are those that the statements speak of, in each dialect."""

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Dialect, create_engine
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from celery_monitor.adapters.store import migrate, open_store
from celery_monitor.adapters.store.enqueue import Enqueuer
from celery_monitor.adapters.store.flush import FlushWriter
from celery_monitor.adapters.store.schema import metadata


def test_migrations_make_the_schema(tmp_path: Path) -> None:
    """A migrated file has the tables, columns and indexes of ``schema``, no more and no less."""
    store = open_store(f"sqlite:///{tmp_path}/store.db", retention=1, fingerprints_kept=1)
    store.start()
    store.stop()
    engine = create_engine(f"sqlite:///{tmp_path}/store.db")
    with engine.connect() as connection:
        options = {"version_table": migrate.VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_same_sql_as_schema(tmp_path: Path) -> None:
    """What is not compared by Alembic (partial indexes, tables without row ids) is the same, too."""
    store = open_store(f"sqlite:///{tmp_path}/store.db", retention=1, fingerprints_kept=1)
    store.start()
    store.stop()
    dialect = sqlite.dialect()
    wanted = {table.name: str(CreateTable(table).compile(dialect=dialect)) for table in metadata.tables.values()}
    for table in metadata.tables.values():
        wanted |= {str(index.name): str(CreateIndex(index).compile(dialect=dialect)) for index in table.indexes}
    connection = sqlite3.connect(tmp_path / "store.db")
    found = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    connection.close()
    del found[migrate.VERSION_TABLE], found["sqlite_sequence"]
    assert {name: _plain(sql) for name, sql in found.items()} == {name: _plain(sql) for name, sql in wanted.items()}


DIALECTS: list[Dialect] = [
    sqlite.dialect(),
    postgresql.dialect(paramstyle="format"),  # type: ignore[no-untyped-call]  # SQLAlchemy has no type for it
]


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_dialects(dialect: Dialect) -> None:
    """Every prepared statement and every table can be said in SQLite's SQL and in PostgreSQL's."""
    FlushWriter(dialect, fingerprints_kept=1)
    Enqueuer(dialect)
    for table in metadata.tables.values():
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=dialect))


def _plain(sql: str) -> str:
    """Without what only differs in layout."""
    for mark in "(),":
        sql = sql.replace(mark, f" {mark} ")
    return " ".join(sql.split())
