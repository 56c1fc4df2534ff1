"""Groups of errors with failures in a period, each with a sample."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Connection, FromClause, func, select

from celery_monitor.adapters.store import encode, schema
from celery_monitor.adapters.store.dialects import sql_of
from celery_monitor.adapters.store.periods import between
from celery_monitor.adapters.store.reader.base import StoreQueries
from celery_monitor.core.model import Failure, GroupRow

_Key = TypeVar("_Key", int, str)
_MAX_KEYS: Final = 500
"""Keys in one statement."""
_MOST: Final = 0.2
"""Share of the stored time up to which the index on time is faster than the index on groups."""
_GROUP: Final = [schema.error_groups.c[name] for name in ("id", "name", "exception", "frame", "first_at", "last_at")]
_FAILURE: Final = [schema.failures.c[name] for name in encode.FAILURE]


class GroupQueries(StoreQueries):
    """The groups of errors."""

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
        table, errors = schema.error_groups, schema.error_buckets
        with self._database.read() as connection:
            start: ColumnElement[int] = errors.c.start
            if _covers_most(connection, since, until):
                start = sql_of(connection.dialect).without_index(start)
            counted = (
                select(errors.c.group, func.sum(errors.c.count).label("count"))
                .where(*between(start, since, until))
                .group_by(errors.c.group)
                .subquery()
            )
            query = select(*_GROUP, counted.c.count).join(counted, counted.c.group == table.c.id)
            if name is not None:
                query = query.where(table.c.name == self._database.text(name))
            groups = [GroupRow(*row[:6], int(row[6])) for row in connection.execute(query).all()]
            # Sorted here, because PostgreSQL takes longer to sort by its sums, which are decimals.
            groups.sort(
                key=lambda group: (new_first and group.first_at < since, -group.count, -group.last_at, group.id)
            )
            found = _samples(connection, [group.id for group in groups[:samples]], since, until)
            return [replace(group, sample=found[group.id]) if group.id in found else group for group in groups]

    def samples(self, groups: Sequence[str], since: float, until: float) -> dict[str, Failure]:
        """See Reader."""
        with self._database.read() as connection:
            return _samples(connection, groups, since, until)


def _covers_most(connection: Connection, since: float, until: float) -> bool:
    """Whether the period covers so much of the stored time that reading all of it is as fast."""
    start = schema.error_buckets.c.start
    oldest, newest = (connection.scalar(select(edge(start))) for edge in (func.min, func.max))
    if oldest is None or newest is None:
        return False
    covered, stored = min(until, newest) - max(since, oldest), newest - oldest
    return bool(covered > stored * _MOST)


def _samples(connection: Connection, groups: Sequence[str], since: float, until: float) -> dict[str, Failure]:
    newest = _failures(connection, _newest_ids(connection, groups))
    # First the newest of all time, which an index finds without reading rows. For the current day it is mostly enough.
    outside = [sample.group for sample in newest.values() if not since <= sample.at < until]
    within = _failures(connection, _newest_ids(connection, outside, since, until))
    return {sample.group: sample for sample in (*newest.values(), *within.values())}


def _newest_ids(
    connection: Connection, groups: Sequence[str], since: float | None = None, until: float | None = None
) -> list[int]:
    """IDs of the newest sample of each group in the period."""
    table, found = schema.error_groups, list[int]()
    sample = _newest_sample(table, since, until)
    for portion in _portions(groups):
        ids = connection.scalars(select(sample).select_from(table).where(table.c.id.in_(portion))).all()
        found += [identity for identity in ids if identity is not None]
    return found


def _newest_sample(groups: FromClause, since: float | None, until: float | None) -> Any:  # noqa: ANN401 - a subquery
    """ID of the newest sample of each group of the enclosing query."""
    sample = schema.failures.alias()
    of_group = sample.c.group == groups.c.id
    # "+ 0" prevents PostgreSQL from scanning all failures backwards for the first of the group.
    newest = select(func.max(sample.c.id + 0)).where(of_group, *between(sample.c.at, since, until))
    return newest.correlate(groups).scalar_subquery()


def _failures(connection: Connection, ids: Sequence[int]) -> dict[int, Failure]:
    """ID → failure. Selected by primary key, because PostgreSQL would read all failures for a join."""
    table, found = schema.failures, dict[int, Failure]()
    for portion in _portions(ids):
        rows = connection.execute(select(table.c.id, *_FAILURE).where(table.c.id.in_(portion))).all()
        found |= {row[0]: Failure(*row[1:]) for row in rows}
    return found


def _portions(keys: Sequence[_Key]) -> Iterator[Sequence[_Key]]:
    return (keys[begin : begin + _MAX_KEYS] for begin in range(0, len(keys), _MAX_KEYS))
