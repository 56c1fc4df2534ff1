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


def listed(connection: Connection, wanted: EndedFilter, text: Callable[[str], str]) -> RunPage:
    """See Reader.ended_runs. ``text``: a text as the database stores it."""
    newest = wanted.newest
    if newest is None:
        newest = connection.scalar(select(func.max(_TABLE.c.id))) or 0
    wheres = [_TABLE.c.id > newest - ENDED_SEARCHED, _TABLE.c.id <= newest]
    exact = (_TABLE.c.queue, wanted.queue), (_TABLE.c.hostname, wanted.hostname)
    wheres += [column == text(value) for column, value in exact if value is not None]
    if wanted.stage is not None:
        wheres.append(_TABLE.c.stage == wanted.stage)
    if wanted.named is not None:
        known = connection.scalars(select(_TABLE.c.name).where(*wheres, _TABLE.c.name.is_not(None)).distinct())
        names = [name for name in known if wanted.named(name)]
        wheres.append(_TABLE.c.name.in_(names) if names else false())
    by = _BY[wanted.sort]
    query = select(*_ENDED).where(*wheres).order_by(by.desc() if wanted.descending else by.asc(), _TABLE.c.id.desc())
    rows = connection.execute(query.limit(wanted.limit).offset(wanted.offset)).all()
    total = connection.scalar(select(func.count()).select_from(_TABLE).where(*wheres)) or 0
    return RunPage([encode.ended_value(row) for row in rows], total, newest=newest)
