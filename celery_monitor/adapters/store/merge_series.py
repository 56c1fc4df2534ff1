"""Merges the series of the lowest rank into one if the store has more series than the monitor may hold in memory.

This happens before the series are read, and in portions of one transaction each. So memory is bounded whatever is
stored, and a start that is killed does not lose the work done so far.
"""

from typing import Any, Final

from sqlalchemy import Connection, Dialect, and_, func, not_, select

from celery_monitor.adapters.store import encode, schema
from celery_monitor.adapters.store.engine import Database
from celery_monitor.adapters.store.hourly import HourlyWriter
from celery_monitor.adapters.store.statements import Bulk, Removal, shared, upsert
from celery_monitor.core.model import SeriesKey
from celery_monitor.core.series_row import empty_series, merge
from celery_monitor.core.text import OTHER

_MAX_MERGED: Final = 1000


class SeriesMerge:
    """Merges series beyond ``max_series`` into the series ``other``. ``hosts``: whether series have a host."""

    def __init__(self, dialect: Dialect, *, max_series: int, hosts: bool) -> None:
        self._limit = max_series
        self._into = SeriesKey(OTHER, OTHER, OTHER if hosts else "")
        self._write = shared(dialect, _write)
        self._hourly = shared(dialect, HourlyWriter)
        self._drop = shared(dialect, _drop)

    def run(self, database: Database) -> int:
        """Merge all excess series. Returns their number. Raises as ``SqlStore.start``."""
        number = 0
        while True:
            with database.write() as connection:
                done = self._chunk(connection)
            if not done:
                return number
            number += done

    def _chunk(self, connection: Connection) -> int:
        table = schema.series
        into = and_(*(table.c[name] == getattr(self._into, name) for name in ("name", "queue", "host")))
        count = connection.execute(select(func.count()).select_from(table).where(not_(into))).scalar_one()
        number = min(count - self._limit, _MAX_MERGED)
        if number <= 0:
            return 0
        least = select(table).where(not_(into)).order_by(table.c.rank).limit(number)
        rows: list[Any] = list(connection.execute(least))
        other = connection.execute(select(table).where(into)).first()
        # The series used last has the histogram bounds of the current settings.
        values = list(map(encode.series_value, rows))
        total = merge(values, empty_series(self._into, values[-1]) if other is None else encode.series_value(other))
        self._hourly.end(connection, values, connection.scalar(select(schema.meta.c.at)) or 0.0)
        self._drop.run(connection, ((row.name, row.queue, row.host) for row in rows))
        self._write.run(connection, [encode.series_row(total)])
        return len(rows)


def _write(dialect: Dialect) -> Bulk:
    return upsert(dialect, schema.series)


def _drop(dialect: Dialect) -> Removal:
    return Removal(dialect, schema.series)
