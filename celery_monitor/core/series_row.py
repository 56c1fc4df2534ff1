"""The totals of one (task, queue[, host]), and functions that add them up."""

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from msgspec import structs

from celery_monitor.core.model import COUNTS, Histogram, Series, SeriesKey
from celery_monitor.core.text import OTHER

EXCEPTIONS_PER_SERIES: Final = 50
ESTABLISHED: Final = 3600.0
"""Seconds between the first and the last use from which on a row counts as established."""
NO_COUNTS: Final = (0,) * len(COUNTS)
NO_EXCEPTIONS: Final[dict[str, int]] = {}
"""Shared by all rows without exceptions and never changed: an empty dict for each would take 64 bytes."""


@dataclass(slots=True, eq=False)
class Row:
    """The mutable totals of one series, and its buckets since the last flush.

    A dataclass, because its fields are assigned for most events: that takes a fifth of the time of a msgspec struct.
    """

    key: SeriesKey
    counts: list[int]
    exceptions: dict[str, int]
    runtime: list[int]
    wait: list[int]
    runtime_sum: float = 0.0
    wait_sum: float = 0.0
    exemplar: tuple[str, str, float] | None = None
    dirty: bool = False
    dropped: bool = False
    bucket_start: float = 0.0
    bucket_end: float = 0.0
    """Time range of ``bucket`` in Unix seconds; events within it are added to the bucket."""
    bucket: Any = None
    """The bucket to which the last event was added."""
    buckets: dict[int, list[Any]] | None = None
    """Buckets by quarter of an hour; None while none waits: most rows of a large fleet are idle."""
    hour_end: float = 0.0
    """See ``hourly.Checkpoints``."""
    cost: int = 1
    used: int = 0
    """The table's ``_clock_tick`` at the last use."""
    uses: int = 0
    """Number of flushes since the start in which it was used."""
    used_at: float = 0.0
    born_at: float = 0.0

    @property
    def established(self) -> bool:
        """Whether it has been used for so long that it is unlikely to be an invented name."""
        return self.used_at - self.born_at >= ESTABLISHED

    def own_exceptions(self) -> dict[str, int]:
        """``exceptions`` as a dict that may be changed."""
        if self.exceptions is NO_EXCEPTIONS:
            self.exceptions = {}
        return self.exceptions


def ranked(used_at: float, *, established: bool) -> int:
    """The stored rank: hours from 1970 to the last use, plus 30 days if established. The lowest is merged first."""
    return int(used_at // 3600) + (720 if established else 0)


def merge(series: Iterable[Series], into: Series) -> Series:
    """``into`` plus the totals of all others. Histograms with different bounds are left out."""
    counts: Sequence[int] = into.counts
    exceptions = dict(into.exceptions)
    runtime, wait = into.runtime, into.wait
    for other in series:
        counts = sum_counts(counts, other.counts)
        add_classes(exceptions, other.exceptions)
        runtime, wait = _added(runtime, other.runtime), _added(wait, other.wait)
    return structs.replace(into, counts=tuple(counts), exceptions=exceptions, runtime=runtime, wait=wait)


def empty_series(key: SeriesKey, like: Series) -> Series:
    """A series without counts, with the histogram bounds of another one."""
    runtime, wait = (
        Histogram(histogram.bounds, (0,) * len(histogram.counts), 0.0) for histogram in (like.runtime, like.wait)
    )
    return Series(key, NO_COUNTS, {}, runtime, wait)


def add_classes(to: dict[str, int], counts: dict[str, int] | Any) -> None:  # noqa: ANN401 - any mapping
    """Add failures by class; classes beyond ``EXCEPTIONS_PER_SERIES`` count as ``other``."""
    for name, number in counts.items():
        label = name if name in to or len(to) < EXCEPTIONS_PER_SERIES else OTHER
        to[label] = to.get(label, 0) + number


def _added(histogram: Histogram, other: Histogram) -> Histogram:
    if histogram.bounds != other.bounds:
        return histogram
    return Histogram(histogram.bounds, tuple(sum_counts(histogram.counts, other.counts)), histogram.sum + other.sum)


def sum_counts(left: Sequence[int], right: Sequence[int]) -> list[int]:
    """The sums of the two, element by element."""
    return list(map(operator.add, left, right))


def classes(row: Row) -> int:
    """Number of exception classes that it counts separately."""
    return len(row.exceptions) - (OTHER in row.exceptions)
