"""The stored failures: filtered and sorted, and by task ID."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, func, select, tuple_

from celery_monitor.adapters.store import encode, schema
from celery_monitor.adapters.store.periods import between
from celery_monitor.adapters.store.reader.base import StoreQueries
from celery_monitor.adapters.store.validation import RowId
from celery_monitor.core import paging
from celery_monitor.core.model import Failure
from celery_monitor.core.paging import Page
from celery_monitor.ports import MESSAGES_SEARCHED, FailureFilter

_TABLE: Final = schema.failures
_FAILURE: Final = [_TABLE.c[name] for name in encode.FAILURE]
_BY_TIME: Final = (_TABLE.c.at, _TABLE.c.id)


class FailureQueries(StoreQueries):
    """The failures."""

    def failures(self, criteria: FailureFilter) -> Page[Failure]:
        """See Reader."""
        ordering, position = _order(criteria)
        query = (
            select(_TABLE.c.id, *_FAILURE)
            .where(*self._failure_conditions(criteria))
            .order_by(*(key.desc() if criteria.descending else key.asc() for key in ordering))
            .limit(criteria.limit + 1)
        )
        with self._database.read() as connection:
            page = paging.page(connection.execute(query).all(), criteria.limit, position)
            return Page([Failure(*row[1:]) for row in page.rows], page.next)

    def failure(self, uuid: str) -> list[Failure]:
        """See Reader."""
        query = (
            select(*_FAILURE)
            .where(_TABLE.c.uuid == self._database.text(uuid))
            .order_by(_TABLE.c.at.desc(), _TABLE.c.id.desc())
        )
        with self._database.read() as connection:
            return [Failure(*row) for row in connection.execute(query)]

    def exceptions(self) -> list[str]:
        """See Reader."""
        column = _TABLE.c.exception
        with self._database.read() as connection:
            return list(connection.scalars(select(column).distinct().order_by(column)))

    def _failure_conditions(self, criteria: FailureFilter) -> list[ColumnElement[bool]]:
        """The conditions that a failure has to meet. Raises InvalidCursorError."""
        text = self._database.text
        conditions = between(_TABLE.c.at, criteria.since, criteria.until)
        if criteria.task is not None:
            conditions.append(_TABLE.c.name == text(criteria.task))
        if criteria.exception is not None:
            conditions.append(_TABLE.c.exception == text(criteria.exception))
        if criteria.message is not None:
            newest = select(func.max(_TABLE.c.id)).scalar_subquery()
            conditions.append(_TABLE.c.id > newest - MESSAGES_SEARCHED)
            conditions.append(_TABLE.c.message.icontains(text(criteria.message), autoescape=True))
        if criteria.cursor is not None:
            ordering, _ = _order(criteria)
            if len(ordering) == len(_BY_TIME):
                last: Sequence[Any] = paging.position(criteria.cursor, tuple[float, RowId])
            else:
                value, *rest = paging.position(criteria.cursor, tuple[str, float, RowId])
                last = [text(value), *rest]
            after = tuple_(*ordering) < tuple_(*last) if criteria.descending else tuple_(*ordering) > tuple_(*last)
            conditions.append(after)
        if criteria.tasks is not None:
            conditions.append(self._one_of(_TABLE.c.name, criteria.tasks))
        if criteria.exceptions is not None:
            conditions.append(self._one_of(_TABLE.c.exception, criteria.exceptions))
        return conditions


def _order(criteria: FailureFilter) -> tuple[Sequence[ColumnElement[Any]], Callable[[Any], tuple[object, ...]]]:
    """The columns to sort by, and a function that returns a row's position in that order."""
    if criteria.sort == "at":
        return _BY_TIME, lambda row: (row.at, row.id)
    column = _TABLE.c[criteria.sort]
    return (column, *_BY_TIME), lambda row: (getattr(row, column.name), row.at, row.id)
