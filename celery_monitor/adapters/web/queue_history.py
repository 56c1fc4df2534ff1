"""Caches the history of queues: runs, runtimes and waiting times by hour, which are expensive to read.

The times of a queue are computed from the checkpoints of all its tasks: 125 tasks have 21,000 in a week, which take
half a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from celery_monitor.adapters.web.trends import HOUR, HourCache, Window
from celery_monitor.core.model import HistoryRow, HourRow
from celery_monitor.ports import Reader

MAX_CACHED: Final = 16
"""Queues whose hours are cached. A week takes 300 kB per queue."""
LATE_HOURS: Final = 2
"""Times are counted in the hour in which they are read, except after a pause."""
CACHED_FOR: Final = 6.0 * HOUR
"""Seconds after which all hours are read again. On a standby, an outage of the leader can change past hours."""


@dataclass(frozen=True, slots=True)
class QueueHours:
    """The history of a queue in a window."""

    runs: Sequence[HistoryRow]
    times: Sequence[HourRow]


class QueueHistory:
    """Reads and caches the hours of the queues that were requested last. Not thread-safe.

    The readers that ``of`` returns are thread-safe.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._cached: dict[str, tuple[HourCache[HistoryRow], HourCache[HourRow]]] = {}

    def of(self, queue: str) -> "QueueReader":
        """The reader of a queue's hours."""
        reader = self._reader
        found = self._cached.pop(queue, None) or (
            HourCache(partial(reader.history, step=HOUR, queue=queue)),
            HourCache(partial(reader.queue_hours, queue), late=LATE_HOURS, keep=CACHED_FOR),
        )
        self._cached[queue] = found
        if len(self._cached) > MAX_CACHED:
            del self._cached[next(iter(self._cached))]
        return QueueReader(*found)


@dataclass(frozen=True, slots=True)
class QueueReader:
    """Reads the hours of a queue that are not cached."""

    runs: HourCache[HistoryRow]
    times: HourCache[HourRow]

    def __call__(self, span: Window, now: float) -> QueueHours:
        """The hours of a window that ends with the current hour. Queries the store."""
        return QueueHours(self.runs.rows(span, now), self.times.rows(span, now))
