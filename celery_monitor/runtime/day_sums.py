"""What tasks did on a day, read again only where it has changed.

The sums of all tasks together are cheap to read, and counts only grow. While these sums are what they were when the
rows of the single tasks were read, those rows have not changed either, however late events come in.
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
_DAYS_KEPT: Final = 2
"""Today and yesterday: what all of their tasks did."""
_EARLIER_DAYS_KEPT: Final = 14
"""Failures by task, of the seven days before each of these."""

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
        self._failed: dict[int, _Known[Mapping[str, int]]] = {}
        """Both by the start of their day."""

    def failed(self, start: int, end: int, fleet: _Fleet) -> Mapping[str, int]:
        """See Reader."""
        sums, known = _sums(fleet, start, end), self._failed.get(start)
        if known is None or (known.end, known.fleet) != (end, sums):
            known = _Known(end, sums, self._reader.failed(start, end))
            self._failed = _with(self._failed, start, known, _EARLIER_DAYS_KEPT)
        return known.value

    def failing(self, start: int, end: int, fleet: _Fleet, now: float) -> list[FailingRow]:
        """See Reader. The hours that are over at ``now`` are kept."""
        over = end if now - SETTLED >= end else max(start, int(now - SETTLED) // _HOUR * _HOUR)
        known = self._over(start, over, fleet)
        rest = self._rows(known.end, end) if known.end < end else {}
        both = known.value if not rest else _merged(known.value, rest)
        return [both[name] for name in sorted(both) if both[name].failed]

    def _over(self, start: int, over: int, fleet: _Fleet) -> _Known[Mapping[str, FailingRow]]:
        """The part of a day that is known, at least to ``over``."""
        known = self._failing.get(start)
        if known is not None and known.fleet != _sums(fleet, start, known.end):
            known = None
        if known is not None and known.end >= over:
            return known
        begin, before = (start, {}) if known is None else (known.end, known.value)
        rows = self._rows(begin, over) if begin < over else {}
        known = _Known(over, _sums(fleet, start, over), _merged(before, rows) if before else rows)
        self._failing = _with(self._failing, start, known, _DAYS_KEPT)
        return known

    def _rows(self, start: int, end: int) -> Mapping[str, FailingRow]:
        return {row.name: row for row in self._reader.failing(start, end, clean=True)}


def _sums(fleet: _Fleet, start: int, end: int) -> _Sums:
    first, last = (bisect_left(fleet, at, key=attrgetter("start")) for at in (start, end))
    return tuple((row.start, row.counts) for row in fleet[first:last])


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
