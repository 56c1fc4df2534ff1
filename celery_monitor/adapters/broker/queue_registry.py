"""Remembers which queues exist and which workers consume them, over several rounds of requests.

The length of a queue matters most when all of its workers have died, and then no worker reports its name. So a queue is
remembered until the broker reports that it does not exist, or until it has been empty and without workers for an hour.
A busy worker may miss a round, so its last answer stays valid for some rounds, unless the worker is known to be down.
Queues that had tasks before a restart of the monitor are checked in turn, and reported as soon as they contain
something, because their workers may have died in the meantime.

Any process that can reach the broker could answer as a worker and name thousands of queues that do not exist. For each,
RabbitMQ closes a channel and logs an error. So names that were not found are queried last, only a few per round (see
``lengths``), and less and less often.
"""

import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Final

from celery_monitor.core.model import QueueStats
from celery_monitor.core.queues import is_direct_queue
from celery_monitor.core.text import shared
from celery_monitor.core.workers import MAX_WORKERS

MAX_MISSED_ROUNDS: Final = 4
"""Number of successive rounds without an answer after which a worker counts as gone."""
IDLE_RETENTION: Final = 3600.0
"""Seconds for which an empty queue without workers is remembered."""
MAX_QUEUES: Final = 2_000
"""Maximum queues. Queues with workers are preferred, then those that were used last."""
MAX_PAST_CHECKED: Final = 20
"""Queues from before a restart that one round checks. For each that no longer exists, RabbitMQ closes a channel."""

ABSENT_RETRY_BASE: Final = 60.0
ABSENT_RETRY_CAP: Final = 3600.0
"""Seconds until a queue that was not found is queried again; doubled each time."""

Size = tuple[int | None, int | None]
"""(length, consumers); None for a number that the broker does not report."""


@dataclass(slots=True)
class _WorkerAnswer:
    """The last answer of a worker."""

    queues: list[str]
    processes: int = 0
    missed: int = 0
    """Rounds since the answer."""


@dataclass(slots=True)
class _Queue:
    """A queue that a worker consumes or has consumed."""

    is_direct: bool
    """Whether it belongs to one worker. Without that worker it is of no interest, unless it contains something."""
    discovered: bool = False
    """Whether the broker reported its length at the last query."""
    exists: bool = True
    """False if the broker reported that it does not exist."""
    absences: int = 0
    """Number of successive queries for which the broker did not report its length."""
    next_query_at: float = -math.inf
    """Monotonic time of the next query."""
    idle_since: float = math.inf
    """Monotonic time since which it has been empty and without workers; infinite while it is in use."""

    @property
    def absent(self) -> bool:
        """Whether the broker reported that it does not exist."""
        return self.absences > 0 and not self.exists

    def note(self, size: Size | None, now: float) -> None:
        """Record the result of a query."""
        self.exists = size is not None
        self.discovered = size is not None and size[0] is not None
        if self.discovered:
            self.absences, self.next_query_at = 0, -math.inf
            return
        self.absences += 1
        self.next_query_at = now + min(ABSENT_RETRY_BASE * 2.0 ** min(self.absences - 1, 10), ABSENT_RETRY_CAP)


class QueueRegistry:
    """Does no I/O. In each round, call ``record_answers``, ``names``, ``unconfirmed``, and ``measured``.

    Queues of ``configured`` are always reported; those of ``previous`` (before a restart) when they contain something.
    """

    def __init__(self, configured: Iterable[str], previous: Iterable[str] = ()) -> None:
        self._named = dict.fromkeys(configured)
        self._past = list(dict.fromkeys(previous))
        self._workers: dict[str, _WorkerAnswer] = {}
        self._queues: dict[str, _Queue] = {}

    def record_answers(
        self, queues: Mapping[str, list[str]], processes: Mapping[str, int], down: Container[str]
    ) -> None:
        """Record the answers by hostname: consumed queues, and number of pool processes.

        ``down``: hostnames of workers whose earlier answers are dropped if they did not answer in this round.
        """
        for hostname, worker in list(self._workers.items()):
            worker.missed += 1
            if hostname not in queues and (worker.missed >= MAX_MISSED_ROUNDS or hostname in down):
                del self._workers[hostname]
        for hostname, names in queues.items():
            previous = self._workers.get(hostname)
            if previous is not None:
                previous.queues, previous.missed = names, 0
            elif len(self._workers) < MAX_WORKERS:
                self._workers[hostname] = _WorkerAnswer(names)
        for hostname, number in processes.items():
            if hostname in self._workers:
                self._workers[hostname].processes = number
        self._remember()

    def names(self) -> list[str]:
        """The queues to query: those of the settings, those that exist, and some from before a restart."""
        found_names = (name for name, queue in self._queues.items() if queue.discovered)
        names = islice(dict.fromkeys((*self._named, *found_names)), MAX_QUEUES)
        return list(dict.fromkeys((*names, *self._past[:MAX_PAST_CHECKED])))

    def unconfirmed(self, now: float) -> list[str]:
        """More queues to query: those that workers name and the broker has not reported. The longest overdue first."""
        unconfirmed = [
            (queue.next_query_at, name)
            for name, queue in self._queues.items()
            if not queue.discovered and now >= queue.next_query_at and name not in self._named
        ]
        unconfirmed.sort(key=itemgetter(0))
        return [name for _, name in unconfirmed]

    def measured(self, sizes: Mapping[str, Size | None], now: float) -> list[QueueStats]:
        """The queues, with the sizes that were queried; a size is None if the queue does not exist.

        ``now``: monotonic time in seconds.
        """
        names = list(islice(self._named | dict.fromkeys(self._queues), MAX_QUEUES))
        workers: Counter[str] = Counter()
        processes: Counter[str] = Counter()
        for worker in self._workers.values():
            for name in worker.queues:
                workers[name] += 1
                processes[name] += worker.processes
        names += [name for name in self._check_past(sizes) if name not in self._named and name not in names]
        for name in names:
            if name in sizes and name in self._queues:
                self._queues[name].note(sizes[name], now)
            self._forget(name, sizes.get(name), now, consumed=name in workers)
        return self._without_duplicates(
            QueueStats(name, *(sizes.get(name) or (None, None)), workers[name], processes[name])
            for name in names
            if name in self._named or name in self._queues
        )

    def worker_queues(self) -> dict[str, list[str]]:
        """Hostname → queues that the worker consumes, of all workers that are not gone."""
        return {hostname: list(dict.fromkeys(map(shared, worker.queues))) for hostname, worker in self._workers.items()}

    def _without_duplicates(self, queues: Iterable[QueueStats]) -> list[QueueStats]:
        """The queues, with those whose names differ only in a random part, such as of a Broadcast, added up to one."""
        stats_by_name: dict[str, QueueStats] = {}
        for queue in queues:
            name = queue.name if queue.name in self._named else shared(queue.name)
            other = stats_by_name.get(name) or QueueStats(name, None, None, 0, 0)
            stats_by_name[name] = QueueStats(
                name,
                _sum(queue.length, other.length),
                _sum(queue.consumers, other.consumers),
                queue.workers + other.workers,
                queue.processes + other.processes,
            )
        return list(stats_by_name.values())

    def _remember(self) -> None:
        ranked = [
            (rank, name, hostname)
            for hostname, worker in self._workers.items()
            for rank, name in enumerate(worker.queues)
        ]
        # The first queues of all workers, then the second ones, so a worker that names thousands displaces no others.
        ranked.sort(key=itemgetter(0))
        consumed = {name: is_direct_queue(name, hostname) or shared(name) != name for _, name, hostname in ranked}
        unconsumed = [name for name in self._queues if name not in consumed]
        unconsumed.sort(key=lambda name: -self._queues[name].idle_since)
        self._queues = {
            name: self._queues.get(name) or _Queue(is_direct=consumed[name])
            for name in islice((*consumed, *unconsumed), MAX_QUEUES)
        }

    def _check_past(self, sizes: Mapping[str, Size | None]) -> list[str]:
        """The names of the next portion of earlier queues. One that no longer exists is not checked again."""
        portion, self._past = self._past[:MAX_PAST_CHECKED], self._past[MAX_PAST_CHECKED:]
        for name in portion:
            length, _ = sizes.get(name) or (None, None)
            if length is not None:
                self._past.append(name)
            if length:
                self._queues.setdefault(name, _Queue(is_direct=False))
        return portion

    def _forget(self, name: str, size: Size | None, now: float, *, consumed: bool) -> None:
        """Forget an unused queue if it does not exist, was unused for long, or belonged to one worker."""
        queue = self._queues.get(name)
        if queue is None:
            return
        if consumed or (size is not None and size[0]):
            queue.idle_since = math.inf
            return
        queue.idle_since = min(queue.idle_since, now)
        if queue.absent or (queue.is_direct and size is not None) or now - queue.idle_since >= IDLE_RETENTION:
            del self._queues[name]


def _sum(left: int | None, right: int | None) -> int | None:
    return right if left is None else left + (right or 0)
