"""Counts of tasks: by name and queue, over time, and of failures."""

import math
import sys
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    and_,
    case,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
)

from celery_monitor.adapters.store import schema
from celery_monitor.adapters.store.periods import between, overlapping
from celery_monitor.adapters.store.reader.base import StoreQueries
from celery_monitor.core import paging
from celery_monitor.core.model import BUCKET_SECONDS, COUNTS, BucketRow, FailingRow, HistoryRow
from celery_monitor.core.paging import Page
from celery_monitor.ports import TaskRow

_MAX_LISTED_BUCKETS: Final = 1_000
"""Longer periods are queried by their limits, not by a list of their buckets."""


class CountQueries(StoreQueries):
    """The counts of tasks."""

    def tasks(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        limit: int,
        cursor: str | None = None,
        name: str | None = None,
        exception: str | None = None,
        names: Sequence[str] | None = None,
        queue: str | None = None,
    ) -> Page[TaskRow]:
        """See Reader. The buckets of ``since`` and ``until`` count in full; with neither, the whole retention does."""
        all_time = since is None and until is None
        of_names = [] if names is None else [self._one_of(schema.buckets.c.name, names)]
        source: FromClause = schema.task_totals if all_time else _totals_between(since, until, of_names)
        text = self._database.text
        query = select(source)
        if names is not None and all_time:
            query = query.where(self._one_of(source.c.name, names))
        if name is not None:
            query = query.where(source.c.name == text(name))
        if queue is not None:
            query = query.where(source.c.queue == text(queue))
        if exception is not None:
            query = query.where(source.c.name.in_(_failed_with(text(exception), since, until)))
        if cursor is not None:
            after = (text(part) for part in paging.position(cursor, tuple[str, str]))
            query = query.where(tuple_(source.c.name, source.c.queue) > tuple_(*after))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(source.c.name, source.c.queue).limit(limit + 1)).all()
            page = paging.page(rows, limit, lambda row: (row[0], row[1]))
            items = [TaskRow(r[0], r[1], _integers(r[2:10]), float(r[10]), int(r[11]), r[12]) for r in page.rows]
            return Page(items, page.next)

    def buckets(self, since: float, until: float) -> list[BucketRow]:
        """See Reader. Ordered by start, name and queue."""
        table = schema.buckets
        query = select(table).where(*between(table.c.start, since, until))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(table.c.start, table.c.name, table.c.queue)).all()
            return [BucketRow(r[0], r[1], r[2], _integers(r[3:11]), r.runtime_sum, r.runtime_count) for r in rows]

    def history(
        self, since: float, until: float, *, step: int, names: Sequence[str] | None = None, queue: str | None = None
    ) -> list[HistoryRow]:
        """See Reader."""
        table = schema.fleet_buckets if names is None and queue is None else schema.buckets
        # The step is not a parameter: PostgreSQL takes two parameters for two expressions and rejects the grouping.
        start = (table.c.start - table.c.start % literal_column(str(int(step)))).label("span")
        sums = [func.sum(table.c[column]) for column in (*COUNTS, "runtime_sum", "runtime_count")]
        grouping = [start] if names is None else [table.c.name, start]
        query = (
            select(literal("") if names is None else table.c.name, start, *sums).group_by(*grouping).order_by(*grouping)
        )
        if names is None:
            query = query.where(*between(table.c.start, since, until))
        else:
            query = query.where(_in_buckets(table.c.start, since, until), self._one_of(table.c.name, names))
        if queue is not None:
            query = query.where(table.c.queue == self._database.text(queue))
        with self._database.read() as connection:
            rows = connection.execute(query).all()
            return [HistoryRow(r[0], int(r[1]), _integers(r[2:10]), float(r[10]), int(r[11])) for r in rows]

    def failing(self, since: float, until: float, *, clean: bool = False) -> list[FailingRow]:
        """See Reader."""
        table = schema.buckets
        failed = case((table.c.failed > 0, table.c.start))
        sums = [func.sum(table.c[column]) for column in ("succeeded", "failed", "retried")]
        period = between(table.c.start, since, until)
        query = select(table.c.name, *sums, func.min(failed), func.max(failed)).where(*period)
        if not clean:
            # An index finds these names, so the rows of tasks without failures need not be grouped.
            names = select(table.c.name).where(schema.HAS_FAILURES, *period).distinct()
            query = query.where(table.c.name.in_(names)).having(sums[1] > 0)
        with self._database.read() as connection:
            rows = connection.execute(query.group_by(table.c.name).order_by(table.c.name)).all()
            # The report caches the rows of many days, which repeat the same names: interning saves their memory.
            return [
                FailingRow(sys.intern(r[0]), int(r[1]), int(r[2]), int(r[3]), int(r[4] or 0), int(r[5] or 0))
                for r in rows
            ]

    def failed(self, since: float, until: float) -> dict[str, int]:
        """See Reader."""
        table = schema.buckets
        query = (
            select(table.c.name, func.sum(table.c.failed))
            .where(schema.HAS_FAILURES, *between(table.c.start, since, until))
            .group_by(table.c.name)
        )
        with self._database.read() as connection:
            return {row[0]: int(row[1]) for row in connection.execute(query).all()}

    def counted_since(self) -> float | None:
        """See Reader."""
        with self._database.read() as connection:
            start: int | None = connection.scalar(select(func.min(schema.fleet_buckets.c.start)))
            return None if start is None else float(start)


def _in_buckets(start: ColumnElement[int], since: float, until: float) -> ColumnElement[bool]:
    """Rows of the buckets that start in [since, until), listed one by one.

    With the list, the primary key finds the rows of a few tasks without reading those of all others.
    """
    return start.in_(range(math.ceil(since / BUCKET_SECONDS) * BUCKET_SECONDS, math.ceil(until), BUCKET_SECONDS))


def _totals_between(since: float | None, until: float | None, of_names: Sequence[ColumnElement[bool]]) -> FromClause:
    """The columns of ``task_totals``, for a part of the retention. ``of_names``: conditions that few rows meet."""
    table, last = schema.buckets, schema.task_totals
    sums = [func.sum(table.c[name]).label(name) for name in (*COUNTS, "runtime_sum", "runtime_count")]
    period = overlapping(table.c.start, since, until)
    if of_names and since is not None and until is not None and until - since < _MAX_LISTED_BUCKETS * BUCKET_SECONDS:
        period = [_in_buckets(table.c.start, since // BUCKET_SECONDS * BUCKET_SECONDS, until)]
    query = select(table.c.name, table.c.queue, *sums).where(*period, *of_names)
    summed = query.group_by(table.c.name, table.c.queue).subquery()
    same = and_(last.c.name == summed.c.name, last.c.queue == summed.c.queue)
    return select(*summed.c, last.c.last_failure_at).select_from(summed.outerjoin(last, same)).subquery()


def _failed_with(exception: str, since: float | None, until: float | None) -> Select[tuple[str]]:
    """Names of the tasks that have failed with an exception class, given by its short or full name."""
    table, errors = schema.error_groups, schema.error_buckets
    # A group stores the full name if the event had it.
    same = or_(table.c.exception == exception, table.c.exception.endswith(f".{exception}", autoescape=True))
    query = select(table.c.name).where(same)
    if since is None and until is None:
        return query
    return query.where(table.c.id.in_(select(errors.c.group).where(*overlapping(errors.c.start, since, until))))


def _integers(numbers: Sequence[Any]) -> tuple[int, ...]:
    """Counts as integers: some databases return sums as decimals."""
    return tuple(map(int, numbers))
