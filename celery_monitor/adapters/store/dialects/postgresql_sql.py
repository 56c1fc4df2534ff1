"""PostgreSQL: a statement's text for many rows.

Each column goes as one array, so the text is the same for any number of rows, is parsed at once, and knows no limit of
65,535 parameters. One INSERT may not name a key twice in ON CONFLICT DO UPDATE: the second one begins another portion.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, Compiled, Dialect, Double, LargeBinary, Table, Text
from sqlalchemy.dialects import postgresql

from celery_monitor.adapters.store.dialects.base import Row

_CHUNK_SIZE: Final = 2_000
"""Rows of one statement: some megabytes at most, so that neither side needs much memory for it."""
_TYPES: Final[Mapping[type[Any], str]] = {
    BigInteger: "bigint",
    Boolean: "boolean",
    Double: "double precision",
    LargeBinary: "bytea",
    Text: "text",
}


class PostgresqlSql:
    """See ``base.Sql``."""

    stores_nul = False

    def __init__(self, dialect: Dialect) -> None:
        self._quote = dialect.identifier_preparer.quote

    def insert(self, table: Table) -> postgresql.Insert:
        """See Sql."""
        return postgresql.insert(table)

    def inserting(self, one: Compiled, table: Table, columns: Sequence[str]) -> "Arrays":
        """See Sql."""
        before, _, rest = str(one).partition(" VALUES ")
        _, _, conflict = rest.partition(")")
        names = [column.name for column in table.primary_key]
        keys = [columns.index(name) for name in names if name in columns] if conflict else []
        return Arrays(f"{before} SELECT * FROM {self._arrays(table, columns)}{conflict}", keys)  # noqa: S608  # our names

    def deleting(self, one: Compiled, table: Table, keys: Sequence[str]) -> "Arrays":
        """See Sql."""
        before, _, _ = str(one).partition(" WHERE ")
        names = [self._quote(key) for key in keys]
        given = f"{self._arrays(table, keys)} AS given({', '.join(names)})"
        same = " AND ".join(f"{self._quote(table.name)}.{name} = given.{name}" for name in names)
        return Arrays(f"{before} USING {given} WHERE {same}", [])

    @staticmethod
    def _arrays(table: Table, columns: Sequence[str]) -> str:
        types = (_TYPES[type(table.c[name].type)] for name in columns)
        return f"unnest({', '.join(f'%b::{name}[]' for name in types)})"


class Arrays:
    """One text; no two rows of a portion have the same values in ``keys``."""

    def __init__(self, sql: str, keys: Sequence[int]) -> None:
        self._sql = sql
        self._keys = tuple(keys)

    def of(self, rows: Iterable[Row]) -> Iterator[tuple[str, Row | list[Row]]]:
        """See Statements."""
        chunk: list[Row] = []
        seen: set[Row] = set()
        for row in rows:
            if self._keys:
                key = tuple(row[index] for index in self._keys)
                if key in seen:
                    yield self._sql, _columns(chunk)
                    chunk, seen = [], set()
                seen.add(key)
            chunk.append(row)
            if len(chunk) == _CHUNK_SIZE:
                yield self._sql, _columns(chunk)
                chunk, seen = [], set()
        if chunk:
            yield self._sql, _columns(chunk)


def _columns(chunk: Sequence[Row]) -> Row:
    return tuple(map(list, zip(*chunk, strict=True)))
