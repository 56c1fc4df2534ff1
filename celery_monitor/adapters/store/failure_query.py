"""Which failures a filter asks for, and in which order."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, func, select, tuple_

from celery_monitor.adapters.store import schema
from celery_monitor.adapters.store.periods import between
from celery_monitor.adapters.store.validation import RowId
from celery_monitor.core import paging
from celery_monitor.ports import MESSAGES_SEARCHED, FailureFilter

_BY_TIME: Final = (schema.failures.c.at, schema.failures.c.id)


def conditions(criteria: FailureFilter, text: Callable[[str], str]) -> list[ColumnElement[bool]]:
    """All of these have to hold. ``text``: a text as the database stores it."""
    table = schema.failures
    wheres = between(table.c.at, criteria.since, criteria.until)
    if criteria.task is not None:
        wheres.append(table.c.name == text(criteria.task))
    if criteria.exception is not None:
        wheres.append(table.c.exception == text(criteria.exception))
    if criteria.message is not None:
        newest = select(func.max(table.c.id)).scalar_subquery()
        wheres.append(table.c.id > newest - MESSAGES_SEARCHED)
        wheres.append(table.c.message.icontains(text(criteria.message), autoescape=True))
    if criteria.cursor is not None:
        ordering, _ = order(criteria)
        if len(ordering) == len(_BY_TIME):
            last: Sequence[Any] = paging.position(criteria.cursor, tuple[float, RowId])
        else:
            value, *rest = paging.position(criteria.cursor, tuple[str, float, RowId])
            last = [text(value), *rest]
        wheres.append(tuple_(*ordering) < tuple_(*last) if criteria.descending else tuple_(*ordering) > tuple_(*last))
    return wheres


def order(criteria: FailureFilter) -> tuple[Sequence[ColumnElement[Any]], Callable[[Any], tuple[object, ...]]]:
    """What failures are sorted by, and the position of a row in that order."""
    if criteria.sort == "at":
        return _BY_TIME, lambda row: (row.at, row.id)
    column = schema.failures.c[criteria.sort]
    return (column, *_BY_TIME), lambda row: (getattr(row, column.name), row.at, row.id)
