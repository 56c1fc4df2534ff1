"""The totals of every (task, queue[, host]), within one budget.

The budget counts what ``celery_task_failed_total`` has series of: one for each combination of task name, queue and
host, and one more for each exception class of it. A combination whose labels are long counts once more for every
``LABEL_BYTES`` of them, so that the budget bounds memory and the size of a scrape as well.

When it is used up, the combinations that were used the longest time ago are folded into one row, ``other``: their
totals are added to it, so that sums stay exact and no counter of ``other`` falls. Who invents names must not push out
the fleet's own, so what goes first is, in this order:

1. combinations that no worker has registered and that were used for less than ``ESTABLISHED`` seconds, those that were
   used in a single flush before others,
2. combinations that were used for longer than that (a task that runs each night),
3. combinations whose task a worker has registered, in a queue that a worker consumes.

A newcomer of the first kind takes the place of another one of it, at a limited rate (``_rate``), and never that of
the third. What finds no room is counted as ``other`` at once.
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
"""Hours without use after which an established combination gives way to an unknown newcomer: a weekly task stays."""
_MIN_BURST: Final = 16


class Table:
    """All rows. Not thread-safe: it belongs to the aggregator.

    ``max_series`` is the budget, ``max_names`` bounds the distinct task names. ``knows`` tells whether the workers have
    registered a task and consume a queue. ``overflows`` counts what the bounds have cut, by name.
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
        """``bounds``: of the two histograms. ``hosts``: keys have a host."""
        self.rows: dict[tuple[str, str, str], Row] = {}
        self.dirty: list[Row] = []
        self.dropped: list[SeriesKey] = []
        self.checkpoints = Checkpoints(*bounds, overflows)
        self.size = 0
        """What is used of the budget."""
        self.changes = 0
        """Changes when the names and queues in it do."""
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
        """Distinct task names."""
        return len(self._queues)

    def tick(self, now: float) -> None:
        """Time has passed: unknown newcomers may take places again."""
        self._tokens = min(self._burst, self._tokens + self._rate * max(0.0, now - self._now))
        self._now = now
        self._clock_tick += 1
        if not self._clock_tick % 60:
            self._victims.clear()  # what the workers know may have changed

    def limited(self, name: str) -> str:
        """The name itself, or ``other`` when there are too many of them."""
        if name in self._queues or len(self._queues) < self._max_names:
            return name
        self._overflows["task_names"] += 1
        return OTHER

    def admits(self, name: str, queue: str) -> bool:
        """Whether a task that workers know would be counted by this name and queue, and not as ``other``."""
        queues = self._queues.get(name)
        if queues is None:
            return len(self._queues) < self._max_names
        return queue in queues or len(queues) < QUEUES_PER_TASK

    def find(self, name: str, queue: str, host: str) -> Row:
        """The row that counts for this name, queue and host: its own, or one of ``other``."""
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
        """The row of this key, made where there is none."""
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
        """An event of ``at`` is the first one that is measured after ``hour_end``."""
        self.checkpoints.begin(row, at, self._now)

    def touch(self, row: Row) -> None:
        """It is used: what changed in it is to be written."""
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
        if row.cost:  # that of ``other`` is not in the budget
            is_known = self._knows(row.key.name, row.key.queue)
            if not self._make_room(1, is_known=is_known, spared=row):
                self._overflows["exceptions"] += 1
                return OTHER
            self.size += 1
        return exception

    def restore(self, series: Iterable[Series], runtime: tuple[float, ...], wait: tuple[float, ...]) -> None:
        """Go on from stored totals, those to fold first in front; ``tick`` has told the time.

        A histogram with other bounds than these starts again at zero.
        """
        for old in series:
            # Under its own key, whatever the order: renamed by a bound, a queue would take the place of ``other``.
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
        """Forget the rows of hosts, but for the failures: those of a task, shown without hosts, must not fall."""
        for key in [key for key in self.rows if key[2] in hosts and key != self._other]:
            row = self._remove(key)
            if row.counts[FAILED]:
                rest = self.exact(row.key.name, row.key.queue, "")
                rest.counts[FAILED] += row.counts[FAILED]
                self.touch(rest)
        self._make_room(0, is_known=True)

    def take(self) -> tuple[list[Row], list[SeriesKey]]:
        """Rows that were touched since the last call, and keys that are no more."""
        dirty, dropped = self.dirty, self.dropped
        self.dirty, self.dropped = [], []
        self._clock_tick += 1
        return dirty, dropped

    def _make_room(self, cost: int, *, is_known: bool, spared: Row | None = None) -> bool:
        """Whether ``cost`` more fit into the budget, after folding what was used the longest time ago."""
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
        """The row to fold next; it stays the first of ``_victims``."""
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
        """Of the tasks that workers know, the sum of the hosts that were folded stays for longest."""
        is_known = self._knows(row.key.name, row.key.queue)
        return is_known, is_known and row.key.host == OTHER, row.established, row.uses > 1, row.used

    def _outlives(self, row: Row) -> bool:
        """Whether it does not give way to what nobody knows."""
        if self._knows(row.key.name, row.key.queue):
            return True
        return row.established and self._now - row.used_at < ESTABLISHED_RETENTION_HOURS * 3600.0

    def _merge(self, row: Row) -> None:
        """Add its totals to ``other``: of hosts first, where there are any."""
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
