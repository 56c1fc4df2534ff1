"""PostgreSQL: statements for many rows.

Each column is sent as one array. So the statement is the same for any number of rows, is parsed once, and never exceeds
the maximum of 65,535 parameters. An INSERT with ON CONFLICT DO UPDATE must not contain a key twice, so a repeated
key starts another statement.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Compiled,
    Connection,
    Dialect,
    Double,
    LargeBinary,
    Select,
    Table,
    Text,
)
from sqlalchemy.dialects import postgresql

from celery_monitor.adapters.store.dialects.base import Row
from celery_monitor.adapters.store.dialects.postgresql_arrays import Array, Bigints, Blobs, Booleans, Doubles, Texts

_CHUNK_SIZE: Final = 2_000
"""Rows of one statement: some megabytes at most, so that client and server need little memory for it."""
_TYPES: Final[Mapping[type[Any], tuple[str, type[Array]]]] = {
    BigInteger: ("bigint", Bigints),
    Boolean: ("boolean", Booleans),
    Double: ("double precision", Doubles),
    LargeBinary: ("bytea", Blobs),
    Text: ("text", Texts),
}
"""The type of a column → its name in SQL, and the type of array in which its values are sent."""


class PostgresqlSql:
    """See ``base.Sql``."""

    stores_nul = False

    def __init__(self, dialect: Dialect) -> None:
        self._quote = dialect.identifier_preparer.quote

    def insert(self, table: Table) -> postgresql.Insert:
        """See Sql."""
        return postgresql.insert(table)

    def bulk_insert(self, single: Compiled, table: Table, columns: Sequence[str]) -> "Arrays":
        """See Sql."""
        head, _, tail = str(single).partition(" VALUES ")
        _, _, conflict = tail.partition(")")
        names = [column.name for column in table.primary_key]
        keys = [columns.index(name) for name in names if name in columns] if conflict else []
        text = f"{head} SELECT * FROM {_arrays(table, columns)}{conflict}"  # noqa: S608  # only fixed names
        return Arrays(text, _kinds(table, columns), keys)

    def bulk_delete(self, single: Compiled, table: Table, keys: Sequence[str]) -> "Arrays":
        """See Sql."""
        head, _, _ = str(single).partition(" WHERE ")
        names = [self._quote(key) for key in keys]
        source = f"{_arrays(table, keys)} AS given({', '.join(names)})"
        same = " AND ".join(f"{self._quote(table.name)}.{name} = given.{name}" for name in names)
        return Arrays(f"{head} USING {source} WHERE {same}", _kinds(table, keys))

    def bulk_trim(self, single: Compiled, table: Table, group: str, keep: int) -> "Arrays":
        """See Sql."""
        head, _, _ = str(single).partition(" WHERE ")
        (key,) = (self._quote(column.name) for column in table.primary_key)
        name, group_column = self._quote(table.name), self._quote(group)
        order = f"WHERE each.{group_column} = given.{group_column} ORDER BY {key} DESC OFFSET {keep}"
        source = f"{_arrays(table, [group])} AS given({group_column})"
        old = f"{source}, LATERAL (SELECT {key} FROM {name} AS each {order}) AS old"  # noqa: S608  # only fixed names
        text = f"{head} WHERE {key} IN (SELECT old.{key} FROM {old})"  # noqa: S608  # as above
        return Arrays(text, _kinds(table, [group]))

    def portions(self, connection: Connection, query: Select[Any], size: int) -> Iterator[Sequence[Row]]:
        """See Sql. SQLAlchemy uses a cursor on the server."""
        for rows in connection.execution_options(yield_per=size).execute(query).partitions():
            yield [*map(tuple, rows)]

    def without_index(self, column: ColumnElement[int]) -> ColumnElement[int]:
        """See Sql. Not needed, because PostgreSQL groups by hashing."""
        return column

    def continuing(self, table: Table) -> Sequence[str]:
        """See Sql."""
        if table.autoincrement_column is None:
            return ()
        name, key = self._quote(table.name), self._quote(table.autoincrement_column.name)
        sequence = f"pg_get_serial_sequence('{name}', '{table.autoincrement_column.name}')"
        return [f"SELECT setval({sequence}, max({key})) FROM {name} HAVING max({key}) IS NOT NULL"]  # noqa: S608  # only fixed names


class Arrays:
    """A statement with one array per column as parameters. ``keys``: positions of the columns that must not repeat."""

    def __init__(self, sql: str, kinds: Sequence[type[Array]], keys: Sequence[int] = ()) -> None:
        self._sql = sql
        self._kinds = kinds
        self._key = itemgetter(*keys) if keys else None

    def batches(self, rows: Iterable[Row]) -> Iterator[tuple[str, Row | list[Row]]]:
        """See Statements."""
        remaining = iter(rows)
        while chunk := list(islice(remaining, _CHUNK_SIZE)):
            for portion in self._portions(chunk):
                yield self._sql, self._columns(portion)

    def _portions(self, chunk: list[Row]) -> Iterator[list[Row]]:
        """Portions in order. Each ends before the first row whose key it already contains."""
        if self._key is None:
            yield chunk
            return
        keys = list(map(self._key, chunk))
        if len({*keys}) == len(keys):
            yield chunk
            return
        begin = 0
        seen: set[Any] = set()
        for at, key in enumerate(keys):
            if key in seen:
                yield chunk[begin:at]
                begin, seen = at, set()
            seen.add(key)
        yield chunk[begin:]

    def _columns(self, chunk: Sequence[Row]) -> Row:
        columns = zip(*chunk, strict=True)
        return tuple(kind.from_values(values) for values, kind in zip(columns, self._kinds, strict=True))


def _arrays(table: Table, columns: Sequence[str]) -> str:
    names = (_TYPES[type(table.c[name].type)][0] for name in columns)
    return f"unnest({', '.join(f'%b::{name}[]' for name in names)})"


def _kinds(table: Table, columns: Sequence[str]) -> list[type[Array]]:
    return [_TYPES[type(table.c[name].type)][1] for name in columns]
