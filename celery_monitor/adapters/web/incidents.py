"""Incidents by pages and filters, which the Reader's query has not."""

import math
from collections.abc import Callable
from typing import Final

from celery_monitor.adapters.web.parameters import bad_cursor
from celery_monitor.core.model import Incident, IncidentRow
from celery_monitor.ports import Reader

_PORTION: Final = 500
_SEPARATOR: Final = " "

Position = tuple[float, str]
"""(-first_at, key): ascending in the order of the list, which is newest first."""


def position(row: IncidentRow) -> Position:
    """Where an incident stands in the list."""
    return -row.incident.first_at, row.incident.key


def cursor_of(row: IncidentRow) -> str:
    """The cursor of what comes after an incident."""
    return f"{row.incident.first_at!r}{_SEPARATOR}{row.incident.key}"


def parse_cursor(cursor: str | None) -> Position | None:
    """The inverse of ``cursor_of``. Raises ParameterError."""
    if cursor is None:
        return None
    first_at, separator, key = cursor.partition(_SEPARATOR)
    try:
        at = float(first_at)
    except ValueError as exc:
        raise bad_cursor() from exc
    if not separator or not math.isfinite(at):
        raise bad_cursor()
    return -at, key


def page(
    reader: Reader,
    *,
    since: float | None,
    until: float | None,
    after: Position | None,
    limit: int,
    wanted: Callable[[Incident], bool],
) -> tuple[list[IncidentRow], str | None]:
    """At most ``limit`` incidents after a position, newest first, and the cursor of the next page."""
    found: list[IncidentRow] = []
    while len(found) <= limit:
        # The bound is exclusive, and incidents may share their time with the last one of the page before.
        before = until if after is None else min(until or math.inf, math.nextafter(-after[0], math.inf))
        rows = reader.incidents(since=since, until=before, limit=_PORTION)
        fresh = [row for row in rows if after is None or position(row) > after]
        found += [row for row in fresh if wanted(row.incident)]
        if len(rows) < _PORTION or not fresh:
            break
        after = position(fresh[-1])
    shown = found[:limit]
    return shown, cursor_of(shown[-1]) if len(found) > limit else None
