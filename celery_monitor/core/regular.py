"""Detects tasks that run regularly, and their schedules, from the times at which they started.

It finds two kinds. *At times of the day*: the starts cluster at one or a few local times, on (almost) every day or on
the same weekdays. *At an interval*: the times between consecutive starts are about equal. Times of the day are checked
first, as they are the stronger statement.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from itertools import pairwise
from statistics import median
from typing import Final

from celery_monitor.core.headline import duration

MIN_RUNS: Final = 4
"""Minimum number of starts for a suggestion."""
MIN_DAYS: Final = 3
TOLERANCE: Final = 60.0
"""Seconds by which a start may deviate: if a task waits longer in its queue, its schedule cannot be detected."""
SHARE: Final = 0.9
"""Minimum fraction of the expected starts that were seen, and of the starts that were expected."""
MAX_TIMES: Final = 24
"""Starts per day; more of them are an interval."""
_DAY: Final = 86_400
_NICE: Final = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10_800, 14_400, 21_600, 43_200)
"""Intervals that people usually configure, in seconds."""
_ALL: Final = 7


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A schedule that fits the observed starts."""

    task: str
    cron: str | None
    every: float | None
    """Seconds."""
    grace: float
    """Seconds; derived from the deviation of the starts."""
    evidence: str


def suggestion(task: str, starts: Sequence[float], zone: tzinfo) -> Suggestion | None:
    """The schedule that fits these starts (Unix seconds, in order); None if there is none."""
    if len(starts) < MIN_RUNS:
        return None
    return _daily(task, starts, zone) or _interval(task, starts)


def _interval(task: str, starts: Sequence[float]) -> Suggestion | None:
    steps = [later - earlier for earlier, later in pairwise(starts)]
    usual = median(steps)
    nearest = min(_NICE, key=lambda nice: abs(nice - usual))
    tolerance = max(1.0, min(TOLERANCE, usual * 0.1))
    # A missing start makes one step twice as long. It is a miss, and does not disprove the interval.
    fitting = [step for step in steps if abs(step - usual) <= tolerance]
    if usual < 1 or abs(nearest - usual) > max(0.5, nearest * 0.02) or len(fitting) < SHARE * len(steps):
        return None
    deviation = max(abs(step - nearest) for step in fitting)
    evidence = f"every {duration(nearest)} ± {_seconds(deviation)}, {len(fitting)} of {len(steps)} times"
    return Suggestion(task, None, float(nearest), _grace(deviation, nearest), evidence)


def _daily(task: str, starts: Sequence[float], zone: tzinfo) -> Suggestion | None:
    local = [datetime.fromtimestamp(at, zone) for at in starts]
    clusters = _clusters(
        [
            (start.hour * 3600 + start.minute * 60 + start.second + start.microsecond / 1e6, start.date())
            for start in local
        ]
    )
    if not 0 < len(clusters) <= MAX_TIMES:
        return None
    first, last = local[0].date(), local[-1].date()
    weekdays = _weekdays([start.date() for start in local], first, last)
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    expected = [day for day in days if day.weekday() in weekdays]
    if len(expected) < MIN_DAYS:
        return None
    days_seen = [len(set(cluster_days) & set(expected)) for _, _, cluster_days in clusters]
    # Only part of the first and the last day may be known.
    if min(days_seen) < SHARE * (len(expected) - 2) or sum(days_seen) < SHARE * len(starts):
        return None
    cron = _cron([time for time, _, _ in clusters], weekdays)
    if cron is None:
        return None
    deviation = max(spread for _, spread, _ in clusters)
    hour, minute = divmod(clusters[0][0] // 60, 60)
    times = f"{hour:02}:{minute:02}" if len(clusters) == 1 else f"{len(clusters)} times a day"
    evidence = f"{times} ± {_seconds(deviation)}, {min(days_seen)} of {len(expected)} days"
    return Suggestion(task, cron, None, _grace(deviation, _DAY / len(clusters)), evidence)


def _clusters(points: Sequence[tuple[float, date]]) -> list[tuple[int, float, list[date]]]:
    """Groups of starts at the same minute: (its second of the day, largest deviation in seconds, days)."""
    by_minute: dict[int, list[tuple[float, date]]] = defaultdict(list)
    for second, day in points:
        minute = int(second) // 60 * 60
        # A task sent on the minute starts shortly after it; with a clock that is behind, it seems to start before.
        by_minute[minute + 60 if second - minute >= 55 else minute].append((second, day))  # noqa: PLR2004
    return [
        (minute % _DAY, max(abs(second - minute) for second, _ in starts), [day for _, day in starts])
        for minute, starts in sorted(by_minute.items())
    ]


def _weekdays(days: Sequence[date], first: date, last: date) -> set[int]:
    """The weekdays that have starts; all weekdays if less than two weeks are known, too few to tell."""
    counts = Counter(day.weekday() for day in set(days))
    if (last - first).days < 2 * _ALL or len(counts) == _ALL:
        return set(range(_ALL))
    return set(counts)


def _cron(times: Sequence[int], weekdays: set[int]) -> str | None:
    """The cron expression; None if a single one cannot express these times."""
    minutes = sorted({time // 60 % 60 for time in times})
    hours = sorted({time // 3600 for time in times})
    if len(minutes) * len(hours) != len(times):
        return None
    days = "*" if len(weekdays) == _ALL else _ranges(sorted((day + 1) % _ALL for day in weekdays))
    every_hour = len(hours) == 24  # noqa: PLR2004
    return f"{','.join(map(str, minutes))} {'*' if every_hour else ','.join(map(str, hours))} * * {days}"


def _ranges(numbers: Sequence[int]) -> str:
    contiguous = numbers[-1] - numbers[0] + 1 == len(numbers) > 2  # noqa: PLR2004
    return f"{numbers[0]}-{numbers[-1]}" if contiguous else ",".join(map(str, numbers))


def _grace(deviation: float, interval: float) -> float:
    """Five times the observed deviation, at least a minute, and less than half of the interval."""
    minimum = max(60.0, 5 * deviation)
    rounded = next((nice for nice in _NICE if nice >= minimum), minimum)
    return float(min(rounded, max(1.0, interval // 2)))


def _seconds(deviation: float) -> str:
    return f"{deviation:.1f} s" if deviation < 1 else f"{deviation:.0f} s"
