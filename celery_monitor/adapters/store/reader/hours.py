"""Run and wait times by hour, and the lengths of queues over time."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Table, and_, func, literal_column, or_, select

from celery_monitor.adapters.store import encode, hourly, schema
from celery_monitor.adapters.store.periods import between
from celery_monitor.adapters.store.reader.base import StoreQueries
from celery_monitor.adapters.store.validation import RowId
from celery_monitor.core import paging
from celery_monitor.core.hourly import hours
from celery_monitor.core.model import HourRow, QueueLengthRow
from celery_monitor.core.paging import Page

_FETCH_SIZE: Final = 1_000
"""Checkpoints in memory at once: a task with very many queues and hosts has some 100,000 in a week."""


class HourQueries(StoreQueries):
    """What is stored by the hour, and by the poll of a queue."""

    def task_hours(self, name: str, since: float, until: float) -> list[HourRow]:
        """See Reader."""
        stored = self._database.text(name)
        return self._hours(lambda table: [table.c.name == stored], since, until)

    def queue_hours(self, queue: str, since: float, until: float) -> list[HourRow]:
        """See Reader. The query goes by the names of the queue's tasks, because no index finds checkpoints by queue."""
        totals, stored = schema.task_totals, self._database.text(queue)
        names = select(totals.c.name).where(totals.c.queue == stored)
        return self._hours(lambda table: [table.c.name.in_(names), table.c.queue == stored], since, until)

    def _hours(
        self, conditions: Callable[[Table], list[ColumnElement[bool]]], since: float, until: float
    ) -> list[HourRow]:
        """``conditions``: which rows of the checkpoints and of the series."""
        table, series = schema.checkpoints, schema.series
        columns = [table.c[column] for column in hourly.CHECKPOINT]
        query = select(*columns).where(*conditions(table), *between(table.c.start, since, None)).order_by(table.c.id)
        # One transaction: the series have to be those of the same flush as the checkpoints.
        with self._database.read() as connection:
            totals = [encode.series_value(row) for row in connection.execute(select(series).where(*conditions(series)))]
            rows = connection.execute(query, execution_options={"yield_per": _FETCH_SIZE})
            return [row for row in hours(map(hourly.checkpoint_value, rows), totals) if row.start < until]

    def queue_lengths(
        self,
        since: float,
        until: float,
        *,
        step: int,
        limit: int,
        cursor: str | None = None,
        queues: Sequence[str] | None = None,
    ) -> Page[QueueLengthRow]:
        """See Reader."""
        table = schema.queue_lengths
        conditions = between(table.c.start, since, until)
        if queues is not None:
            conditions.append(self._one_of(table.c.queue, queues))
        if cursor is not None:
            last, last_start = paging.position(cursor, tuple[str, RowId])
            queue = self._database.text(last)
            rest_of_queue = and_(table.c.queue == queue, table.c.start >= last_start + step)
            conditions.append(or_(table.c.queue > queue, rest_of_queue))
        # The step is not a parameter: PostgreSQL takes two parameters for two expressions and rejects the grouping.
        start = (table.c.start - table.c.start % literal_column(str(int(step)))).label("span")
        sums = func.sum(table.c.total), func.sum(table.c.looks), func.max(table.c.longest)
        query = select(table.c.queue, start, *sums).where(*conditions)
        query = query.group_by(table.c.queue, start).order_by(table.c.queue, start).limit(limit + 1)
        with self._database.read() as connection:
            found: list[Any] = list(connection.execute(query))
        rows = [QueueLengthRow(row[0], int(row[1]), float(row[2]) / float(row[3]), int(row[4])) for row in found]
        return paging.page(rows, limit, lambda row: (row.queue, row.start))
