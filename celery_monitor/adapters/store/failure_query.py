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


def conditions(wanted: FailureFilter, text: Callable[[str], str]) -> list[ColumnElement[bool]]:
    """All of these have to hold. ``text``: a text as the database stores it."""
    table = schema.failures
    wheres = between(table.c.at, wanted.since, wanted.until)
    if wanted.task is not None:
        wheres.append(table.c.name == text(wanted.task))
    if wanted.exception is not None:
        wheres.append(table.c.exception == text(wanted.exception))
    if wanted.message is not None:
        newest = select(func.max(table.c.id)).scalar_subquery()
        wheres.append(table.c.id > newest - MESSAGES_SEARCHED)
        wheres.append(table.c.message.icontains(text(wanted.message), autoescape=True))
    if wanted.cursor is not None:
        by, _ = order(wanted)
        if len(by) == len(_BY_TIME):
            last: Sequence[Any] = paging.position(wanted.cursor, tuple[float, RowId])
        else:
            value, *rest = paging.position(wanted.cursor, tuple[str, float, RowId])
            last = [text(value), *rest]
        wheres.append(tuple_(*by) < tuple_(*last) if wanted.descending else tuple_(*by) > tuple_(*last))
    return wheres


def order(wanted: FailureFilter) -> tuple[Sequence[ColumnElement[Any]], Callable[[Any], tuple[object, ...]]]:
    """What failures are sorted by, and the position of a row in that order."""
    if wanted.sort == "at":
        return _BY_TIME, lambda row: (row.at, row.id)
    column = schema.failures.c[wanted.sort]
    return (column, *_BY_TIME), lambda row: (getattr(row, column.name), row.at, row.id)
