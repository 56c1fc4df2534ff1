"""The history of ended runs: filtered and sorted, and by task ID."""

from typing import Any, Final

from sqlalchemy import ColumnElement, Select, false, func, select

from celery_monitor.adapters.store import encode, schema
from celery_monitor.adapters.store.reader.base import StoreQueries
from celery_monitor.core.lookup import RunPage
from celery_monitor.core.model import TaskRun
from celery_monitor.ports import ENDED_SEARCHED, EndedFilter

_TABLE: Final = schema.ended_tasks
_ENDED: Final = [_TABLE.c[name] for name in encode.ENDED]
_SORT_COLUMNS: Final[dict[str, ColumnElement[Any]]] = {
    "ended": _TABLE.c.id,
    "name": func.coalesce(_TABLE.c.name, ""),
    "stage": _TABLE.c.stage,
    "runtime": func.coalesce(_TABLE.c.runtime, -1.0),
    "hostname": _TABLE.c.hostname,
}


class EndedQueries(StoreQueries):
    """The ended runs."""

    def ended(self, uuid: str) -> list[TaskRun]:
        """See Reader."""
        query = select(*_ENDED).where(_TABLE.c.uuid == self._database.text(uuid))
        return self._runs(query.order_by(_TABLE.c.id.desc()))

    def ended_runs(self, criteria: EndedFilter) -> RunPage:
        """See Reader."""
        with self._database.read() as connection:
            newest = criteria.newest
            if newest is None:
                newest = connection.scalar(select(func.max(_TABLE.c.id))) or 0
            conditions = [_TABLE.c.id > newest - ENDED_SEARCHED, _TABLE.c.id <= newest]
            exact = (_TABLE.c.queue, criteria.queue), (_TABLE.c.hostname, criteria.hostname)
            conditions += [column == self._database.text(value) for column, value in exact if value is not None]
            if criteria.stage is not None:
                conditions.append(_TABLE.c.stage == criteria.stage)
            if criteria.matches_name is not None:
                named = select(_TABLE.c.name).where(*conditions, _TABLE.c.name.is_not(None)).distinct()
                names = [name for name in connection.scalars(named) if criteria.matches_name(name)]
                conditions.append(_TABLE.c.name.in_(names) if names else false())
            sort_column = _SORT_COLUMNS[criteria.sort]
            query = (
                select(*_ENDED)
                .where(*conditions)
                .order_by(sort_column.desc() if criteria.descending else sort_column.asc(), _TABLE.c.id.desc())
            )
            rows = connection.execute(query.limit(criteria.limit).offset(criteria.offset)).all()
            total = connection.scalar(select(func.count()).select_from(_TABLE).where(*conditions)) or 0
            return RunPage([encode.ended_value(row) for row in rows], total, newest=newest)

    def sent_by(self, uuid: str, limit: int) -> list[TaskRun]:
        """See Reader. No index finds runs by parent, so only the newest ENDED_SEARCHED runs are searched."""
        newest = ~schema.beyond(ENDED_SEARCHED)
        query = select(*_ENDED).where(newest, _TABLE.c.parent == self._database.text(uuid))
        return self._runs(query.order_by(_TABLE.c.id.desc()).limit(limit))

    def ended_since(self) -> float | None:
        """See Reader."""
        with self._database.read() as connection:
            ended_at: float | None = connection.scalar(select(_TABLE.c.ended_at).order_by(_TABLE.c.id).limit(1))
            return ended_at

    def _runs(self, query: Select[Any]) -> list[TaskRun]:
        with self._database.read() as connection:
            return [encode.ended_value(row) for row in connection.execute(query)]
