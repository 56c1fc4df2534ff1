"""Cron expressions with five fields, and windows of time that begin at one."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice, pairwise
from math import inf
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator

from celery_monitor.settings.units import MINUTE

_FIELDS: Final = "minute hour day month weekday"
_SOME_DAY: Final = datetime(2024, 1, 1, tzinfo=UTC)
_COMPARED: Final = 400
"""Consecutive times of an expression; more than a year of one that is due each day."""


def _cron(value: str) -> str:
    if len(value.split()) != len(_FIELDS.split()):  # cronsim also takes six, with seconds
        raise ValueError(f"must have five fields: {_FIELDS}, as in 0 8 * * 1-5")
    try:
        CronSim(value, _SOME_DAY)
    except CronSimError as exc:
        raise ValueError(f"is not a valid cron expression: {str(exc).lower()} ({_FIELDS})") from None
    return value


Cron = Annotated[str, AfterValidator(_cron)]


def some_times(expression: str, timezone: str) -> Iterator[float]:
    """Consecutive times of the expression, in unix seconds; fewer where it has no more."""
    start = _SOME_DAY.astimezone(ZoneInfo(timezone))
    return (at.timestamp() for at in islice(CronSim(expression, start), _COMPARED))


def shortest_interval(expression: str, timezone: str) -> float:
    """The shortest time in seconds from one time to the next; infinite where there is one time only.

    In the hour that is left out times fall together; those are not compared.
    """
    times = some_times(expression, timezone)
    return min((later - earlier for earlier, later in pairwise(times) if later - earlier >= MINUTE), default=inf)


def never_ends(expression: str, timezone: str, lasting: float) -> bool:
    """Whether windows of ``lasting`` seconds, one at each time of the expression, leave no time between them."""
    times = list(some_times(expression, timezone))
    return len(times) > 1 and all(later - earlier <= lasting for earlier, later in pairwise(times))
