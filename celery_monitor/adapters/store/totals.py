"""Sums of the buckets: over the retention for each task and queue, and over all tasks for each bucket.

They are updated in the transactions that change the buckets: a flush adds to them, and the deletion of expired buckets
subtracts from them. So the list of tasks, and the history of the whole fleet, do not have to read thousands of buckets.
Sums that become zero are deleted.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Connection, Dialect, Table, and_, case, delete, or_, select

from celery_monitor.adapters.store import schema
from celery_monitor.adapters.store.periods import up_to
from celery_monitor.adapters.store.statements import Bulk, Removal, insert, upsert
from celery_monitor.core.model import COUNTS, Changes

_MEASURES: Final = (*COUNTS, "runtime_sum", "runtime_count")
_COLUMNS: Final = ("name", "queue", *_MEASURES, "last_failure_at")
_NOTHING: Final = (0,) * len(_MEASURES)
_Key = tuple[str, str]
K = TypeVar("K", bound=Hashable)


class Totals:
    """Keeps ``task_totals`` and ``fleet_buckets`` consistent with ``buckets``."""

    def __init__(self, dialect: Dialect) -> None:
        self._change = _change(dialect)
        self._fleet = upsert(dialect, schema.fleet_buckets, columns=("start", *_MEASURES), add=_MEASURES)
        self._drop_buckets = Removal(dialect, schema.buckets)

    def add(self, connection: Connection, changes: Changes, yield_point: Callable[[], None]) -> None:
        """Add the buckets of a flush, and record when each task last failed."""
        measures = [(*b.counts, b.runtime_sum, b.runtime_count) for b in changes.buckets]
        sums = _summed(zip(((b.name, b.queue) for b in changes.buckets), measures, strict=True))
        fleet = _summed(zip((b.start for b in changes.buckets), measures, strict=True))
        self._fleet.run(connection, ((start, *sum_) for start, sum_ in fleet.items()), yield_point)
        last: dict[_Key, float] = {}
        for failure in changes.failures:
            key = failure.name, failure.queue
            last[key] = max(failure.at, last.get(key, failure.at))
        keys = dict.fromkeys([*sums, *last])
        self._change.run(connection, ((*key, *sums.get(key, _NOTHING), last.get(key)) for key in keys), yield_point)

    def expire(self, connection: Connection, before: float, *, limit: int) -> int:
        """Delete at most ``limit`` of the buckets that start at ``before`` or earlier, and subtract them from the sums.

        Returns the number of deleted buckets.
        """
        table, totals = schema.buckets, schema.task_totals
        measures = (table.c[name] for name in _MEASURES)
        oldest = select(table.c.start, table.c.name, table.c.queue, *measures).where(up_to(table.c.start, before))
        rows: list[Any] = list(connection.execute(oldest.order_by(table.c.start).limit(limit)))
        if not rows:
            return 0
        self._drop_buckets.run(connection, (tuple(row[:3]) for row in rows))
        sums = _summed(((row[1], row[2]), row[3:]) for row in rows)
        self._change.run(connection, ((*key, *(-value for value in sum_), None) for key, sum_ in sums.items()))
        no_failure = or_(totals.c.last_failure_at.is_(None), totals.c.last_failure_at < before)
        connection.execute(delete(totals).where(_is_empty(totals), no_failure))
        expired = _summed((row[0], row[3:]) for row in rows)
        fleet = schema.fleet_buckets
        self._fleet.run(connection, ((start, *(-value for value in sum_)) for start, sum_ in expired.items()))
        connection.execute(delete(fleet).where(up_to(fleet.c.start, before), _is_empty(fleet)))
        return len(rows)


def _is_empty(table: Table) -> ColumnElement[bool]:
    return and_(*(table.c[name] == 0 for name in COUNTS), table.c.runtime_count == 0)


def _summed(rows: Iterable[tuple[K, Sequence[Any]]]) -> dict[K, Sequence[Any]]:
    """The sum of the measures of each key. Adds column by column: row by row takes several times as long."""
    groups: dict[K, list[Sequence[Any]]] = {}
    for key, measures in rows:
        groups.setdefault(key, []).append(measures)
    return {
        key: group[0] if len(group) == 1 else [sum(column) for column in zip(*group, strict=True)]
        for key, group in groups.items()
    }


def _change(dialect: Dialect) -> Bulk:
    """Add to the measures, and keep the later time of failure."""
    table = schema.task_totals
    statement = insert(dialect, table)
    old, new = table.c.last_failure_at, statement.excluded.last_failure_at
    changed = {name: table.c[name] + statement.excluded[name] for name in _MEASURES}
    changed["last_failure_at"] = case((or_(old.is_(None), new > old), new), else_=old)
    return Bulk(dialect, statement.on_conflict_do_update(index_elements=["name", "queue"], set_=changed), _COLUMNS)
