"""When a schedule is expected to start.

On the days on which clocks change, schedulers differ. Measured with Celery 5's ``crontab`` in a local time zone: in the
hour that comes twice it starts nothing the second time, and what is due in the hour that is left out starts as long
after it as it would have started within it (02:30 at 03:30). Others start at the change, or in the second of the two
hours. So the second of two equal local times is not expected, and around a change there is as much more time as the
clock jumps.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Final

from celery_monitor.core.rules import Rule

MAX_EARLY: Final = 60.0
"""Seconds by which a start may seem too early: clocks differ by less, what is more is corrected."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """One entry of ``schedules``. Durations in seconds."""

    name: str
    task: str
    spec: str
    """All of it in one line, for people: ``0 3 * * * Europe/Berlin``, ``every 5m``."""
    rule: Rule
    """Who hears of it."""
    grace: float
    every: float = 0.0
    """Seconds from one start to the next; 0 where ``next_time`` tells."""
    next_time: Callable[[float], float | None] | None = field(default=None, compare=False)
    """The earliest time of its cron expression after a time."""
    zone: tzinfo = UTC
    max_runtime: float = 0.0
    """0: no bound."""

    def expected(self, after: float) -> float:
        """The next time at which it must start, after a time; 0 when there is none. Not for ``every``."""
        at = None if self.next_time is None else self.next_time(after)
        while at is not None and self.next_time is not None and _is_second(at, self.zone):
            at = self.next_time(at)
        return at or 0.0

    def deadline(self, due: float) -> float:
        """By when it must have started."""
        return due + self.grace + (0.0 if self.every else _jump(due, self.zone))

    def earliest(self, due: float) -> float:
        """From when on a start belongs to ``due``."""
        if self.every:
            return due - min(MAX_EARLY, self.every / 2)
        return due - min(MAX_EARLY, max(0.0, self.expected(due) - due) / 2 or MAX_EARLY)


def _is_second(at: float, zone: tzinfo) -> bool:
    """Whether the local clock has shown this time before."""
    return datetime.fromtimestamp(at, zone).fold == 1


def _jump(at: float, zone: tzinfo) -> float:
    """Seconds by which clocks change at this time, or by which this local time comes again."""
    local = datetime.fromtimestamp(at, zone)
    now, before = local.utcoffset(), datetime.fromtimestamp(at - 1, zone).utcoffset()
    again = local.replace(fold=1).utcoffset()
    if now is None or before is None or again is None:
        return 0.0
    return max(0.0, (now - before).total_seconds(), (now - again).total_seconds())
