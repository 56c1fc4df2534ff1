"""Which queue a task came from where no task-sent tells it, and which tasks are yet to come.

Celery sends task-sent only when it is asked to, and no other event names a queue. But workers tell which queues they
consume, and which tasks they know. A known task has a series of failures at 0 before it has ever run: else its first
failure would come together with its series, and no rate or increase would see it.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Final

from celery_monitor.core.model import SeriesKey

QUEUES_PER_WORKER: Final = 5
"""Of a worker that consumes more, any task may be in any queue: that tells nothing."""


class Queues:
    """Not thread-safe: it belongs to the monitor.

    ``last_of``: task name → the queue that it was last sent to, kept by the caller. ``most`` bounds the tasks that are
    yet to come.
    """

    def __init__(self, *, default: str, last_of: Mapping[str, str], most: int) -> None:
        """``default`` stands for what nothing tells."""
        self.registered: dict[tuple[str, str], None] = {}
        """Name and queue of each task that a worker knows, whether or not it has run."""
        self._default = default
        self._last_of = last_of
        self._most = most
        self._consumed: dict[str, Sequence[str]] = {}
        """Hostname of each worker → the queues it consumes, as far as it was asked."""
        self._seen_in: dict[str, str] = {}
        """Task name → the only queue of the worker that it was last seen on: for workers that were not asked yet."""

    def restore(self, keys: Iterable[SeriesKey]) -> None:
        """Take over where tasks were counted before."""
        self._seen_in |= {key.name: key.queue for key in keys if key.queue != self._default}

    def learn(self, told: Iterable[tuple[str, Sequence[str]]], workers: Container[str]) -> None:
        """Take in what each worker consumes. Who did not answer this time keeps what it said while it is known."""
        kept = {hostname: names for hostname, names in self._consumed.items() if hostname in workers}
        self._consumed = kept | dict(told)

    def register(self, hostname: str, names: Iterable[str]) -> None:
        """Take in the names of the tasks that a worker knows: they may come from any queue that ``likely`` can give."""
        queues = self._consumed.get(hostname, ())
        if len(queues) != 1:
            queues = (*(queues if len(queues) <= QUEUES_PER_WORKER else ()), self._default)
        for name in names:
            if len(self.registered) + len(queues) > self._most:
                return
            self.registered |= dict.fromkeys((name, queue) for queue in queues)

    def likely(self, task: str, hostname: str) -> str:
        """The only one that the worker consumes, else the task's last one if the worker consumes it."""
        consumed = self._consumed.get(hostname)
        if consumed is not None and len(consumed) == 1:
            self._seen_in[task] = consumed[0]
            return consumed[0]
        last = self._last_of.get(task) or self._seen_in.get(task)
        return last if last is not None and (not consumed or last in consumed) else self._default
