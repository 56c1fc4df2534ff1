"""Calculates when a schedule is expected to start.

Schedulers differ on days on which clocks change. Celery 5's ``crontab`` in a local time zone (measured) starts nothing
in the second of two equal hours, and starts a task due in a skipped hour one hour later (02:30 at 03:30). Others start
it at the change, or in the second of the two hours. So no start is expected at the second of two equal local times, and
around a change the grace is extended by the size of the change.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Final

from celery_monitor.core.rules import Rule

MAX_EARLY: Final = 60.0
"""Seconds by which a start may appear too early: larger clock differences are corrected."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """One entry of ``schedules``. Durations in seconds."""

    name: str
    task: str
    spec: str
    """The schedule in one readable line: ``0 3 * * * Europe/Berlin``, ``every 5m``."""
    rule: Rule
    """The rule for its incidents."""
    grace: float
    every: float = 0.0
    """Seconds between starts; 0 if ``next_time`` is used."""
    next_time: Callable[[float], float | None] | None = field(default=None, compare=False)
    """The first time of its cron expression after a given time."""
    zone: tzinfo = UTC
    max_runtime: float = 0.0
    """0: unlimited."""

    def expected(self, after: float) -> float:
        """The next expected start after a given time; 0 if there is none. Not for ``every``."""
        at = None if self.next_time is None else self.next_time(after)
        while at is not None and self.next_time is not None and _is_second(at, self.zone):
            at = self.next_time(at)
        return at or 0.0

    def deadline(self, due: float) -> float:
        """Time by which it must have started."""
        return due + self.grace + (0.0 if self.every else _jump(due, self.zone))

    def earliest(self, due: float) -> float:
        """Earliest start that belongs to ``due``."""
        if self.every:
            return due - min(MAX_EARLY, self.every / 2)
        return due - min(MAX_EARLY, max(0.0, self.expected(due) - due) / 2 or MAX_EARLY)


def _is_second(at: float, zone: tzinfo) -> bool:
    """Whether it is the second of two equal local times."""
    return datetime.fromtimestamp(at, zone).fold == 1


def _jump(at: float, zone: tzinfo) -> float:
    """Seconds by which clocks change at this time, or after which this local time repeats."""
    local = datetime.fromtimestamp(at, zone)
    now, before = local.utcoffset(), datetime.fromtimestamp(at - 1, zone).utcoffset()
    again = local.replace(fold=1).utcoffset()
    if now is None or before is None or again is None:
        return 0.0
    return max(0.0, (now - before).total_seconds(), (now - again).total_seconds())
