"""PostgreSQL: a statement's text for many rows.

Each column goes as one array, so the text is the same for any number of rows, is parsed at once, and knows no limit of
65,535 parameters. One INSERT may not name a key twice in ON CONFLICT DO UPDATE: the second one begins another portion.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import index
from types import NoneType
from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, Compiled, Dialect, Double, LargeBinary, Table, Text
from sqlalchemy.dialects import postgresql

from celery_monitor.adapters.store.dialects.base import Row

_CHUNK_SIZE: Final = 2_000
"""Rows of one statement: some megabytes at most, so that neither side needs much memory for it."""
_TYPES: Final[Mapping[type[Any], tuple[str, type[Any]]]] = {
    BigInteger: ("bigint", int),
    Boolean: ("boolean", bool),
    Double: ("double precision", float),
    LargeBinary: ("bytea", bytes),
    Text: ("text", str),
}
"""The type of a column → its name in SQL, and what its values are in Python."""
_EXACTLY: Final[Mapping[type[Any], Callable[[Any], Any]]] = {int: index, str: str.__str__}
"""How a value of a subclass becomes one of the type; what is of another one is refused."""


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
        text = f"{before} SELECT * FROM {_arrays(table, columns)}{conflict}"  # noqa: S608  # names of ours only
        return Arrays(text, _kinds(table, columns), keys)

    def deleting(self, one: Compiled, table: Table, keys: Sequence[str]) -> "Arrays":
        """See Sql."""
        before, _, _ = str(one).partition(" WHERE ")
        names = [self._quote(key) for key in keys]
        given = f"{_arrays(table, keys)} AS given({', '.join(names)})"
        same = " AND ".join(f"{self._quote(table.name)}.{name} = given.{name}" for name in names)
        return Arrays(f"{before} USING {given} WHERE {same}", _kinds(table, keys))


class Arrays:
    """One text, whose parameters are columns of these types; no two rows of a portion are the same in ``keys``."""

    def __init__(self, sql: str, kinds: Sequence[type[Any]], keys: Sequence[int] = ()) -> None:
        self._sql = sql
        self._kinds = kinds
        self._keys = tuple(keys)

    def of(self, rows: Iterable[Row]) -> Iterator[tuple[str, Row | list[Row]]]:
        """See Statements."""
        chunk: list[Row] = []
        seen: set[Row] = set()
        for row in rows:
            key = tuple(row[at] for at in self._keys)
            if len(chunk) == _CHUNK_SIZE or (key and key in seen):
                yield self._sql, self._columns(chunk)
                chunk, seen = [], set()
            seen.add(key)
            chunk.append(row)
        if chunk:
            yield self._sql, self._columns(chunk)

    def _columns(self, chunk: Sequence[Row]) -> Row:
        columns = zip(*chunk, strict=True)
        return tuple(_array(values, kind) for values, kind in zip(columns, self._kinds, strict=True))


def _array(values: Iterable[Any], kind: type[Any]) -> list[Any]:
    """The values of a column as psycopg takes them: all of one type. Raises ValueError for what is not a number."""
    found = list(values)
    if not {*map(type, found)} <= {kind, NoneType}:
        exactly = _EXACTLY.get(kind, kind)
        found = [None if value is None else exactly(value) for value in found]
    if kind is float and any(value != value for value in found):  # noqa: PLR0124  # NaN
        raise ValueError("not a number")
    return found


def _arrays(table: Table, columns: Sequence[str]) -> str:
    names = (_TYPES[type(table.c[name].type)][0] for name in columns)
    return f"unnest({', '.join(f'%b::{name}[]' for name in names)})"


def _kinds(table: Table, columns: Sequence[str]) -> list[type[Any]]:
    return [_TYPES[type(table.c[name].type)][1] for name in columns]
