"""Times by hour and lengths of queues: what a flush writes of them, what is read, and what is past the retention."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Table,
    and_,
    case,
    delete,
    func,
    literal_column,
    or_,
    select,
    tuple_,
)

from celery_monitor.adapters.store import encode, schema
from celery_monitor.adapters.store.periods import begun_by, between
from celery_monitor.adapters.store.statements import Bulk, insert
from celery_monitor.adapters.store.validation import RowId
from celery_monitor.core import hourly
from celery_monitor.core.model import Cells, Changes, Checkpoint, HourRow, QueueLengthRow, Series, SeriesKey

_CHECKPOINT: Final = ("name", "queue", "host", "start", "runtime", "wait", "last")
_LENGTH: Final = ("start", "queue", "looks", "total", "longest")
_AT_ONCE: Final = 1_000
LENGTH_POSITION: Final = tuple[str, RowId]
_StoredCells = tuple[tuple[float | None, int], ...]


class HourlyWriter:
    """Writes checkpoints and lengths of queues."""

    def __init__(self, dialect: Dialect) -> None:
        self._checkpoints = Bulk(dialect, insert(dialect, schema.checkpoints), _CHECKPOINT)
        self._lengths = _lengthen(dialect)

    def write(self, connection: Connection, changes: Changes, yield_point: Callable[[], None]) -> None:
        """Those of a flush."""
        self._checkpoints.run(connection, map(_checkpoint_row, changes.checkpoints), yield_point)
        rows = ((delta.start, delta.queue, delta.looks, delta.total, delta.longest) for delta in changes.queue_lengths)
        self._lengths.run(connection, rows, yield_point)

    def end(self, connection: Connection, series: Iterable[Series], at: float) -> None:
        """These series, used last at ``at`` or before, are dropped: what they measured stays in their last hours."""
        start = int(at // hourly.HOUR) * hourly.HOUR
        measured = (one for one in series if any(one.runtime.counts) or any(one.wait.counts))
        self._checkpoints.run(connection, (_checkpoint_row(hourly.ending(one, start)) for one in measured))


def expire(connection: Connection, before: float, *, limit: int) -> int:
    """Delete at most ``limit`` of each that begin at ``before`` or earlier. Returns how many."""
    table, lengths = schema.checkpoints, schema.queue_lengths
    oldest = select(table.c.id).order_by(table.c.id).limit(limit)  # hours come in order: only the oldest are looked at
    deleted = connection.execute(delete(table).where(table.c.id.in_(oldest), begun_by(table.c.start, before))).rowcount
    key = tuple_(lengths.c.start, lengths.c.queue)
    old = select(lengths.c.start, lengths.c.queue).where(begun_by(lengths.c.start, before)).order_by(lengths.c.start)
    return deleted + connection.execute(delete(lengths).where(key.in_(old.limit(limit)))).rowcount


def task_hours(connection: Connection, name: str, since: float, until: float) -> list[HourRow]:
    """See Reader."""
    return _hours(connection, lambda table: [table.c.name == name], since, until)


def queue_hours(connection: Connection, queue: str, since: float, until: float) -> list[HourRow]:
    """See Reader. By the names of its tasks: no index knows the queues of checkpoints."""
    totals = schema.task_totals
    names = select(totals.c.name).where(totals.c.queue == queue)
    return _hours(connection, lambda table: [table.c.name.in_(names), table.c.queue == queue], since, until)


def _hours(
    connection: Connection, wanted: Callable[[Table], list[ColumnElement[bool]]], since: float, until: float
) -> list[HourRow]:
    """``wanted``: which rows of the two tables. The series are those of the same flush as the checkpoints.

    Checkpoints pass through in portions: of a task with very many queues and hosts there are some 100,000 in a week.
    """
    table, series = schema.checkpoints, schema.series
    columns = [table.c[column] for column in _CHECKPOINT]
    query = select(*columns).where(*wanted(table), *between(table.c.start, since, None)).order_by(table.c.id)
    totals = [encode.series_value(row) for row in connection.execute(select(series).where(*wanted(series)))]
    checkpoints = map(_checkpoint, connection.execute(query, execution_options={"yield_per": _AT_ONCE}))
    return [row for row in hourly.hours(checkpoints, totals) if row.start < until]


def queue_lengths(
    connection: Connection, since: float, until: float, *conditions: ColumnElement[bool], step: int, limit: int
) -> list[QueueLengthRow]:
    """See Reader. The first ``limit`` of those wanted."""
    table = schema.queue_lengths
    # No parameter: PostgreSQL takes two of them for two expressions, and refuses the grouping.
    start = (table.c.start - table.c.start % literal_column(str(int(step)))).label("span")
    sums = func.sum(table.c.total), func.sum(table.c.looks), func.max(table.c.longest)
    query = select(table.c.queue, start, *sums).where(*between(table.c.start, since, until), *conditions)
    query = query.group_by(table.c.queue, start).order_by(table.c.queue, start).limit(limit)
    rows: list[Any] = list(connection.execute(query))
    return [QueueLengthRow(row[0], int(row[1]), float(row[2]) / float(row[3]), int(row[4])) for row in rows]


def after(queue: str, start: int) -> ColumnElement[bool]:
    """Lengths from a time on of one queue, and all of those that follow it."""
    table = schema.queue_lengths
    return or_(table.c.queue > queue, and_(table.c.queue == queue, table.c.start >= start))


def _checkpoint_row(checkpoint: Checkpoint) -> tuple[Any, ...]:
    key = checkpoint.key
    return (
        key.name,
        key.queue,
        key.host,
        checkpoint.start,
        encode.to_json(checkpoint.runtime),
        encode.to_json(checkpoint.wait),
        checkpoint.last,
    )


def _checkpoint(row: Any) -> Checkpoint:  # noqa: ANN401 - SQLAlchemy's rows of many columns have no type
    name, queue, host, start, runtime, wait, last = row
    return Checkpoint(start, SeriesKey(name, queue, host), _cells(runtime), _cells(wait), last=bool(last))


def _cells(text: str) -> Cells:
    """JSON has no infinity: it is null there."""
    stored = encode.parsed(text, _StoredCells)
    return tuple((math.inf if bound is None else bound, count) for bound, count in stored)


def _lengthen(dialect: Dialect) -> Bulk:
    """Add up what was found of a queue, and keep the greatest length."""
    table = schema.queue_lengths
    statement = insert(dialect, table)
    new = statement.excluded
    changed = {
        "looks": table.c.looks + new.looks,
        "total": table.c.total + new.total,
        "longest": case((new.longest > table.c.longest, new.longest), else_=table.c.longest),
    }
    keys = [column.name for column in table.primary_key]
    return Bulk(dialect, statement.on_conflict_do_update(index_elements=keys, set_=changed), _LENGTH)
