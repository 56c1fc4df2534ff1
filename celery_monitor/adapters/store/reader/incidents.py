"""The incidents, in full or as outlines, and their deliveries."""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Select, func, or_, select

from celery_monitor.adapters.store import encode, schema
from celery_monitor.adapters.store.periods import between
from celery_monitor.adapters.store.reader.base import StoreQueries
from celery_monitor.core import paging
from celery_monitor.core.model import ChannelDelivery, Incident, IncidentOutline, IncidentRow, IncidentState
from celery_monitor.core.paging import Page


class IncidentQueries(StoreQueries):
    """The incidents."""

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
        conditions = self._incident_conditions(since, until, cursor=cursor, key=key, state=state)
        if keys is not None:
            conditions.append(self._one_of(schema.incidents.c.key, keys))
        query = _newest_first(conditions, limit + 1)
        with self._database.read() as connection:
            page = paging.page(connection.execute(query).all(), limit, _position)
            deliveries = _deliveries(connection, query.subquery())
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
        query = _newest_first(self._incident_conditions(since, until, cursor=cursor, key=key, state=state), limit + 1)
        with self._database.read() as connection:
            page = paging.page(connection.execute(query).all(), limit, _position)
            return Page([encode.parsed(row.body, IncidentOutline) for row in page.rows], page.next)

    def delivered(self) -> dict[str, float]:
        """See Reader."""
        table = schema.deliveries
        query = select(table.c.key, func.max(table.c.delivered_at)).where(table.c.delivered_at.is_not(None))
        with self._database.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query.group_by(table.c.key))}

    def _incident_conditions(
        self,
        since: float | None,
        until: float | None,
        *,
        cursor: str | None,
        key: str | None,
        state: IncidentState | None,
    ) -> list[ColumnElement[bool]]:
        """The conditions that an incident has to meet. Raises InvalidCursorError."""
        table, text = schema.incidents, self._database.text
        conditions = between(table.c.first_at, since, until)
        if state is not None:
            conditions.append(table.c.state == str(state))
        if key is not None:
            conditions.append(table.c.key == text(key))
        if cursor is not None:
            first_at, last_key = paging.position(cursor, tuple[float, str])
            after_position = or_(table.c.first_at < first_at, table.c.key > text(last_key))
            conditions += [table.c.first_at <= first_at, after_position]
        return conditions


def _newest_first(conditions: Sequence[ColumnElement[bool]], limit: int) -> Select[tuple[str, str, float]]:
    """(key, body, first_at) of the first ``limit`` incidents that meet the conditions."""
    table = schema.incidents
    query = select(table.c.key, table.c.body, table.c.first_at).where(*conditions)
    return query.order_by(table.c.first_at.desc(), table.c.key).limit(limit)


def _position(row: Any) -> tuple[float, str]:  # noqa: ANN401 - a row of ``_newest_first``
    return row.first_at, row.key


def _deliveries(connection: Connection, page: FromClause) -> dict[str, tuple[ChannelDelivery, ...]]:
    """Incident key → deliveries by channel, of the incidents of a page."""
    table = schema.deliveries
    query = select(table).join(page, page.c.key == table.c.key).order_by(table.c.key, table.c.channel)
    return {
        key: tuple(ChannelDelivery(*row[1:]) for row in rows)
        for key, rows in groupby(connection.execute(query), key=itemgetter(0))
    }
