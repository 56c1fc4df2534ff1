"""Cron expressions with five fields, and time windows that begin at their times."""

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
_REFERENCE_TIME: Final = datetime(2024, 1, 1, tzinfo=UTC)
LONGEST: Final = MAX_SILENCE
"""Maximum seconds that mute windows may cover without a break: as long as the longest silence."""
_PERIOD: Final = 400 * DAY
"""Seconds after which the times of an expression repeat."""
_MINUTES: Final = 50_000
"""Maximum number of times of an expression that are checked: more than 30 days of minutes."""
_COMPARED: Final = 400
"""Number of consecutive times that are compared: more than a year of a daily expression."""


def _cron(value: str) -> str:
    if len(value.split()) != len(_FIELDS.split()):  # cronsim also takes six, with seconds
        raise ValueError(f"must have five fields: {_FIELDS}, as in 0 8 * * 1-5")
    try:
        CronSim(value, _REFERENCE_TIME)
    except CronSimError as exc:
        raise ValueError(f"is not a valid cron expression: {str(exc).lower()} ({_FIELDS})") from None
    return value


Cron = Annotated[str, AfterValidator(_cron)]


def sample_times(expression: str, timezone: str) -> Iterator[float]:
    """Up to _COMPARED consecutive times of the expression, in Unix seconds."""
    start = _REFERENCE_TIME.astimezone(ZoneInfo(timezone))
    return (at.timestamp() for at in islice(CronSim(expression, start), _COMPARED))


def shortest_interval(expression: str, timezone: str) -> float:
    """The shortest time between two consecutive times, in seconds; infinite if there is only one.

    Times in a skipped hour coincide; they are not compared.
    """
    times = sample_times(expression, timezone)
    return min((later - earlier for earlier, later in pairwise(times) if later - earlier >= MINUTE), default=inf)


def never_end(windows: Sequence[tuple[str, str, float]]) -> bool:
    """Whether the windows together cover a period longer than the longest silence without a break.

    Each window is (cron expression, time zone, duration in seconds).
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
    start = _REFERENCE_TIME.astimezone(ZoneInfo(timezone))
    times = (at.timestamp() for at in islice(CronSim(expression, start), _MINUTES))
    return takewhile(lambda at: at < _REFERENCE_TIME.timestamp() + _PERIOD, times)
