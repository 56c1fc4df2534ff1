"""Statements that are compiled once and run for many rows, and the upsert.

SQLAlchemy's executemany processes each row in Python, which costs more than SQLite itself. Here, rows are tuples that
go directly to the driver, and the dialect defines how one statement takes many of them. ``Connection.exec_driver_sql``
would add some 25 µs per statement for hooks and results that are not used: a third of a commit of 500 events.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar, cast

from sqlalchemy import (
    Compiled,
    Connection,
    Delete,
    Dialect,
    Table,
    Update,
    and_,
    bindparam,
    delete,
    literal_column,
    select,
)

from celery_monitor.adapters.store.dialects import sql_of
from celery_monitor.adapters.store.dialects.base import Insert, Row, Statements

T = TypeVar("T")

_shared: Final[dict[tuple[object, ...], Any]] = {}


def shared(dialect: Dialect, build: Callable[[Dialect], T]) -> T:
    """The result of ``build`` for this kind of database, which is built only once per process.

    ``build`` is a class or function of a module, and its result must not change: stores and threads share it. To
    compile all statements takes longer than to open a database.
    """
    key = build, dialect.name, dialect.paramstyle
    if key not in _shared:
        _shared[key] = build(dialect)
    return cast("T", _shared[key])


class Bulk:
    """One statement for many rows, each a tuple in the order of ``columns``."""

    def __init__(self, dialect: Dialect, statement: Insert | Update | Delete, columns: Sequence[str]) -> None:
        if isinstance(statement, Insert):
            statement = statement.inline()  # otherwise PostgreSQL returns the new keys, which are not used
        compiled = statement.compile(dialect=dialect, column_keys=list(columns))
        self._statements: Statements = _RowByRow(_ordered(compiled, columns))
        if isinstance(statement, Insert):
            self._statements = sql_of(dialect).bulk_insert(compiled, cast("Table", statement.table), columns)

    def run(self, connection: Connection, rows: Iterable[Row], yield_point: Callable[[], None] = lambda: None) -> None:
        """Execute it for each row, in order. ``yield_point`` is called after each portion and may block briefly."""
        for sql, parameters in self._statements.batches(rows):
            cursor = connection.connection.cursor()
            if isinstance(parameters, tuple):
                cursor.execute(sql, parameters)
                yield_point()
            else:
                cursor.executemany(sql, parameters)


class Prepared:
    """One statement, compiled once: SQLAlchemy needs longer to build or look up a statement than SQLite to run it.

    Values that are passed to ``run`` are a ``bindparam`` each. SQLAlchemy does not convert them, so the driver must
    accept their types.
    """

    def __init__(self, dialect: Dialect, statement: Insert | Update | Delete) -> None:

        if isinstance(statement, Insert):
            statement = statement.inline()
        compiled = statement.compile(dialect=dialect)
        self._sql: Final = str(compiled)
        self._names: Final[Sequence[str]] = getattr(compiled, "positiontup", None) or ()
        self._constants: Final = {name: value for name, value in compiled.params.items() if value is not None}

    def run(self, connection: Connection, **values: object) -> int:
        """Execute it. Returns the number of rows that it changed, which is undefined within a pipeline."""
        bound = self._constants | values
        cursor = connection.connection.cursor()
        cursor.execute(self._sql, tuple(bound[name] for name in self._names))
        return cursor.rowcount


class Removal(Bulk):
    """Deletes rows by primary key."""

    def __init__(self, dialect: Dialect, table: Table) -> None:
        keys = [column.name for column in table.primary_key]
        statement = delete(table).where(and_(*(table.c[key] == bindparam(key) for key in keys)))
        super().__init__(dialect, statement, keys)
        compiled = statement.compile(dialect=dialect)
        self._statements = sql_of(dialect).bulk_delete(compiled, table, keys)


class Trimming(Bulk):
    """For each row (group,), deletes all but the ``keep`` rows of that group with the highest primary keys."""

    def __init__(self, dialect: Dialect, table: Table, group: str, keep: int) -> None:
        (key,) = table.primary_key
        member = table.alias()
        old = (
            select(member.c[key.name])
            .where(member.c[group] == bindparam("of_group"))
            .order_by(member.c[key.name].desc())
        )
        statement = delete(table).where(key.in_(old.limit(literal_column("-1")).offset(literal_column(str(keep)))))
        super().__init__(dialect, statement, ["of_group"])
        self._statements = sql_of(dialect).bulk_trim(statement.compile(dialect=dialect), table, group, keep)


class _RowByRow:
    """Executes the statement once per row."""

    def __init__(self, sql: str) -> None:
        self._sql: Final = sql

    def batches(self, rows: Iterable[Row]) -> Iterator[tuple[str, Row | list[Row]]]:
        """See Statements."""
        if all_rows := list(rows):
            yield self._sql, all_rows


def _ordered(compiled: Compiled, columns: Sequence[str]) -> str:
    """The SQL of a statement. Raises TypeError if it does not take its values in the order of ``columns``."""
    order: Sequence[str] = getattr(compiled, "positiontup", None) or ()
    if list(order) != list(columns):
        raise TypeError(f"{compiled} takes {order}, not {columns}")
    return str(compiled)


def insert(dialect: Dialect, table: Table) -> Insert:
    """An INSERT that supports ON CONFLICT."""
    return sql_of(dialect).insert(table)


def upsert(dialect: Dialect, table: Table, *, columns: Sequence[str] = (), add: Sequence[str] = ()) -> Bulk:
    """Insert rows of ``columns`` (default: all). If the key exists, add to the columns in ``add``; replace others."""
    names = list(columns) or [column.name for column in table.columns]
    statement = insert(dialect, table)
    keys = [column.name for column in table.primary_key]
    changed = {
        name: table.c[name] + statement.excluded[name] if name in add else statement.excluded[name]
        for name in names
        if name not in keys
    }
    return Bulk(dialect, statement.on_conflict_do_update(index_elements=keys, set_=changed), names)
