"""Statements that are compiled once and run on many rows, and the upsert in every dialect.

SQLAlchemy's own executemany handles each row in Python and costs more than SQLite itself; here rows are tuples that go
straight to the driver. One statement takes many of them: for each one sqlite3 gives up the interpreter's lock, and
beside a busy thread (a scrape) both pay for every change of hands.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from typing import Any, Final

from sqlalchemy import Compiled, Connection, Delete, Dialect, Table, Update, and_, bindparam, delete
from sqlalchemy.dialects import postgresql, sqlite

Insert = sqlite.Insert | postgresql.Insert

_INSERTED: Final = (512, 64, 8)
"""Rows that one statement inserts. A row has 16 values at most, and a statement may have 32,766 (SQLite) or 65,535."""
_REMOVED: Final = (64, 8)


class Bulk:
    """One statement for many rows, each a tuple in the order of ``columns``."""

    def __init__(self, dialect: Dialect, statement: Insert | Update | Delete, columns: Sequence[str]) -> None:
        if isinstance(statement, Insert):
            statement = statement.inline()  # nobody asks for the new keys, and PostgreSQL would return them
        compiled = statement.compile(dialect=dialect, column_keys=list(columns))
        self._sql: Final = _ordered(compiled, columns)
        self._many: dict[int, str] = {}
        """Rows at once, the most first, and the text for so many."""
        if isinstance(statement, Insert):
            self._many = {rows: _repeated(self._sql, rows) for rows in _INSERTED}
            types = statement.table.c
            pair: list[dict[str, Any]] = [
                {name: bindparam(f"{name}_{row}", type_=types[name].type) for name in columns} for row in range(2)
            ]
            order = [value.key for row in pair for value in row.values()]
            if _ordered(statement.values(pair).compile(dialect=dialect), order) != _repeated(self._sql, 2):
                raise TypeError(f"{compiled} does not take its rows one after the other")

    def run(
        self, connection: Connection, rows: Iterable[tuple[Any, ...]], give_way: Callable[[], None] = lambda: None
    ) -> None:
        """Execute it for every row, in order. ``give_way`` is called after each portion."""
        left = iter(rows)
        for at_once, sql in self._many.items():
            while len(portion := list(islice(left, at_once))) == at_once:
                connection.exec_driver_sql(sql, tuple(chain.from_iterable(portion)))
                give_way()
            left = iter(portion)
        if rest := list(left):
            connection.exec_driver_sql(self._sql, rest)


class Removal(Bulk):
    """Delete rows by their primary keys."""

    def __init__(self, dialect: Dialect, table: Table) -> None:
        keys = [column.name for column in table.primary_key]
        super().__init__(dialect, delete(table).where(and_(*(table.c[key] == bindparam(key) for key in keys))), keys)
        before, where, condition = self._sql.partition(" WHERE ")
        self._many = {rows: before + where + " OR ".join([condition] * rows) for rows in _REMOVED}


def _ordered(compiled: Compiled, columns: Sequence[str]) -> str:
    """The text of a statement that takes its values in this order."""
    order: Sequence[str] = getattr(compiled, "positiontup", None) or ()
    if list(order) != list(columns):
        raise TypeError(f"{compiled} takes {order}, not {columns}")
    return str(compiled)


def _repeated(sql: str, rows: int) -> str:
    """The text of an insert of one row, for so many. SQLAlchemy would take a tenth of a second for the largest."""
    before, values, rest = sql.partition(" VALUES ")
    row, end, after = rest.partition(")")
    return before + values + ", ".join([row + end] * rows) + after


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
