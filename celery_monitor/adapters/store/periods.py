"""Rows of a part of the retention."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, FromClause, Integer, Select, and_, func, or_, select

from celery_monitor.adapters.store import schema
from celery_monitor.core.model import BUCKET_SECONDS, COUNTS

_FEW_BUCKETS: Final = 1_000
"""More are not named one by one."""
_INDEXED: Final = 1 << 62
"""Beyond it no column of whole numbers has a value."""


def each_bucket(start: ColumnElement[int], since: float, until: float) -> ColumnElement[bool]:
    """Each bucket is named, so that the key finds the rows of some tasks without reading all others."""
    return start.in_(range(math.ceil(since / BUCKET_SECONDS) * BUCKET_SECONDS, math.ceil(until), BUCKET_SECONDS))


def totals_between(
    since: float | None, until: float | None, of_names: Sequence[ColumnElement[bool]] = ()
) -> FromClause:
    """The same columns, for a part of the retention; ``of_names`` are conditions that few rows meet."""
    table, last = schema.buckets, schema.task_totals
    sums = [func.sum(table.c[name]).label(name) for name in (*COUNTS, "runtime_sum", "runtime_count")]
    period = _touched(table.c.start, since, until)
    if of_names and since is not None and until is not None and until - since < _FEW_BUCKETS * BUCKET_SECONDS:
        period = [each_bucket(table.c.start, since // BUCKET_SECONDS * BUCKET_SECONDS, until)]
    query = select(table.c.name, table.c.queue, *sums).where(*period, *of_names)
    summed = query.group_by(table.c.name, table.c.queue).subquery()
    same = and_(last.c.name == summed.c.name, last.c.queue == summed.c.queue)
    return select(*summed.c, last.c.last_failure_at).select_from(summed.outerjoin(last, same)).subquery()


def failed_with(exception: str, since: float | None, until: float | None) -> Select[tuple[str]]:
    """Names of the tasks that have failed with a class. Groups know it by its whole name where that is known."""
    table, errors = schema.error_groups, schema.error_buckets
    same = or_(table.c.exception == exception, table.c.exception.endswith(f".{exception}", autoescape=True))
    query = select(table.c.name).where(same)
    if since is None and until is None:
        return query
    return query.where(table.c.id.in_(select(errors.c.group).where(*_touched(errors.c.start, since, until))))


def vector(numbers: Sequence[Any]) -> tuple[int, ...]:
    """Sums come as decimals from some databases."""
    return tuple(map(int, numbers))


def between(column: Any, since: float | None, until: float | None) -> list[ColumnElement[bool]]:  # noqa: ANN401
    """[since, until); None leaves that end open."""
    return [
        *([] if since is None else [column >= _edge(column, since, math.ceil)]),
        *([] if until is None else [column < _edge(column, until, math.ceil)]),
    ]


def begun_by(column: Any, last: float) -> ColumnElement[bool]:  # noqa: ANN401
    """Up to ``last``, itself included."""
    condition: ColumnElement[bool] = column <= _edge(column, last, math.floor)
    return condition


def _touched(start: Any, since: float | None, until: float | None) -> list[ColumnElement[bool]]:  # noqa: ANN401
    """Buckets that a period touches: they count whole."""
    after = [] if since is None else [start > _edge(start, since - BUCKET_SECONDS, math.floor)]
    return [*after, *between(start, None, until)]


def _edge(column: Any, edge: float, whole: Callable[[float], int]) -> float:  # noqa: ANN401 - see above
    """Beside a column of whole numbers a whole one: else PostgreSQL converts the column, and reads all of the index."""
    return whole(edge) if isinstance(column.type, Integer) and abs(edge) < _INDEXED else edge


def newest_sample(groups: FromClause, since: float | None, until: float | None) -> Any:  # noqa: ANN401 - see above
    """ID of the newest sample of each group of a query."""
    sample = schema.failures.alias()
    of_group = sample.c.group == groups.c.id
    # The sum keeps PostgreSQL from walking all failures backwards for the first of the group.
    newest = select(func.max(sample.c.id + 0)).where(of_group, *between(sample.c.at, since, until))
    return newest.correlate(groups).scalar_subquery()
