"""The newest runs that have ended, so that a task is found by its ID after its end.

For people, and bounded: in memory, in what one flush writes, and in the store. Where more tasks end between two flushes
than ``PORTION``, the newest of them are kept and the others are not.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from celery_monitor.core.model import NO_DETAILS, TaskRef, TaskRun

PORTION: Final = 500
"""Runs that are kept of those between two flushes: what they cost is bounded, however many there are."""
IN_MEMORY: Final = 10_000
"""Runs that are found while the store is away or has not been written yet, some 350 bytes each."""

QueueOf = Callable[[str, str], str]
_End = tuple[str, TaskRef, int, float, float, float | None]


class EndedTasks:
    """Not thread-safe: it belongs to the monitor. ``max_runs`` runs are kept; 0: none."""

    def __init__(self, max_runs: int) -> None:
        """Start without any: the store has those of before."""
        self._fresh: deque[_End] = deque(maxlen=PORTION)
        self._taken: deque[TaskRun] = deque(maxlen=min(max_runs, IN_MEMORY))
        self.note = self._fresh.append if max_runs else None
        """Takes in the end of a run, see ``track.End``; None where none is kept. On the hot path."""

    def take(self, queue_of: QueueOf) -> list[TaskRun]:
        """Those since the last call, in the order of their ends.

        Only here they become values: a task-sent that is read right after the end still counts. ``queue_of``: the most
        likely queue of a task's name on a worker, where no event has told it.
        """
        runs = [_run(end, queue_of) for end in self._fresh]
        self._fresh.clear()
        self._taken.extend(runs)
        return runs

    def all(self, queue_of: QueueOf) -> Iterator[TaskRun]:
        """All that are in memory, the newest first."""
        yield from (_run(end, queue_of) for end in reversed(self._fresh))
        yield from reversed(self._taken)

    def find(self, uuid: str, queue_of: QueueOf) -> list[TaskRun]:
        """Runs of a task ID, the newest first."""
        fresh = [_run(end, queue_of) for end in reversed(self._fresh) if end[0] == uuid]
        return fresh + [run for run in reversed(self._taken) if run.uuid == uuid]


def _run(end: _End, queue_of: QueueOf) -> TaskRun:
    uuid, ref, stage, started_at, ended_at, runtime = end
    if ref.stage != stage:  # the ID is in use again
        ref = TaskRef(name=ref.name, queue=ref.queue, host=ref.host)
    details = ref.details or NO_DETAILS
    return TaskRun(
        uuid=uuid,
        name=ref.name,
        queue=ref.queue or (queue_of(ref.name, ref.host) if ref.name else None),
        hostname=ref.host,
        stage=stage,
        sent_at=ref.sent_at,
        received_at=ref.received_at,
        started_at=started_at,
        ended_at=ended_at,
        runtime=runtime,
        eta=details.eta,
        retries=details.retries,
        root=details.root,
        parent=details.parent,
    )
