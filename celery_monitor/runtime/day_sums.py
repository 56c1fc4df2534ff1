"""What tasks did on a day, read again only where it has changed.

The sums of all tasks together are cheap to read, and counts only grow. While these sums are what they were when the
rows of the single tasks were read, those rows have not changed either, however late events come in.

Of a day that is over only the tasks that failed are kept: about 200 bytes for each.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, Generic, TypeVar

from celery_monitor.core.model import FailingRow, HistoryRow
from celery_monitor.ports import Reader

SETTLED: Final = 900.0
"""Seconds after which few events are still to come for a time."""
_HOUR: Final = 3_600
_DAYS_UNDER_WAY: Final = 2
"""Of them what all tasks did is kept: today, and yesterday until SETTLED."""
_DAYS_OVER: Final = 40
MAX_ROWS: Final = 20_000
"""Of days that are over: in a fleet in which more fails, fewer days are kept."""
_MAX_EARLIER_DAYS: Final = 14
"""Failures by task, of the seven days before each of two others."""

_Fleet = Sequence[HistoryRow]
"""All tasks together by bucket and in order, read before what they are compared with."""
_Sums = tuple[tuple[int, tuple[int, ...]], ...]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Known(Generic[_T]):
    end: int
    fleet: _Sums
    """From the start of the day to ``end``."""
    value: _T


class DaySums:
    """Reads what it does not know yet. For any thread; raises as a Reader."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._failing: dict[int, _Known[Mapping[str, FailingRow]]] = {}
        self._past: dict[int, _Known[Mapping[str, FailingRow]]] = {}
        self._failed: dict[int, _Known[Mapping[str, int]]] = {}
        """All by the start of their day."""

    @property
    def full(self) -> bool:
        """Another day that is over would be kept in the place of an earlier one."""
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
        """See Reader. The hours that are over at ``now`` are kept, and days that are over."""
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
        """The part of a day that is known, at least to ``over``."""
        known = self._failing.get(start)
        if known is not None and known.fleet != _sums(fleet, start, known.end):
            known = None
        if known is not None and known.end >= over:
            return known
        begin, before = (start, {}) if known is None else (known.end, known.value)
        rows = self._rows(begin, over) if begin < over else {}
        return _Known(over, _sums(fleet, start, over), _merged(before, rows) if before else rows)

    def _keep(self, start: int, day: _Known[Mapping[str, FailingRow]]) -> None:
        """A day that is over, and of the others as many as there is space for, the newest."""
        left, kept = MAX_ROWS - len(day.value), {start: day}
        for at, other in sorted(self._past.items(), reverse=True):
            left -= 0 if at == start else len(other.value)
            if at != start and (left < 0 or len(kept) >= _DAYS_OVER):
                break
            kept.setdefault(at, other)
        self._past = kept
        self._failing = {at: one for at, one in [*self._failing.items()] if at != start}

    def _rows(self, start: int, end: int) -> Mapping[str, FailingRow]:
        return {row.name: row for row in self._reader.failing(start, end, clean=True)}


def _sums(fleet: _Fleet, start: int, end: int) -> _Sums:
    first, last = (bisect_left(fleet, at, key=attrgetter("start")) for at in (start, end))
    return tuple((row.start, row.counts) for row in fleet[first:last])


def _same(known: _Known[_T] | None, end: int, sums: _Sums) -> _T | None:
    """What is known of a day up to ``end``, where its counts are still these."""
    return known.value if known is not None and (known.end, known.fleet) == (end, sums) else None


def _with(known: Mapping[int, _T], start: int, value: _T, most: int) -> dict[int, _T]:
    """The newest ``most``, as a new mapping: another thread may be reading the old one."""
    others = [(each, one) for each, one in [*known.items()] if each != start]
    return dict([*others, (start, value)][-most:])


def _merged(before: Mapping[str, FailingRow], after: Mapping[str, FailingRow]) -> Mapping[str, FailingRow]:
    """What tasks did in one time and in the one that follows it."""
    both = {name: _added(before[name], row) for name, row in after.items() if name in before}
    return {**before, **after, **both}


def _added(one: FailingRow, other: FailingRow) -> FailingRow:
    """``other`` is of the later time."""
    sums = one.succeeded + other.succeeded, one.failed + other.failed, one.retried + other.retried
    return FailingRow(one.name, *sums, one.first or other.first, other.last or one.last)
