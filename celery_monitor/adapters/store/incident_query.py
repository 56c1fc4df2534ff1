"""Queries for pages of incidents, and for their deliveries."""

from collections.abc import Callable
from itertools import groupby
from operator import itemgetter

from sqlalchemy import Connection, FromClause, Select, or_, select

from celery_monitor.adapters.store import schema
from celery_monitor.adapters.store.periods import between
from celery_monitor.core import paging
from celery_monitor.core.model import ChannelDelivery, IncidentState


def listed(
    since: float | None,
    until: float | None,
    *,
    limit: int,
    cursor: str | None,
    key: str | None,
    state: IncidentState | None,
    text: Callable[[str], str],
) -> Select[tuple[str, str, float]]:
    """(key, body, first_at) of the rows of a page and of one more, newest first; see Reader.incidents.

    ``text`` returns a text as the database stores it. Raises InvalidCursorError.
    """
    table = schema.incidents
    clauses = between(table.c.first_at, since, until)
    if state is not None:
        clauses.append(table.c.state == str(state))
    if key is not None:
        clauses.append(table.c.key == text(key))
    if cursor is not None:
        first_at, last_key = paging.position(cursor, tuple[float, str])
        after_position = or_(table.c.first_at < first_at, table.c.key > text(last_key))
        clauses += [table.c.first_at <= first_at, after_position]
    query = select(table.c.key, table.c.body, table.c.first_at).where(*clauses)
    return query.order_by(table.c.first_at.desc(), table.c.key).limit(limit + 1)


def deliveries(connection: Connection, page: FromClause) -> dict[str, tuple[ChannelDelivery, ...]]:
    """Incident key → deliveries by channel, of the incidents of a page."""
    table = schema.deliveries
    query = select(table).join(page, page.c.key == table.c.key).order_by(table.c.key, table.c.channel)
    return {
        key: tuple(ChannelDelivery(*row[1:]) for row in rows)
        for key, rows in groupby(connection.execute(query), key=itemgetter(0))
    }
