"""Run and wait times by hour, and lengths of queues: writing them with a flush, and deleting expired ones."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

from sqlalchemy import Connection, Dialect, case, delete, select, tuple_

from celery_monitor.adapters.store import encode, schema
from celery_monitor.adapters.store.periods import up_to
from celery_monitor.adapters.store.statements import Bulk, insert
from celery_monitor.core import hourly
from celery_monitor.core.model import Cells, Changes, Checkpoint, Series, SeriesKey

CHECKPOINT: Final = ("name", "queue", "host", "start", "runtime", "wait", "last")
_LENGTH: Final = ("start", "queue", "looks", "total", "longest")
_StoredCells = tuple[tuple[float | None, int], ...]


class HourlyWriter:
    """Writes checkpoints and lengths of queues."""

    def __init__(self, dialect: Dialect) -> None:
        self._checkpoints = Bulk(dialect, insert(dialect, schema.checkpoints), CHECKPOINT)
        self._lengths = _lengthen(dialect)

    def write(self, connection: Connection, changes: Changes, yield_point: Callable[[], None]) -> None:
        """Write the checkpoints and queue lengths of a flush."""
        self._checkpoints.run(connection, map(_checkpoint_row, changes.checkpoints), yield_point)
        rows = ((delta.start, delta.queue, delta.looks, delta.total, delta.longest) for delta in changes.queue_lengths)
        self._lengths.run(connection, rows, yield_point)

    def end(self, connection: Connection, series: Iterable[Series], at: float) -> None:
        """Write final checkpoints of series that are dropped, so that their hours stay. None was used after ``at``."""
        start = int(at // hourly.HOUR) * hourly.HOUR
        measured = (one for one in series if any(one.runtime.counts) or any(one.wait.counts))
        self._checkpoints.run(connection, (_checkpoint_row(hourly.ending(one, start)) for one in measured))


def expire(connection: Connection, before: float, *, limit: int) -> int:
    """Delete checkpoints and lengths that start at ``before`` or earlier, at most ``limit`` of each.

    Returns the number of deleted rows.
    """
    table, lengths = schema.checkpoints, schema.queue_lengths
    oldest = select(table.c.id).order_by(table.c.id).limit(limit)  # hours are written in order, so this suffices
    deleted = connection.execute(delete(table).where(table.c.id.in_(oldest), up_to(table.c.start, before))).rowcount
    key = tuple_(lengths.c.start, lengths.c.queue)
    old = select(lengths.c.start, lengths.c.queue).where(up_to(lengths.c.start, before)).order_by(lengths.c.start)
    return deleted + connection.execute(delete(lengths).where(key.in_(old.limit(limit)))).rowcount


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


def checkpoint_value(row: Any) -> Checkpoint:  # noqa: ANN401 - a row
    """The opposite of ``_checkpoint_row``."""
    name, queue, host, start, runtime, wait, last = row
    return Checkpoint(start, SeriesKey(name, queue, host), _cells(runtime), _cells(wait), last=bool(last))


def _cells(text: str) -> Cells:
    """The cells of a stored histogram. JSON has no infinity, so it is stored as null."""
    stored = encode.parsed(text, _StoredCells)
    return tuple((math.inf if bound is None else bound, count) for bound, count in stored)


def _lengthen(dialect: Dialect) -> Bulk:
    """Add to the sums of a queue's polls, and keep the greatest length."""
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
