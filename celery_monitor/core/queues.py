"""Which queue a task came from where no task-sent tells it, and which tasks are yet to come.

Celery sends task-sent only when it is asked to, and no other event names a queue. But workers tell which queues they
consume, and which tasks they know. A known task has series of failures and successes at 0 before it has ever run: else
its first ones would come together with their series, and no rate or increase would see them.
"""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, repeat
from typing import Final

from celery_monitor.core.model import SeriesKey

QUEUES_PER_WORKER: Final = 5
"""Of a worker that consumes more, any task may be in any queue: that tells nothing."""
_MORE: Final = 4
"""So many times as many pairs of name and queue as are told are looked at, and names kept: a fleet has some releases
at a time, and pairs that are told already or not to be told are among the others."""


class _Release:
    """The names of the tasks in it, and the workers that know just these: all pods of a release share one."""

    __slots__ = ("names", "workers")

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.workers: dict[str, None] = {}


class Queues:
    """Not thread-safe: it belongs to the monitor.

    ``last_of``: task name → the queue that it was last sent to, kept by the caller. ``max_tasks`` bounds the tasks
    that are yet to come. ``normalize`` gives names from outside as they are kept.
    """

    def __init__(
        self, *, default: str, last_of: Mapping[str, str], max_tasks: int, normalize: Callable[[str], str] = str
    ) -> None:
        """``default`` stands for what nothing tells."""
        self._default = default
        self._last_of = last_of
        self._limit = max_tasks
        self._normalize = normalize
        self._consumed: dict[str, Sequence[str]] = {}
        """Hostname of each worker → the queues it consumes, as far as it was asked."""
        self._last_queue: dict[str, str] = {}
        """Task name → the only queue of the worker that it was last seen on: for workers that were not asked yet."""
        self._releases: dict[tuple[str, ...], _Release] = {}
        self._release_of: dict[str, _Release] = {}
        """By hostname."""
        self._release_count: Counter[str] = Counter()
        """Task name → number of codes that it is in."""
        self._consumed_by: frozenset[str] = frozenset()
        """Names of all queues in ``_consumed``."""
        self._names_held = 0
        """Names in all codes."""
        self._registered: tuple[tuple[str, str], ...] | None = None
        """As last told; None when something has changed since then."""
        self._admission_version = 0

    def restore(self, keys: Iterable[SeriesKey]) -> None:
        """Take over where tasks were counted before."""
        for key in keys:
            if key.queue != self._default:
                self._note_queue(key.name, key.queue)

    def learn(self, queues_by_worker: Mapping[str, Sequence[str]], workers: Container[str]) -> None:
        """Take in what each worker consumes. Who did not answer this time keeps what it said while it is known."""
        remaining = {hostname: names for hostname, names in self._consumed.items() if hostname in workers}
        consumed = remaining | {
            hostname: tuple(map(self._normalize, names)) for hostname, names in queues_by_worker.items()
        }
        if consumed != self._consumed:
            self._consumed, self._registered = consumed, None
            self._consumed_by = frozenset(chain.from_iterable(consumed.values()))
        self.forget([hostname for hostname in self._release_of if hostname not in consumed and hostname not in workers])

    def register(self, tasks_by_worker: Mapping[str, Iterable[str]]) -> None:
        """Take in the names of the tasks that workers know, in place of what they have told before."""
        for hostname, names in tasks_by_worker.items():
            tasks = tuple(dict.fromkeys(map(self._normalize, names)))[: self._limit]
            last = self._release_of.get(hostname)
            if last is None or last.names != tasks:
                self.forget([hostname])
                self._join(hostname, tasks)

    def forget(self, hostnames: Iterable[str]) -> None:
        """These workers are gone: what they alone know is yet to come no more."""
        for hostname in hostnames:
            release = self._release_of.pop(hostname, None)
            if release is None:
                continue
            self._registered = None
            del release.workers[hostname]
            if not release.workers:
                del self._releases[release.names]
                self._names_held -= len(release.names)
                self._release_count -= Counter(release.names)

    def knows(self, task: str, queue: str) -> bool:
        """Whether a worker knows the task, and one consumes the queue, or it is the one for what nothing tells."""
        return task in self._release_count and (queue in self._consumed_by or queue == self._default)

    def registered(self, admits: Callable[[str, str], bool], admission_version: int) -> tuple[tuple[str, str], ...]:
        """Name and queue of each task that a worker knows, in each queue that ``likely_queue`` can give for it.

        Whether or not it has run, but only where ``admits`` says that it would be counted by this name and queue.
        ``admission_version`` is a number that changes with what ``admits`` says.
        """
        if self._registered is None or admission_version != self._admission_version:
            pairs = dict.fromkeys(islice(self._pairs(), _MORE * self._limit))
            self._registered = tuple(islice((pair for pair in pairs if admits(*pair)), self._limit))
            self._admission_version = admission_version
        return self._registered

    def _join(self, hostname: str, names: tuple[str, ...]) -> None:
        release = self._releases.get(names)
        if release is None:
            if self._names_held + len(names) > _MORE * self._limit:
                return
            release = self._releases[names] = _Release(names)
            self._names_held += len(names)
            self._release_count.update(names)
        release.workers[hostname] = None
        self._release_of[hostname] = release
        self._registered = None

    def _pairs(self) -> Iterator[tuple[str, str]]:
        """The queues of many workers first: those of one pod each must not take the room of the others."""
        ranked = [
            (number, queue, release.names)
            for release in self._releases.values()
            for queue, number in Counter(chain.from_iterable(map(self._candidate_queues, release.workers))).items()
        ]
        ranked.sort(key=lambda entry: -entry[0])
        return chain.from_iterable(zip(names, repeat(queue)) for _, queue, names in ranked)

    def _candidate_queues(self, hostname: str) -> Sequence[str]:
        """The queues that tasks of this worker are counted in, but for those that are sent to it alone."""
        consumed = self._consumed.get(hostname, ())
        if len(consumed) == 1:
            return consumed
        shared = [queue for queue in consumed if not is_direct_queue(queue, hostname)]
        return (*(shared if len(shared) <= QUEUES_PER_WORKER else ()), self._default)

    def likely_queue(self, task: str, hostname: str) -> str:
        """The only one that the worker consumes, else the task's last one if the worker consumes it."""
        consumed = self._consumed.get(hostname)
        if consumed is not None and len(consumed) == 1:
            self._note_queue(task, consumed[0])
            return consumed[0]
        last = self._last_of.get(task) or self._last_queue.get(task)
        return last if last is not None and (not consumed or last in consumed) else self._default

    def _note_queue(self, task: str, queue: str) -> None:
        if task in self._last_queue or len(self._last_queue) < _MORE * self._limit:
            self._last_queue[task] = queue


def is_direct_queue(queue: str, hostname: str) -> bool:
    """Whether the queue is for this worker alone: ``celery@box.dq2``, of Celery's ``worker_direct``."""
    return queue.startswith(f"{hostname}.")
