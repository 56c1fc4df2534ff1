"""The Reader: read-only queries for the page, the API and the report."""

import math
import sys
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    case,
    func,
    literal,
    literal_column,
    select,
    tuple_,
)

from celery_monitor.adapters.store import (
    encode,
    ended_query,
    group_query,
    hourly,
    incident_query,
    restore,
    schema,
    tracked_journal,
)
from celery_monitor.adapters.store.engine import Database
from celery_monitor.adapters.store.failure_query import conditions, order
from celery_monitor.adapters.store.periods import (
    between,
    each_bucket,
    failed_with,
    totals_between,
    vector,
)
from celery_monitor.core import paging
from celery_monitor.core.lookup import RunPage
from celery_monitor.core.model import (
    COUNTS,
    BucketRow,
    FailingRow,
    Failure,
    GroupRow,
    HistoryRow,
    HourRow,
    Incident,
    IncidentOutline,
    IncidentRow,
    IncidentState,
    QueueLengthRow,
    TaskRef,
    TaskRun,
    TaskStarts,
    Worker,
)
from celery_monitor.core.paging import Page
from celery_monitor.ports import ENDED_SEARCHED, EndedFilter, FailureFilter, TaskRow

_FAILURE: Final = [schema.failures.c[name] for name in encode.FAILURE]
_ENDED: Final = [schema.ended_tasks.c[name] for name in encode.ENDED]

_WORKER: Final = [schema.workers.c[name] for name in encode.WORKER]


class SqlReader:
    """See Reader. Safe from many threads; each method sees one state of the store."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        """See Reader. Buckets count whole: that of ``since`` and that of ``until``; None is the whole retention."""
        all_time = since is None and until is None
        of_names = [] if names is None else [self._one_of(schema.buckets.c.name, names)]
        source: FromClause = schema.task_totals if all_time else totals_between(since, until, of_names)
        text = self._database.text
        query = select(source)
        if names is not None and all_time:
            query = query.where(self._one_of(source.c.name, names))
        if name is not None:
            query = query.where(source.c.name == text(name))
        if queue is not None:
            query = query.where(source.c.queue == text(queue))
        if exception is not None:
            query = query.where(source.c.name.in_(failed_with(text(exception), since, until)))
        if cursor is not None:
            after = (text(part) for part in paging.position(cursor, tuple[str, str]))
            query = query.where(tuple_(source.c.name, source.c.queue) > tuple_(*after))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(source.c.name, source.c.queue).limit(limit + 1)).all()
            page = paging.page(rows, limit, lambda row: (row[0], row[1]))
            items = [TaskRow(r[0], r[1], vector(r[2:10]), float(r[10]), int(r[11]), r[12]) for r in page.rows]
            return Page(items, page.next)

    def failures(self, criteria: FailureFilter) -> Page[Failure]:
        """See Reader."""
        table = schema.failures
        query = select(table.c.id, *_FAILURE).where(*conditions(criteria, self._database.text))
        if criteria.tasks is not None:
            query = query.where(self._one_of(table.c.name, criteria.tasks))
        if criteria.exceptions is not None:
            query = query.where(self._one_of(table.c.exception, criteria.exceptions))
        ordering, position = order(criteria)
        query = query.order_by(*(key.desc() if criteria.descending else key.asc() for key in ordering)).limit(
            criteria.limit + 1
        )
        with self._database.read() as connection:
            page = paging.page(connection.execute(query).all(), criteria.limit, position)
            return Page([Failure(*row[1:]) for row in page.rows], page.next)

    def failure(self, uuid: str) -> list[Failure]:
        """See Reader."""
        table = schema.failures
        query = (
            select(*_FAILURE)
            .where(table.c.uuid == self._database.text(uuid))
            .order_by(table.c.at.desc(), table.c.id.desc())
        )
        with self._database.read() as connection:
            return [Failure(*row) for row in connection.execute(query)]

    def exceptions(self) -> list[str]:
        """See Reader."""
        column = schema.failures.c.exception
        with self._database.read() as connection:
            return list(connection.scalars(select(column).distinct().order_by(column)))

    def incidents(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        limit: int,
        cursor: str | None = None,
        key: str | None = None,
        keys: Sequence[str] | None = None,
        state: IncidentState | None = None,
    ) -> Page[IncidentRow]:
        """See Reader."""
        query = incident_query.listed(
            since, until, limit=limit, cursor=cursor, key=key, state=state, text=self._database.text
        )
        if keys is not None:
            query = query.where(self._one_of(schema.incidents.c.key, keys))
        with self._database.read() as connection:
            page = paging.page(connection.execute(query).all(), limit, lambda row: (row.first_at, row.key))
            deliveries = incident_query.deliveries(connection, query.subquery())
            items = [IncidentRow(encode.parsed(row.body, Incident), deliveries.get(row.key, ())) for row in page.rows]
            return Page(items, page.next)

    def outlines(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        limit: int,
        cursor: str | None = None,
        key: str | None = None,
        state: IncidentState | None = None,
    ) -> Page[IncidentOutline]:
        """See Reader."""
        query = incident_query.listed(
            since, until, limit=limit, cursor=cursor, key=key, state=state, text=self._database.text
        )
        with self._database.read() as connection:
            page = paging.page(connection.execute(query).all(), limit, lambda row: (row.first_at, row.key))
            return Page([encode.parsed(row.body, IncidentOutline) for row in page.rows], page.next)

    def delivered(self) -> dict[str, float]:
        """See Reader."""
        table = schema.deliveries
        query = select(table.c.key, func.max(table.c.delivered_at)).where(table.c.delivered_at.is_not(None))
        with self._database.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query.group_by(table.c.key))}

    def workers(self) -> list[Worker]:
        """See Reader. By hostname."""
        with self._database.read() as connection:
            return [Worker(*row) for row in connection.execute(select(*_WORKER).order_by(schema.workers.c.hostname))]

    def buckets(self, since: float, until: float) -> list[BucketRow]:
        """See Reader. By start, name and queue."""
        table = schema.buckets
        query = select(table).where(*between(table.c.start, since, until))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(table.c.start, table.c.name, table.c.queue)).all()
            return [BucketRow(r[0], r[1], r[2], vector(r[3:11]), r.runtime_sum, r.runtime_count) for r in rows]

    def history(
        self, since: float, until: float, *, step: int, names: Sequence[str] | None = None, queue: str | None = None
    ) -> list[HistoryRow]:
        """See Reader."""
        table = schema.fleet_buckets if names is None and queue is None else schema.buckets
        # No parameter: PostgreSQL takes two of them for two expressions, and refuses the grouping.
        start = (table.c.start - table.c.start % literal_column(str(int(step)))).label("span")
        sums = [func.sum(table.c[column]) for column in (*COUNTS, "runtime_sum", "runtime_count")]
        grouping = [start] if names is None else [table.c.name, start]
        query = (
            select(literal("") if names is None else table.c.name, start, *sums).group_by(*grouping).order_by(*grouping)
        )
        if names is None:
            query = query.where(*between(table.c.start, since, until))
        else:
            query = query.where(each_bucket(table.c.start, since, until), self._one_of(table.c.name, names))
        if queue is not None:
            query = query.where(table.c.queue == self._database.text(queue))
        with self._database.read() as connection:
            rows = connection.execute(query).all()
            return [HistoryRow(r[0], int(r[1]), vector(r[2:10]), float(r[10]), int(r[11])) for r in rows]

    def task_hours(self, name: str, since: float, until: float) -> list[HourRow]:
        """See Reader."""
        with self._database.read() as connection:
            return hourly.task_hours(connection, self._database.text(name), since, until)

    def queue_hours(self, queue: str, since: float, until: float) -> list[HourRow]:
        """See Reader."""
        with self._database.read() as connection:
            return hourly.queue_hours(connection, self._database.text(queue), since, until)

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
        queue, clauses = schema.queue_lengths.c.queue, []
        if queues is not None:
            clauses.append(self._one_of(queue, queues))
        if cursor is not None:
            last, start = paging.position(cursor, hourly.LENGTH_POSITION)
            clauses.append(hourly.after(self._database.text(last), start + step))
        with self._database.read() as connection:
            rows = hourly.queue_lengths(connection, since, until, *clauses, step=step, limit=limit + 1)
            return paging.page(rows, limit, lambda row: (row.queue, row.start))

    def failing(self, since: float, until: float, *, clean: bool = False) -> list[FailingRow]:
        """See Reader."""
        table = schema.buckets
        failed = case((table.c.failed > 0, table.c.start))
        sums = [func.sum(table.c[column]) for column in ("succeeded", "failed", "retried")]
        period = between(table.c.start, since, until)
        query = select(table.c.name, *sums, func.min(failed), func.max(failed)).where(*period)
        if not clean:
            # An index knows them: the rows of tasks without any failure are not grouped.
            names = select(table.c.name).where(schema.FAILED_SOME, *period).distinct()
            query = query.where(table.c.name.in_(names)).having(sums[1] > 0)
        with self._database.read() as connection:
            rows = connection.execute(query.group_by(table.c.name).order_by(table.c.name)).all()
            # Rows of many days are kept, and most of their names are the same.
            return [
                FailingRow(sys.intern(r[0]), int(r[1]), int(r[2]), int(r[3]), int(r[4] or 0), int(r[5] or 0))
                for r in rows
            ]

    def failed(self, since: float, until: float) -> dict[str, int]:
        """See Reader."""
        table = schema.buckets
        query = (
            select(table.c.name, func.sum(table.c.failed))
            .where(schema.FAILED_SOME, *between(table.c.start, since, until))
            .group_by(table.c.name)
        )
        with self._database.read() as connection:
            return {row[0]: int(row[1]) for row in connection.execute(query).all()}

    def counted_since(self) -> float | None:
        """See Reader."""
        with self._database.read() as connection:
            start: int | None = connection.scalar(select(func.min(schema.fleet_buckets.c.start)))
            return None if start is None else float(start)

    def groups(
        self,
        since: float,
        until: float,
        *,
        name: str | None = None,
        samples: int | None = None,
        new_first: bool = False,
    ) -> list[GroupRow]:
        """See Reader."""
        named = None if name is None else self._database.text(name)
        with self._database.read() as connection:
            return group_query.listed(connection, since, until, name=named, sampled=samples, new_first=new_first)

    def samples(self, groups: Sequence[str], since: float, until: float) -> dict[str, Failure]:
        """See Reader."""
        with self._database.read() as connection:
            return group_query.samples(connection, groups, since, until)

    def ended(self, uuid: str) -> list[TaskRun]:
        """See Reader."""
        table = schema.ended_tasks
        return self._ended(select(*_ENDED).where(table.c.uuid == self._database.text(uuid)).order_by(table.c.id.desc()))

    def ended_runs(self, criteria: EndedFilter) -> RunPage:
        """See Reader."""
        with self._database.read() as connection:
            return ended_query.listed(connection, criteria, self._database.text)

    def sent_by(self, uuid: str, limit: int) -> list[TaskRun]:
        """See Reader. No index knows parents: what is read for it is bounded."""
        table = schema.ended_tasks
        query = select(*_ENDED).where(~schema.beyond(ENDED_SEARCHED), table.c.parent == self._database.text(uuid))
        return self._ended(query.order_by(table.c.id.desc()).limit(limit))

    def ended_since(self) -> float | None:
        """See Reader."""
        table = schema.ended_tasks
        with self._database.read() as connection:
            ended_at: float | None = connection.scalar(select(table.c.ended_at).order_by(table.c.id).limit(1))
            return ended_at

    def tracked(self, limit: int, *, uuid: str | None = None) -> list[tuple[str, TaskRef]]:
        """See Reader."""
        table = schema.tracked
        with self._database.read() as connection:
            changes = tracked_journal.newest_changes(connection)
            if uuid is None:
                query = select(table).order_by(table.c.seen).limit(limit + len(changes))
            else:
                changes = {uuid: changes[uuid]} if uuid in changes else {}
                query = select(table).where(table.c.uuid == self._database.text(uuid))
            found = tracked_journal.applied(restore.tracked(connection, query), changes)
            return sorted(found, key=lambda each: each[1].seen_minute)[:limit]

    def _ended(self, query: Select[Any]) -> list[TaskRun]:
        with self._database.read() as connection:
            return [encode.ended_value(row) for row in connection.execute(query)]

    def starts(self) -> list[TaskStarts]:
        """See Reader."""
        with self._database.read() as connection:
            return restore.task_starts(connection)

    def counters(self, at: float) -> dict[str, float]:
        """See Reader. They are kept for each quarter of an hour, so that days of every zone begin at one."""
        with self._database.read() as connection:
            return restore.newest_counters(connection) if at == math.inf else restore.counters(connection, at)

    def _one_of(self, column: ColumnElement[str], values: Sequence[str]) -> ColumnElement[bool]:
        return column.in_([self._database.text(value) for value in values])
