"""The totals of every (task, queue[, host]), bounded by one budget.

The budget counts the series of ``celery_task_failed_total``: one for each combination of task name, queue and host, and
one for each exception class of the combination. A combination with long labels costs one more for every
``LABEL_BYTES``, so that the budget also bounds memory and the size of a scrape.

When the budget is used up, the least recently used combinations are merged into one row, ``other``: their totals are
added to it, so that sums stay exact and no counter of ``other`` decreases. Invented names must not displace the fleet's
real ones, so combinations are merged in this order:

1. unregistered combinations used for less than ``ESTABLISHED`` seconds, starting with those used in a single flush,
2. unregistered combinations used for longer (for example a nightly task),
3. combinations whose task is registered with a worker and whose queue a worker consumes.

A new combination of the first kind replaces others of that kind, at a limited rate (``_rate``), and never one of the
third. A combination for which there is no room is counted as ``other``.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from heapq import nsmallest
from typing import Final

from celery_monitor.core.hourly import HOUR, Checkpoints
from celery_monitor.core.model import FAILED, Series, SeriesKey
from celery_monitor.core.series_row import (
    ESTABLISHED,
    EXCEPTIONS_PER_SERIES,
    NO_COUNTS,
    NO_EXCEPTIONS,
    Row,
    add_classes,
    classes,
    ranked,
    sum_counts,
)
from celery_monitor.core.text import OTHER

__all__ = [
    "ESTABLISHED",
    "ESTABLISHED_RETENTION_HOURS",
    "EXCEPTIONS_PER_SERIES",
    "LABEL_BYTES",
    "QUEUES_PER_TASK",
    "Table",
]

QUEUES_PER_TASK: Final = 100
LABEL_BYTES: Final = 128
ESTABLISHED_RETENTION_HOURS: Final = 24 * 8
"""Hours without use after which a new unregistered combination may replace an established one: a weekly task stays."""
_MIN_BURST: Final = 16


class Table:
    """All rows. Not thread-safe: it belongs to the aggregator.

    ``max_series``: the budget; ``max_names`` bounds the distinct task names. ``knows``: whether the workers have
    registered a task and consume a queue. ``overflows`` counts what exceeded a bound, by the bound's name.
    """

    def __init__(
        self,
        *,
        max_series: int,
        max_names: int,
        bounds: tuple[tuple[float, ...], tuple[float, ...]],
        hosts: bool,
        knows: Callable[[str, str], bool],
        overflows: Counter[str],
    ) -> None:
        """``bounds``: the bounds of the two histograms. ``hosts``: whether keys have a host."""
        self.rows: dict[tuple[str, str, str], Row] = {}
        self.dirty: list[Row] = []
        self.dropped: list[SeriesKey] = []
        self.checkpoints = Checkpoints(*bounds, overflows)
        self.size = 0
        """The used part of the budget."""
        self.changes = 0
        """A number that changes whenever the set of names and queues does."""
        self._limit = max_series
        self._max_names = max_names
        self._buckets = len(bounds[0]) + 1, len(bounds[1]) + 1
        self._hosts = hosts
        self._knows = knows
        self._overflows = overflows
        self._other = (OTHER, OTHER, OTHER if hosts else "")
        self._queues: dict[str, dict[str, int]] = {}
        """Task name → queue → number of its rows."""
        self._clock_tick = 0
        self._now = 0.0
        self._rate = max(1.0, max_series / 1000)
        self._burst = max(_MIN_BURST, max_series // 20)
        self._tokens = float(self._burst)
        self._victims: deque[tuple[int, Row]] = deque()

    @property
    def names(self) -> int:
        """Number of distinct task names."""
        return len(self._queues)

    def tick(self, now: float) -> None:
        """Time has passed: new unregistered combinations may replace others again."""
        self._tokens = min(self._burst, self._tokens + self._rate * max(0.0, now - self._now))
        self._now = now
        self._clock_tick += 1
        if not self._clock_tick % 60:
            self._victims.clear()  # the workers' registered tasks may have changed

    def limited(self, name: str) -> str:
        """The name itself, or ``other`` if there are too many names."""
        if name in self._queues or len(self._queues) < self._max_names:
            return name
        self._overflows["task_names"] += 1
        return OTHER

    def admits(self, name: str, queue: str) -> bool:
        """Whether a registered task would be counted under this name and queue, not as ``other``."""
        queues = self._queues.get(name)
        if queues is None:
            return len(self._queues) < self._max_names
        return queue in queues or len(queues) < QUEUES_PER_TASK

    def find(self, name: str, queue: str, host: str) -> Row:
        """The row in which this name, queue and host are counted: their own, or one of ``other``."""
        name = self.limited(name)
        queues = self._queues.get(name, ())
        if queue not in queues and len(queues) >= QUEUES_PER_TASK:
            self._overflows["queues"] += 1
            queue = OTHER
        key = (name, queue, host)
        row = self.rows.get(key)
        if row is not None:
            return row
        if key != self._other and not self._make_room(_cost(key), is_known=self._knows(name, queue)):
            self._overflows["series"] += 1
            return self.exact(*self._other)
        return self.exact(*key)

    def exact(self, name: str, queue: str, host: str) -> Row:
        """The row of this key; it is created if necessary."""
        key = (name, queue, host)
        row = self.rows.get(key)
        if row is None:
            runtime, wait = self._buckets
            row = Row(SeriesKey(*key), list(NO_COUNTS), NO_EXCEPTIONS, [0] * runtime, [0] * wait, born_at=self._now)
            row.cost = 0 if key == self._other else _cost(key)
            self.rows[key] = row
            self.size += row.cost
            queues = self._queues.setdefault(name, {})
            if queue not in queues:
                self.changes += 1
            queues[queue] = queues.get(queue, 0) + 1
        return row

    def begin_hour(self, row: Row, at: float) -> None:
        """An event of ``at`` is the first one to be measured after ``hour_end``."""
        self.checkpoints.begin(row, at, self._now)

    def touch(self, row: Row) -> None:
        """Mark the row as used and changed, so that it is written."""
        if not row.dirty:
            row.dirty, row.used, row.used_at = True, self._clock_tick, self._now
            row.uses += 1
            self.dirty.append(row)

    def class_of(self, row: Row, exception: str) -> str:
        """The label under which a failure of this class is counted."""
        if exception in row.exceptions or exception == OTHER:
            return exception
        if len(row.exceptions) >= EXCEPTIONS_PER_SERIES:
            self._overflows["exceptions"] += 1
            return OTHER
        if row.cost:  # the row ``other`` is not in the budget
            is_known = self._knows(row.key.name, row.key.queue)
            if not self._make_room(1, is_known=is_known, spared=row):
                self._overflows["exceptions"] += 1
                return OTHER
            self.size += 1
        return exception

    def restore(self, series: Iterable[Series], runtime: tuple[float, ...], wait: tuple[float, ...]) -> None:
        """Load stored totals, those to merge first at the front. Call ``tick`` before.

        A histogram with bounds other than these restarts at zero.
        """
        for old in series:
            # Under its own key: if a bound renamed it now, its totals would replace those of ``other``.
            row = self.exact(old.key.name, old.key.queue, old.key.host)
            row.counts = list(old.counts)
            row.exceptions = dict(old.exceptions) or NO_EXCEPTIONS
            self.size += classes(row) if row.cost else 0
            if old.runtime.bounds == runtime:
                row.runtime, row.runtime_sum = list(old.runtime.counts), old.runtime.sum
            if old.wait.bounds == wait:
                row.wait, row.wait_sum = list(old.wait.counts), old.wait.sum
            hours = old.rank - (ranked(0.0, established=True) if old.rank > self._now // 3600 else 0)
            row.used_at = hours * 3600.0
            row.born_at = row.used_at - (ESTABLISHED if hours != old.rank else 0.0)
            if old.runtime.bounds != runtime or old.wait.bounds != wait:
                self.checkpoints.replaced(old, hours * HOUR)
                self.checkpoints.resume(row)
        self._make_room(0, is_known=True)

    def drop_hosts(self, hosts: AbstractSet[str]) -> None:
        """Drop the rows of hosts but keep their failures: a task's failures, summed over hosts, must not decrease."""
        for key in [key for key in self.rows if key[2] in hosts and key != self._other]:
            row = self._remove(key)
            if row.counts[FAILED]:
                rest = self.exact(row.key.name, row.key.queue, "")
                rest.counts[FAILED] += row.counts[FAILED]
                self.touch(rest)
        self._make_room(0, is_known=True)

    def take(self) -> tuple[list[Row], list[SeriesKey]]:
        """Rows that changed since the last call, and keys that were dropped."""
        dirty, dropped = self.dirty, self.dropped
        self.dirty, self.dropped = [], []
        self._clock_tick += 1
        return dirty, dropped

    def _make_room(self, cost: int, *, is_known: bool, spared: Row | None = None) -> bool:
        """Whether ``cost`` more fits into the budget, after merging the least recently used rows if necessary."""
        if self.size + cost <= self._limit:
            return True
        if not is_known:
            if self._tokens < 1:
                return False
            self._tokens -= 1
        while self.size + cost > self._limit:
            victim = self._victim(spared)
            if victim is None:
                return False
            if not is_known and self._outlives(victim):
                return False
            self._victims.popleft()
            self._merge(victim)
        return True

    def _victim(self, spared: Row | None) -> Row | None:
        """The row to merge next; it stays at the front of ``_victims``."""
        for refreshed in (False, True):
            if refreshed:
                rows = (row for row in self.rows.values() if row.cost and row is not spared)
                self._victims.extend((row.used, row) for row in nsmallest(self._burst, rows, key=self._order))
            while self._victims:
                used, row = self._victims[0]
                if not row.dropped and row.used == used and row is not spared:
                    return row
                self._victims.popleft()
        return None

    def _order(self, row: Row) -> tuple[bool, bool, bool, bool, int]:
        """Sort key for merging. A registered task's row of merged hosts is kept the longest."""
        is_known = self._knows(row.key.name, row.key.queue)
        return is_known, is_known and row.key.host == OTHER, row.established, row.uses > 1, row.used

    def _outlives(self, row: Row) -> bool:
        """Whether an unregistered combination may not replace this row."""
        if self._knows(row.key.name, row.key.queue):
            return True
        return row.established and self._now - row.used_at < ESTABLISHED_RETENTION_HOURS * 3600.0

    def _merge(self, row: Row) -> None:
        """Add the row's totals to ``other``: first to that of its task's hosts, if keys have hosts."""
        self._overflows["series"] += 1
        name, queue, host = key = (row.key.name, row.key.queue, row.key.host)
        into = (name, queue, OTHER) if self._hosts and host != OTHER else self._other
        self._remove(key)
        target = self.exact(*into)
        before = classes(target)
        self.checkpoints.end(target)
        target.counts = sum_counts(target.counts, row.counts)
        target.runtime, target.wait = sum_counts(target.runtime, row.runtime), sum_counts(target.wait, row.wait)
        target.runtime_sum += row.runtime_sum
        target.wait_sum += row.wait_sum
        self.checkpoints.resume(target)
        add_classes(target.own_exceptions(), row.exceptions)
        if target.cost:
            self.size += classes(target) - before
        self.touch(target)

    def _remove(self, key: tuple[str, str, str]) -> Row:
        row = self.rows.pop(key)
        row.dropped = True
        self.checkpoints.end(row)
        self.size -= row.cost + classes(row) if row.cost else 0
        self.dropped.append(row.key)
        queues = self._queues[key[0]]
        queues[key[1]] -= 1
        if not queues[key[1]]:
            del queues[key[1]]
            self.changes += 1
        if not queues:
            del self._queues[key[0]]
        return row


def _cost(key: tuple[str, str, str]) -> int:
    return 1 + sum(len(part.encode("utf-8", "replace")) for part in key) // LABEL_BYTES
