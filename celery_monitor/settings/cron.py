"""Cron expressions with five fields, and windows of time that begin at one."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, islice, pairwise, takewhile
from math import inf
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator

from celery_monitor.core.model import MAX_SILENCE
from celery_monitor.settings.units import DAY, MINUTE

_FIELDS: Final = "minute hour day month weekday"
_SOME_DAY: Final = datetime(2024, 1, 1, tzinfo=UTC)
LONGEST: Final = MAX_SILENCE
"""Seconds that mute windows may cover without a break: as long as the longest silence."""
_PERIOD: Final = 400 * DAY
"""Seconds after which the times of an expression come again."""
_MINUTES: Final = 50_000
"""Times of an expression that are looked at: 30 days of every minute, and some."""
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


def never_end(windows: Sequence[tuple[str, str, float]]) -> bool:
    """Whether windows leave no time between them for longer than a silence may last.

    Each is an expression, its time zone, and the seconds from each of its times.
    """
    starts = ([(at, lasting) for at in _first_times(cron, zone)] for cron, zone, lasting in windows)
    begin = end = -inf
    for at, lasting in sorted(chain.from_iterable(starts)):
        if at > end:
            begin = at
        end = max(end, at + lasting)
        if end - begin > LONGEST:
            return True
    return False


def _first_times(expression: str, timezone: str) -> Iterator[float]:
    start = _SOME_DAY.astimezone(ZoneInfo(timezone))
    times = (at.timestamp() for at in islice(CronSim(expression, start), _MINUTES))
    return takewhile(lambda at: at < _SOME_DAY.timestamp() + _PERIOD, times)
