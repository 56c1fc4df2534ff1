"""A cache of the per-task counts of a day, read from the store again only when they have changed.

The totals over all tasks are cheap to read, and counts only grow. As long as the totals equal those at the time when
the per-task rows were read, the rows are still valid, however late events arrive.

For past days only the tasks with failures are cached, about 200 bytes each.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, Generic, TypeVar

from celery_monitor.core.model import FailingRow, HistoryRow
from celery_monitor.ports import Reader

SETTLED: Final = 900.0
"""Seconds after the end of an hour after which few late events for it are expected."""
_HOUR: Final = 3_600
_DAYS_UNDER_WAY: Final = 2
"""Days cached with all their tasks: today, and yesterday until SETTLED."""
_DAYS_OVER: Final = 40
"""Past days cached at most."""
MAX_ROWS: Final = 20_000
"""Rows cached of all past days together: with many failing tasks, fewer days are cached."""
_MAX_EARLIER_DAYS: Final = 14
"""Days of which failures by task are cached: the seven days before each of two reported days."""

_Fleet = Sequence[HistoryRow]
"""Totals over all tasks by bucket, in order. Must be read before the rows that they validate."""
_Sums = tuple[tuple[int, tuple[int, ...]], ...]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Known(Generic[_T]):
    end: int
    fleet: _Sums
    """Totals from the start of the day to ``end``, when the value was read."""
    value: _T


class DaySums:
    """Caches reads of a Reader, and raises as it does. Safe from several threads."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._failing: dict[int, _Known[Mapping[str, FailingRow]]] = {}
        self._past: dict[int, _Known[Mapping[str, FailingRow]]] = {}
        self._failed: dict[int, _Known[Mapping[str, int]]] = {}
        """All three by the start of the day."""

    @property
    def full(self) -> bool:
        """Whether caching another past day would evict an earlier one."""
        days = [*self._past.values()]
        return len(days) >= _DAYS_OVER or sum(len(day.value) for day in days) >= MAX_ROWS

    def failed(self, start: int, end: int, fleet: _Fleet) -> Mapping[str, int]:
        """See Reader."""
        sums = _sums(fleet, start, end)
        if (past := _same(self._past.get(start), end, sums)) is not None:
            return {name: row.failed for name, row in past.items()}
        failed = _same(self._failed.get(start), end, sums)
        if failed is None:
            failed = self._reader.failed(start, end)
            self._failed = _with(self._failed, start, _Known(end, sums, failed), _MAX_EARLIER_DAYS)
        return failed

    def failing(self, start: int, end: int, fleet: _Fleet, now: float) -> list[FailingRow]:
        """See Reader. Caches the hours that are over at ``now``, and past days."""
        sums = _sums(fleet, start, end)
        if (past := _same(self._past.get(start), end, sums)) is not None:
            return [*past.values()]
        over = end if now - SETTLED >= end else max(start, int(now - SETTLED) // _HOUR * _HOUR)
        known = self._over(start, over, fleet)
        rest = self._rows(known.end, end) if known.end < end else {}
        both = known.value if not rest else _merged(known.value, rest)
        rows = {name: both[name] for name in sorted(both) if both[name].failed}
        if over == end:
            self._keep(start, _Known(end, sums, rows))
        elif known is not self._failing.get(start):
            self._failing = _with(self._failing, start, known, _DAYS_UNDER_WAY)
        return [*rows.values()]

    def _over(self, start: int, over: int, fleet: _Fleet) -> _Known[Mapping[str, FailingRow]]:
        """The cached part of a day, extended to ``over`` if it ends earlier."""
        known = self._failing.get(start)
        if known is not None and known.fleet != _sums(fleet, start, known.end):
            known = None
        if known is not None and known.end >= over:
            return known
        begin, before = (start, {}) if known is None else (known.end, known.value)
        rows = self._rows(begin, over) if begin < over else {}
        return _Known(over, _sums(fleet, start, over), _merged(before, rows) if before else rows)

    def _keep(self, start: int, day: _Known[Mapping[str, FailingRow]]) -> None:
        """Cache a past day, and drop the oldest others for which there is no space."""
        left, days = MAX_ROWS - len(day.value), {start: day}
        for at, other in sorted(self._past.items(), reverse=True):
            left -= 0 if at == start else len(other.value)
            if at != start and (left < 0 or len(days) >= _DAYS_OVER):
                break
            days.setdefault(at, other)
        self._past = days
        self._failing = {at: one for at, one in [*self._failing.items()] if at != start}

    def _rows(self, start: int, end: int) -> Mapping[str, FailingRow]:
        return {row.name: row for row in self._reader.failing(start, end, clean=True)}


def _sums(fleet: _Fleet, start: int, end: int) -> _Sums:
    first, last = (bisect_left(fleet, at, key=attrgetter("start")) for at in (start, end))
    return tuple((row.start, row.counts) for row in fleet[first:last])


def _same(known: _Known[_T] | None, end: int, sums: _Sums) -> _T | None:
    """The cached value of a day up to ``end`` if its totals are still the same, else None."""
    return known.value if known is not None and (known.end, known.fleet) == (end, sums) else None


def _with(known: Mapping[int, _T], start: int, value: _T, limit: int) -> dict[int, _T]:
    """A copy with this value added, the newest ``limit`` only; another thread may be reading the original."""
    others = [(each, one) for each, one in [*known.items()] if each != start]
    return dict([*others, (start, value)][-limit:])


def _merged(before: Mapping[str, FailingRow], after: Mapping[str, FailingRow]) -> Mapping[str, FailingRow]:
    """Add up the rows of two consecutive spans."""
    both = {name: _added(before[name], row) for name, row in after.items() if name in before}
    return {**before, **after, **both}


def _added(one: FailingRow, other: FailingRow) -> FailingRow:
    """``other`` is of the later time."""
    sums = one.succeeded + other.succeeded, one.failed + other.failed, one.retried + other.retried
    return FailingRow(one.name, *sums, one.first or other.first, other.last or one.last)
