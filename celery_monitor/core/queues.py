"""Infers the queue of tasks that have no task-sent event, and keeps the tasks that workers have registered.

Celery sends task-sent only if configured to, and no other event names a queue. But workers report which queues they
consume and which tasks they have registered. A registered task has series of failures and successes at 0 before its
first run: otherwise its series would start at 1, and ``rate`` and ``increase`` would miss the first event.
"""

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, repeat
from types import MappingProxyType
from typing import Final

from celery_monitor.core.model import SeriesKey
from celery_monitor.core.names import SHORT, shortened_name

QUEUES_PER_WORKER: Final = 5
"""Above this number, a worker's queues do not indicate which queue a task is in."""
_HEADROOM: Final = 4
"""Factor by which the pairs of name and queue that are checked, and the names that are kept, may exceed the pairs that
are returned: several releases can run at a time, and some pairs are repeated or not admitted."""


class _Release:
    """A set of task names, and the workers that have registered exactly these: all pods of a release share one.

    ``unreported``: those of which the workers send no events.
    """

    __slots__ = ("names", "unreported", "workers")

    def __init__(self, names: tuple[str, ...], unreported: frozenset[str]) -> None:
        self.names = names
        self.unreported = unreported
        self.workers: dict[str, None] = {}


class Queues:
    """Not thread-safe: it belongs to the monitor.

    ``last_of``: task name → the queue that it was last sent to, maintained by the caller. ``max_tasks`` bounds the
    registered tasks. ``normalize``: raw name → name as it is kept.
    """

    def __init__(
        self, *, default: str, last_of: Mapping[str, str], max_tasks: int, normalize: Callable[[str], str] = str
    ) -> None:
        """``default``: the queue that is assumed if nothing indicates another one."""
        self._default = default
        self._last_of = last_of
        self._limit = max_tasks
        self._normalize = normalize
        self._consumed: dict[str, Sequence[str]] = {}
        """Hostname → the queues that the worker consumes, for workers that have answered."""
        self._last_queue: dict[str, str] = {}
        """Task name → the only queue of the worker that it was last seen on, for workers that have not answered yet."""
        self._releases: dict[tuple[tuple[str, ...], frozenset[str]], _Release] = {}
        self._release_of: dict[str, _Release] = {}
        """Hostname → the release that the worker runs."""
        self._release_count: Counter[str] = Counter()
        """Task name → number of releases that contain it."""
        self._consumed_by: frozenset[str] = frozenset()
        """All queues in ``_consumed``."""
        self._names_held = 0
        """Total number of names in all releases."""
        self._registered: tuple[tuple[str, str], ...] | None = None
        """The last result of ``registered``; None if it is outdated."""
        self._admission_version = 0
        self._unreported: frozenset[str] | None = None
        """The last result of ``unreported``; None if it is outdated."""

    def restore(self, keys: Iterable[SeriesKey]) -> None:
        """Load the queues in which tasks were counted before the restart."""
        for key in keys:
            if key.queue != self._default:
                self._note_queue(key.name, key.queue)

    def learn(self, queues_by_worker: Mapping[str, Sequence[str]], workers: Container[str]) -> None:
        """Record which queues each worker consumes. A known worker that did not answer keeps its previous queues."""
        remaining = {hostname: names for hostname, names in self._consumed.items() if hostname in workers}
        consumed = remaining | {
            hostname: tuple(map(self._normalize, names)) for hostname, names in queues_by_worker.items()
        }
        if consumed != self._consumed:
            self._consumed, self._registered = consumed, None
            self._consumed_by = frozenset(chain.from_iterable(consumed.values()))
        self.forget([hostname for hostname in self._release_of if hostname not in consumed and hostname not in workers])

    def register(
        self,
        tasks_by_worker: Mapping[str, Iterable[str]],
        unreported_by_worker: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> None:
        """Record the task names that workers have registered, replacing their previous ones.

        ``unreported_by_worker``: those of which the worker sends no events.
        """
        for hostname, names in tasks_by_worker.items():
            tasks = tuple(dict.fromkeys(map(self._normalize, names)))[: self._limit]
            unreported = frozenset(map(self._normalize, unreported_by_worker.get(hostname, ()))).intersection(tasks)
            last = self._release_of.get(hostname)
            if last is None or last.names != tasks or last.unreported != unreported:
                self.forget([hostname])
                self._join(hostname, tasks, unreported)

    def forget(self, hostnames: Iterable[str]) -> None:
        """Drop workers that are gone, and the tasks that only they have registered."""
        for hostname in hostnames:
            release = self._release_of.pop(hostname, None)
            if release is None:
                continue
            self._registered = None
            del release.workers[hostname]
            if not release.workers:
                del self._releases[release.names, release.unreported]
                self._unreported = None
                self._names_held -= len(release.names)
                self._release_count -= Counter(release.names)

    def knows(self, task: str, queue: str) -> bool:
        """Whether a worker has registered the task and one consumes the queue, or the queue is the default one."""
        return task in self._release_count and (queue in self._consumed_by or queue == self._default)

    @property
    def unreported(self) -> frozenset[str]:
        """Names of tasks of which some worker sends no events (``send_events=False``)."""
        if self._unreported is None:
            self._unreported = frozenset().union(*(release.unreported for release in self._releases.values()))
        return self._unreported

    def registered(self, admits: Callable[[str, str], bool], admission_version: int) -> tuple[tuple[str, str], ...]:
        """Name and queue of each task that a worker has registered, for each queue that ``likely_queue`` can return.

        Includes tasks that have not run, but only pairs for which ``admits`` is true, that is, which would be counted
        under this name and queue. ``admission_version`` changes whenever the results of ``admits`` may change.
        """
        if self._registered is None or admission_version != self._admission_version:
            pairs = dict.fromkeys(islice(self._pairs(), _HEADROOM * self._limit))
            self._registered = tuple(islice((pair for pair in pairs if admits(*pair)), self._limit))
            self._admission_version = admission_version
        return self._registered

    def _join(self, hostname: str, names: tuple[str, ...], unreported: frozenset[str]) -> None:
        release = self._releases.get((names, unreported))
        if release is None:
            if self._names_held + len(names) > _HEADROOM * self._limit:
                return
            release = self._releases[names, unreported] = _Release(names, unreported)
            self._unreported = None
            self._names_held += len(names)
            self._release_count.update(names)
        release.workers[hostname] = None
        self._release_of[hostname] = release
        self._registered = None

    def _pairs(self) -> Iterator[tuple[str, str]]:
        """Queues with many workers first, so that per-pod queues do not take the room of the others."""
        ranked = [
            (number, queue, release.names)
            for release in self._releases.values()
            for queue, number in Counter(chain.from_iterable(map(self._candidate_queues, release.workers))).items()
        ]
        ranked.sort(key=lambda entry: -entry[0])
        return chain.from_iterable(zip(names, repeat(queue)) for _, queue, names in ranked)

    def _candidate_queues(self, hostname: str) -> Sequence[str]:
        """The queues in which this worker's tasks are counted, without its direct queue."""
        consumed = self._consumed.get(hostname, ())
        if len(consumed) == 1:
            return consumed
        shared = [queue for queue in consumed if not is_direct_queue(queue, hostname)]
        return (*(shared if len(shared) <= QUEUES_PER_WORKER else ()), self._default)

    def likely_queue(self, task: str, hostname: str) -> str:
        """The worker's only queue, else the task's last queue if the worker consumes it, else the default."""
        consumed = self._consumed.get(hostname)
        if consumed is None and (len(hostname) > SHORT or not hostname.isprintable()):
            consumed = self._consumed.get(shortened_name(hostname))  # workers are known by their kept names
        if consumed is not None and len(consumed) == 1:
            queue = consumed[0]
            if self._last_queue.get(task) != queue:
                self._note_queue(task, queue)
            return queue
        last = self._last_of.get(task) or self._last_queue.get(task)
        return last if last is not None and (not consumed or last in consumed) else self._default

    def _note_queue(self, task: str, queue: str) -> None:
        if task in self._last_queue or len(self._last_queue) < _HEADROOM * self._limit:
            self._last_queue[task] = queue


def is_direct_queue(queue: str, hostname: str) -> bool:
    """Whether this is the worker's direct queue, such as ``celery@box.dq2`` (Celery's ``worker_direct``)."""
    return queue.startswith(f"{hostname}.")
