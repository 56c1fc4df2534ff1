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


class _Code:
    """The names of the tasks in it, and the workers that know just these: all pods of a release share one."""

    __slots__ = ("names", "workers")

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.workers: dict[str, None] = {}


class Queues:
    """Not thread-safe: it belongs to the monitor.

    ``last_of``: task name → the queue that it was last sent to, kept by the caller. ``most`` bounds the tasks that are
    yet to come. ``cleaned`` gives names from outside as they are kept.
    """

    def __init__(
        self, *, default: str, last_of: Mapping[str, str], most: int, cleaned: Callable[[str], str] = str
    ) -> None:
        """``default`` stands for what nothing tells."""
        self._default = default
        self._last_of = last_of
        self._most = most
        self._cleaned = cleaned
        self._consumed: dict[str, Sequence[str]] = {}
        """Hostname of each worker → the queues it consumes, as far as it was asked."""
        self._seen_in: dict[str, str] = {}
        """Task name → the only queue of the worker that it was last seen on: for workers that were not asked yet."""
        self._codes: dict[tuple[str, ...], _Code] = {}
        self._code_of: dict[str, _Code] = {}
        """By hostname."""
        self._told: Counter[str] = Counter()
        """Task name → number of codes that it is in."""
        self._consumed_by: frozenset[str] = frozenset()
        """Names of all queues in ``_consumed``."""
        self._held = 0
        """Names in all codes."""
        self._registered: tuple[tuple[str, str], ...] | None = None
        """As last told; None when something has changed since then."""
        self._admitted = 0

    def restore(self, keys: Iterable[SeriesKey]) -> None:
        """Take over where tasks were counted before."""
        for key in keys:
            if key.queue != self._default:
                self._see(key.name, key.queue)

    def learn(self, told: Mapping[str, Sequence[str]], workers: Container[str]) -> None:
        """Take in what each worker consumes. Who did not answer this time keeps what it said while it is known."""
        kept = {hostname: names for hostname, names in self._consumed.items() if hostname in workers}
        consumed = kept | {hostname: tuple(map(self._cleaned, names)) for hostname, names in told.items()}
        if consumed != self._consumed:
            self._consumed, self._registered = consumed, None
            self._consumed_by = frozenset(chain.from_iterable(consumed.values()))
        self.forget([hostname for hostname in self._code_of if hostname not in consumed and hostname not in workers])

    def register(self, told: Mapping[str, Iterable[str]]) -> None:
        """Take in the names of the tasks that workers know, in place of what they have told before."""
        for hostname, names in told.items():
            known = tuple(dict.fromkeys(map(self._cleaned, names)))[: self._most]
            last = self._code_of.get(hostname)
            if last is None or last.names != known:
                self.forget([hostname])
                self._join(hostname, known)

    def forget(self, hostnames: Iterable[str]) -> None:
        """These workers are gone: what they alone know is yet to come no more."""
        for hostname in hostnames:
            code = self._code_of.pop(hostname, None)
            if code is None:
                continue
            self._registered = None
            del code.workers[hostname]
            if not code.workers:
                del self._codes[code.names]
                self._held -= len(code.names)
                self._told -= Counter(code.names)

    def knows(self, task: str, queue: str) -> bool:
        """Whether a worker knows the task, and one consumes the queue, or it is the one for what nothing tells."""
        return task in self._told and (queue in self._consumed_by or queue == self._default)

    def registered(self, admits: Callable[[str, str], bool], admitted: int) -> tuple[tuple[str, str], ...]:
        """Name and queue of each task that a worker knows, in each queue that ``most_likely_queue`` can give for it.

        Whether or not it has run, but only where ``admits`` says that it would be counted by this name and queue.
        ``admitted`` is a number that changes with what ``admits`` says.
        """
        if self._registered is None or admitted != self._admitted:
            pairs = dict.fromkeys(islice(self._pairs(), _MORE * self._most))
            self._registered = tuple(islice((pair for pair in pairs if admits(*pair)), self._most))
            self._admitted = admitted
        return self._registered

    def _join(self, hostname: str, names: tuple[str, ...]) -> None:
        code = self._codes.get(names)
        if code is None:
            if self._held + len(names) > _MORE * self._most:
                return
            code = self._codes[names] = _Code(names)
            self._held += len(names)
            self._told.update(names)
        code.workers[hostname] = None
        self._code_of[hostname] = code
        self._registered = None

    def _pairs(self) -> Iterator[tuple[str, str]]:
        """The queues of many workers first: those of one pod each must not take the room of the others."""
        ranked = [
            (number, queue, code.names)
            for code in self._codes.values()
            for queue, number in Counter(chain.from_iterable(map(self._candidate_queues, code.workers))).items()
        ]
        ranked.sort(key=lambda one: -one[0])
        return chain.from_iterable(zip(names, repeat(queue)) for _, queue, names in ranked)

    def _candidate_queues(self, hostname: str) -> Sequence[str]:
        """The queues that tasks of this worker are counted in, but for those that are sent to it alone."""
        consumed = self._consumed.get(hostname, ())
        if len(consumed) == 1:
            return consumed
        shared = [queue for queue in consumed if not is_own(queue, hostname)]
        return (*(shared if len(shared) <= QUEUES_PER_WORKER else ()), self._default)

    def most_likely_queue(self, task: str, hostname: str) -> str:
        """The only one that the worker consumes, else the task's last one if the worker consumes it."""
        consumed = self._consumed.get(hostname)
        if consumed is not None and len(consumed) == 1:
            self._see(task, consumed[0])
            return consumed[0]
        last = self._last_of.get(task) or self._seen_in.get(task)
        return last if last is not None and (not consumed or last in consumed) else self._default

    def _see(self, task: str, queue: str) -> None:
        if task in self._seen_in or len(self._seen_in) < _MORE * self._most:
            self._seen_in[task] = queue


def is_own(queue: str, hostname: str) -> bool:
    """Whether the queue is for this worker alone: ``celery@box.dq2``, of Celery's ``worker_direct``."""
    return queue.startswith(f"{hostname}.")
