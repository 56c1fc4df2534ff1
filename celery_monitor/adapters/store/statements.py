"""Statements that are compiled once and run on many rows, and the upsert in every dialect.

SQLAlchemy's own executemany handles each row in Python and costs more than SQLite itself; here rows are tuples that go
straight to the driver.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Delete, Dialect, Table, Update, and_, bindparam, delete
from sqlalchemy.dialects import postgresql, sqlite

Insert = sqlite.Insert | postgresql.Insert


class Bulk:
    """One statement for many rows, each a tuple in the order of ``columns``."""

    def __init__(self, dialect: Dialect, statement: Insert | Update | Delete, columns: Sequence[str]) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=list(columns))
        order: Sequence[str] = getattr(compiled, "positiontup", None) or ()
        if list(order) != list(columns):
            raise TypeError(f"{statement} takes {order}, not {columns}")
        self._sql: Final = str(compiled)

    def run(self, connection: Connection, rows: Iterable[tuple[Any, ...]]) -> None:
        """Execute it for every row, in order."""
        rows = list(rows)
        if rows:
            connection.exec_driver_sql(self._sql, rows)


def insert(dialect: Dialect, table: Table) -> Insert:
    """An INSERT that knows ON CONFLICT."""
    return postgresql.insert(table) if dialect.name == "postgresql" else sqlite.insert(table)


def upsert(dialect: Dialect, table: Table, *, columns: Sequence[str] = (), add: Sequence[str] = ()) -> Bulk:
    """Insert rows of ``columns`` (default: all); where the key exists, replace the others, add to those in ``add``."""
    names = list(columns) or [column.name for column in table.columns]
    statement = insert(dialect, table)
    keys = [column.name for column in table.primary_key]
    changed = {
        name: table.c[name] + statement.excluded[name] if name in add else statement.excluded[name]
        for name in names
        if name not in keys
    }
    return Bulk(dialect, statement.on_conflict_do_update(index_elements=keys, set_=changed), names)


def remove(dialect: Dialect, table: Table) -> Bulk:
    """Delete rows by their primary keys."""
    keys = [column.name for column in table.primary_key]
    return Bulk(dialect, delete(table).where(and_(*(table.c[key] == bindparam(key) for key in keys))), keys)
