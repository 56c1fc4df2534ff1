"""Groups of errors with failures in a period, and a sample of each."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from sqlalchemy import ColumnElement, Connection, func, select

from celery_monitor.adapters.store import encode, schema
from celery_monitor.adapters.store.dialects import sql_of
from celery_monitor.adapters.store.periods import between, newest_sample
from celery_monitor.core.model import Failure, GroupRow

_Key = TypeVar("_Key", int, str)
_PORTION: Final = 500
"""Keys in one statement."""
_MOST: Final = 0.2
"""Of the time that is kept: up to there an index of the time is faster than one of the groups."""
_GROUP: Final = [schema.error_groups.c[name] for name in ("id", "name", "exception", "frame", "first_at", "last_at")]
_FAILURE: Final = [schema.failures.c[name] for name in encode.FAILURE]


def listed(
    connection: Connection, since: float, until: float, *, name: str | None, sampled: int | None, new_first: bool
) -> list[GroupRow]:
    """See Reader.groups."""
    table, errors = schema.error_groups, schema.error_buckets
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
        query = query.where(table.c.name == name)
    groups = [GroupRow(*row[:6], int(row[6])) for row in connection.execute(query).all()]
    # PostgreSQL takes longer for it: its sums are decimals.
    groups.sort(key=lambda one: (new_first and one.first_at < since, -one.count, -one.last_at, one.id))
    kept = samples(connection, [one.id for one in groups[:sampled]], since, until)
    return [replace(one, sample=kept[one.id]) if one.id in kept else one for one in groups]


def _covers_most(connection: Connection, since: float, until: float) -> bool:
    """Whether so much of what is kept is in the period that all of it can be read as fast."""
    start = schema.error_buckets.c.start
    oldest, newest = (connection.scalar(select(edge(start))) for edge in (func.min, func.max))
    if oldest is None or newest is None:
        return False
    covered, kept = min(until, newest) - max(since, oldest), newest - oldest
    return bool(covered > kept * _MOST)


def samples(connection: Connection, groups: Sequence[str], since: float, until: float) -> dict[str, Failure]:
    """See Reader.samples."""
    newest = _failures(connection, _newest(connection, groups))
    # An index alone knows the newest of all, and of the present day that is it.
    outside = [one.group for one in newest.values() if not since <= one.at < until]
    within = _failures(connection, _newest(connection, outside, since, until))
    return {one.group: one for one in (*newest.values(), *within.values())}


def _newest(
    connection: Connection, groups: Sequence[str], since: float | None = None, until: float | None = None
) -> list[int]:
    """IDs of the newest samples of groups."""
    table, found = schema.error_groups, list[int]()
    sample = newest_sample(table, since, until)
    for portion in _portions(groups):
        ids = connection.scalars(select(sample).select_from(table).where(table.c.id.in_(portion))).all()
        found += [identity for identity in ids if identity is not None]
    return found


def _failures(connection: Connection, ids: Sequence[int]) -> dict[int, Failure]:
    """By ID. Asked for by their keys: joined, PostgreSQL would read all failures for some of them."""
    table, found = schema.failures, dict[int, Failure]()
    for portion in _portions(ids):
        rows = connection.execute(select(table.c.id, *_FAILURE).where(table.c.id.in_(portion))).all()
        found |= {row[0]: Failure(*row[1:]) for row in rows}
    return found


def _portions(keys: Sequence[_Key]) -> Iterator[Sequence[_Key]]:
    return (keys[begin : begin + _PORTION] for begin in range(0, len(keys), _PORTION))
