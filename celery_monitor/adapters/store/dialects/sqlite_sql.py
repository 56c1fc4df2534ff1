"""SQLite: statements for many rows.

One statement processes many rows, because sqlite3 releases the interpreter lock for each statement. Beside a busy
thread, such as a scrape, each handover of the lock costs both threads time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final

from sqlalchemy import ColumnElement, Compiled, Connection, Dialect, Select, Table, literal_column
from sqlalchemy.dialects import sqlite

from celery_monitor.adapters.store.dialects.base import Row

_INSERTED: Final = (512, 64, 8)
"""Rows that one statement inserts. A row has at most 16 values, and a statement may have 32,766."""
_REMOVED: Final = (64, 8)


class SqliteSql:
    """See ``base.Sql``."""

    stores_nul = True

    def __init__(self, dialect: Dialect) -> None:
        del dialect

    def insert(self, table: Table) -> sqlite.Insert:
        """See Sql."""
        return sqlite.insert(table)

    def bulk_insert(self, single: Compiled, table: Table, columns: Sequence[str]) -> "Repeated":
        """See Sql. Builds the text itself, because SQLAlchemy takes a tenth of a second to compile the longest."""
        del table, columns
        head, values, tail = str(single).partition(" VALUES ")
        row, end, after = tail.partition(")")
        return Repeated(
            str(single), {rows: head + values + ", ".join([row + end] * rows) + after for rows in _INSERTED}
        )

    def bulk_delete(self, single: Compiled, table: Table, keys: Sequence[str]) -> "Repeated":
        """See Sql."""
        del table, keys
        head, keyword, condition = str(single).partition(" WHERE ")
        return Repeated(str(single), {rows: head + keyword + " OR ".join([condition] * rows) for rows in _REMOVED})

    def bulk_trim(self, single: Compiled, table: Table, group: str, keep: int) -> "Repeated":
        """See Sql."""
        del table, group, keep
        return Repeated(str(single), {})

    def portions(self, connection: Connection, query: Select[Any], size: int) -> Iterator[Sequence[Row]]:
        """See Sql. Fetches from the driver, because SQLAlchemy takes half as long again to wrap the rows."""
        compiled = query.compile(dialect=connection.dialect)
        names: Sequence[str] = getattr(compiled, "positiontup", None) or ()
        cursor = connection.connection.cursor()
        cursor.execute(str(compiled), tuple(compiled.params[name] for name in names))
        while rows := cursor.fetchmany(size):
            yield rows

    def without_index(self, column: ColumnElement[int]) -> ColumnElement[int]:
        """See Sql. To group 150,000 rows takes 100 ms with a sort, but 20 ms in the order of the other index."""
        return column + literal_column("0")

    def continuing(self, table: Table) -> Sequence[str]:
        """See Sql. AUTOINCREMENT does this by itself."""
        del table
        return ()


class Repeated:
    """Runs statements for many rows at once, and a statement for each of the remaining rows."""

    def __init__(self, single: str, many: Mapping[int, str]) -> None:
        """``many``: number of rows → statement, the highest number first."""
        self._single = single
        self._many = many

    def batches(self, rows: Iterable[Row]) -> Iterator[tuple[str, Row | list[Row]]]:
        """See Statements."""
        remaining = iter(rows)
        while chunk := list(islice(remaining, _INSERTED[0])):
            begin = 0
            for at_once, sql in self._many.items():
                while begin + at_once <= len(chunk):
                    yield sql, tuple(chain.from_iterable(chunk[begin : begin + at_once]))
                    begin += at_once
            if begin < len(chunk):
                yield self._single, chunk[begin:]
