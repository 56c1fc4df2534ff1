"""Conditions for rows of a period.

The limits of a period are floats, and most time columns are integers. PostgreSQL would convert the column to compare
the two, and so read its whole index; therefore the limit is rounded instead.
"""

import math
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import ColumnElement, Integer

from celery_monitor.core.model import BUCKET_SECONDS

_MAX_ROUNDED: Final = 1 << 62
"""Larger limits are compared as they are: a 64-bit integer column has no such value."""


def between(column: Any, since: float | None, until: float | None) -> list[ColumnElement[bool]]:  # noqa: ANN401 - a column
    """Rows in [since, until). None means no limit."""
    return [
        *([] if since is None else [column >= _limit(column, since, math.ceil)]),
        *([] if until is None else [column < _limit(column, until, math.ceil)]),
    ]


def up_to(column: Any, last: float) -> ColumnElement[bool]:  # noqa: ANN401 - a column
    """Rows at ``last`` or earlier."""
    condition: ColumnElement[bool] = column <= _limit(column, last, math.floor)
    return condition


def overlapping(start: Any, since: float | None, until: float | None) -> list[ColumnElement[bool]]:  # noqa: ANN401 - a column
    """Buckets that overlap [since, until), by the column of their start. None means no limit."""
    after = [] if since is None else [start > _limit(start, since - BUCKET_SECONDS, math.floor)]
    return [*after, *between(start, None, until)]


def _limit(column: Any, limit: float, rounding: Callable[[float], int]) -> float:  # noqa: ANN401 - a column
    return rounding(limit) if isinstance(column.type, Integer) and abs(limit) < _MAX_ROUNDED else limit
