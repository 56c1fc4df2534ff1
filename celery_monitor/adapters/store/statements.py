"""Statements that are compiled once and run on many rows, and the upsert in every dialect.

SQLAlchemy's own executemany handles each row in Python and costs more than SQLite itself; here rows are tuples that go
straight to the driver. Of many rows to insert, one statement takes ROWS_AT_ONCE: for each statement sqlite3 gives up
the interpreter's lock, and beside a busy thread (a scrape) it has to wait before it gets it back.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final

from sqlalchemy import Compiled, Connection, Delete, Dialect, Table, Update, and_, bindparam, delete
from sqlalchemy.dialects import postgresql, sqlite

Insert = sqlite.Insert | postgresql.Insert

ROWS_AT_ONCE: Final = 100
"""More gain nothing. A row here has 16 values at most, and a statement may have 32,766 (SQLite) or 65,535."""


class Bulk:
    """One statement for many rows, each a tuple in the order of ``columns``."""

    def __init__(self, dialect: Dialect, statement: Insert | Update | Delete, columns: Sequence[str]) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=list(columns))
        self._sql: Final = _ordered(compiled, columns)
        self._many: str | None = None
        if isinstance(statement, Insert):
            rows: list[dict[str, Any]] = [
                {name: bindparam(f"{name}_{row}") for name in columns} for row in range(ROWS_AT_ONCE)
            ]
            order = [value.key for row in rows for value in row.values()]
            self._many = _ordered(statement.values(rows).compile(dialect=dialect), order)

    def run(self, connection: Connection, rows: Iterable[tuple[Any, ...]]) -> None:
        """Execute it for every row, in order."""
        rows = list(rows)
        done = 0
        if self._many is not None:
            for done in range(ROWS_AT_ONCE, len(rows) + 1, ROWS_AT_ONCE):
                values = tuple(chain.from_iterable(rows[done - ROWS_AT_ONCE : done]))
                connection.exec_driver_sql(self._many, values)
        if done < len(rows):
            connection.exec_driver_sql(self._sql, rows[done:])


def _ordered(compiled: Compiled, columns: Sequence[str]) -> str:
    """The text of a statement that takes its values in this order."""
    order: Sequence[str] = getattr(compiled, "positiontup", None) or ()
    if list(order) != list(columns):
        raise TypeError(f"{compiled} takes {order}, not {columns}")
    return str(compiled)


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
