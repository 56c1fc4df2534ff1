"""Which queues there are, and who consumes them, over several rounds of questions.

A queue whose workers have all died is the one whose length matters, and nobody is left to name it: so a name stays
when its workers are gone, until the broker says that there is no such queue, or until nothing was in it for an hour.
A worker that is too busy to answer once has not gone: what it said last counts for some rounds more, but for one that
is known to be down. Queues that tasks came from before a restart are looked at in turn, and told as soon as something
waits in one: their workers may have died while nobody was looking.

Anybody who can reach the broker can answer as a worker, and name thousands of queues that do not exist. For each of
them RabbitMQ closes a channel and logs an error, so names that have not been found are asked for last, a few of them
in each round (see ``lengths``), and ever more rarely.
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
"""A worker that left so many rounds in a row unanswered has gone."""
IDLE_RETENTION: Final = 3600.0
"""Seconds for which a queue is remembered that nobody consumes and nothing is in."""
MAX_QUEUES: Final = 2_000
"""More are not asked for. Those that are consumed come first, then those that were in use last."""
PAST_AT_ONCE: Final = 20
"""Queues of before a restart that are looked at in one round: for each that is gone, RabbitMQ closes a channel."""

ABSENT_RETRY_BASE: Final = 60.0
ABSENT_RETRY_CAP: Final = 3600.0
"""Seconds until a queue that was not told of is asked for again; doubled each time."""

Size = tuple[int | None, int | None]
"""Length and consumers; None for what the broker does not tell."""


@dataclass(slots=True)
class _WorkerAnswer:
    """What it said last."""

    queues: list[str]
    processes: int = 0
    missed: int = 0
    """Rounds since then."""


@dataclass(slots=True)
class _Queue:
    """One that some worker consumes, or did."""

    own: bool
    """It is for one worker alone, and of no interest without it, unless something is left in it."""
    discovered: bool = False
    """The broker told its length when it was asked last."""
    exists: bool = True
    """The broker has not said that there is no such queue."""
    absences: int = 0
    """How often in a row it did not tell its length."""
    again_at: float = -math.inf
    """When to ask for it again, in monotonic time."""
    idle_since: float = math.inf
    """Nobody has consumed it and nothing was in it since then; infinite while it is in use."""

    @property
    def absent(self) -> bool:
        """The broker said that there is no such queue."""
        return self.absences > 0 and not self.exists

    def note(self, size: Size | None, now: float) -> None:
        """It was asked for."""
        self.exists = size is not None
        self.discovered = size is not None and size[0] is not None
        if self.discovered:
            self.absences, self.again_at = 0, -math.inf
            return
        self.absences += 1
        self.again_at = now + min(ABSENT_RETRY_BASE * 2.0 ** min(self.absences - 1, 10), ABSENT_RETRY_CAP)


class QueueRegistry:
    """A round is ``hear``, ``names`` and ``unconfirmed``, ``measured``. Does no I/O.

    ``configured`` are told in any case, ``previous`` while something is in them that nobody consumes.
    """

    def __init__(self, configured: Iterable[str], previous: Iterable[str] = ()) -> None:
        self._named = dict.fromkeys(configured)
        self._past = list(dict.fromkeys(previous))
        self._workers: dict[str, _WorkerAnswer] = {}
        self._queues: dict[str, _Queue] = {}

    def hear(self, queues: Mapping[str, list[str]], processes: Mapping[str, int], down: Container[str]) -> None:
        """Take in what was answered, by hostname: queues consumed, and processes of the pool.

        Of those that are ``down`` and did not answer, nothing is kept.
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
        """The queues to ask the broker for: those of the settings, those that exist, some of before a restart."""
        found_names = (name for name, queue in self._queues.items() if queue.discovered)
        names = islice(dict.fromkeys((*self._named, *found_names)), MAX_QUEUES)
        return list(dict.fromkeys((*names, *self._past[:PAST_AT_ONCE])))

    def unconfirmed(self, now: float) -> list[str]:
        """More queues to ask for: workers name them, and the broker has not told of them yet. Due longest first."""
        unconfirmed = [
            (queue.again_at, name)
            for name, queue in self._queues.items()
            if not queue.discovered and now >= queue.again_at and name not in self._named
        ]
        unconfirmed.sort(key=itemgetter(0))
        return [name for _, name in unconfirmed]

    def measured(self, sizes: Mapping[str, Size | None], now: float) -> list[QueueStats]:
        """The queues as they are, with the sizes of those that were asked for; None for one that does not exist.

        ``now`` is monotonic, in seconds.
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
        """Hostname → the queues that it consumes, of all that have not gone."""
        return {hostname: list(dict.fromkeys(map(shared, worker.queues))) for hostname, worker in self._workers.items()}

    def _without_duplicates(self, queues: Iterable[QueueStats]) -> list[QueueStats]:
        """Queues whose names differ in what is random, such as those of a Broadcast, as one with their sums."""
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
        # The first queue of each worker, then the second ones: a worker that names thousands keeps out nobody's.
        ranked.sort(key=itemgetter(0))
        consumed = {name: is_direct_queue(name, hostname) or shared(name) != name for _, name, hostname in ranked}
        unconsumed = [name for name in self._queues if name not in consumed]
        unconsumed.sort(key=lambda name: -self._queues[name].idle_since)
        self._queues = {
            name: self._queues.get(name) or _Queue(own=consumed[name])
            for name in islice((*consumed, *unconsumed), MAX_QUEUES)
        }

    def _check_past(self, sizes: Mapping[str, Size | None]) -> list[str]:
        """The next earlier queues to look at; one that no longer exists is not looked at again."""
        portion, self._past = self._past[:PAST_AT_ONCE], self._past[PAST_AT_ONCE:]
        for name in portion:
            length, _ = sizes.get(name) or (None, None)
            if length is not None:
                self._past.append(name)
            if length:
                self._queues.setdefault(name, _Queue(own=False))
        return portion

    def _forget(self, name: str, size: Size | None, now: float, *, consumed: bool) -> None:
        """What is not in use and gone, or for long, or for one worker alone."""
        queue = self._queues.get(name)
        if queue is None:
            return
        if consumed or (size is not None and size[0]):
            queue.idle_since = math.inf
            return
        queue.idle_since = min(queue.idle_since, now)
        if queue.absent or (queue.own and size is not None) or now - queue.idle_since >= IDLE_RETENTION:
            del self._queues[name]


def _sum(left: int | None, right: int | None) -> int | None:
    return right if left is None else left + (right or 0)
