"""A list of the kept runs that have ended: those that a filter asks for, sorted, and how many they are."""

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, false, func, select

from celery_monitor.adapters.store import encode, schema
from celery_monitor.core.lookup import RunPage
from celery_monitor.ports import ENDED_SEARCHED, EndedFilter

_TABLE: Final = schema.ended_tasks
_ENDED: Final = [_TABLE.c[name] for name in encode.ENDED]
_BY: Final[dict[str, ColumnElement[Any]]] = {
    "ended": _TABLE.c.id,
    "name": func.coalesce(_TABLE.c.name, ""),
    "stage": _TABLE.c.stage,
    "runtime": func.coalesce(_TABLE.c.runtime, -1.0),
    "hostname": _TABLE.c.hostname,
}


def listed(connection: Connection, criteria: EndedFilter, text: Callable[[str], str]) -> RunPage:
    """See Reader.ended_runs. ``text``: a text as the database stores it."""
    newest = criteria.newest
    if newest is None:
        newest = connection.scalar(select(func.max(_TABLE.c.id))) or 0
    wheres = [_TABLE.c.id > newest - ENDED_SEARCHED, _TABLE.c.id <= newest]
    exact = (_TABLE.c.queue, criteria.queue), (_TABLE.c.hostname, criteria.hostname)
    wheres += [column == text(value) for column, value in exact if value is not None]
    if criteria.stage is not None:
        wheres.append(_TABLE.c.stage == criteria.stage)
    if criteria.matches_name is not None:
        all_names = connection.scalars(select(_TABLE.c.name).where(*wheres, _TABLE.c.name.is_not(None)).distinct())
        names = [name for name in all_names if criteria.matches_name(name)]
        wheres.append(_TABLE.c.name.in_(names) if names else false())
    sort_column = _BY[criteria.sort]
    query = (
        select(*_ENDED)
        .where(*wheres)
        .order_by(sort_column.desc() if criteria.descending else sort_column.asc(), _TABLE.c.id.desc())
    )
    rows = connection.execute(query.limit(criteria.limit).offset(criteria.offset)).all()
    total = connection.scalar(select(func.count()).select_from(_TABLE).where(*wheres)) or 0
    return RunPage([encode.ended_value(row) for row in rows], total, newest=newest)
