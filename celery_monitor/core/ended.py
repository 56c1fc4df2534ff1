"""The newest ended runs, so that a task can be found by its ID after its end.

They are bounded in memory, in each flush and in the store. If more tasks than ``PER_FLUSH`` end between two flushes,
only the newest are kept.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from celery_monitor.core.model import NO_DETAILS, TaskRef, TaskRun

PER_FLUSH: Final = 500
"""Maximum number of runs that are kept between two flushes, which bounds their cost."""
IN_MEMORY: Final = 10_000
"""Maximum number of runs in memory, which can be found before they are written. About 350 bytes per run."""

QueueOf = Callable[[str, str], str]
_End = tuple[str, TaskRef, int, float, float, float | None]


class EndedTasks:
    """The ended runs, at most ``max_runs``; 0: none. Not thread-safe: it belongs to the monitor."""

    def __init__(self, max_runs: int) -> None:
        """Start empty: the store has the earlier runs."""
        self._fresh: deque[_End] = deque(maxlen=PER_FLUSH)
        self._written: deque[TaskRun] = deque(maxlen=min(max_runs, IN_MEMORY))
        self.note = self._fresh.append if max_runs else None
        """Records the end of a run, see ``fast_path.End``; None if no runs are kept. On the hot path."""

    def take(self, queue_of: QueueOf) -> list[TaskRun]:
        """The runs since the last call, in the order of their ends.

        The values are created only here, so that a task-sent right after the end is included. ``queue_of`` returns the
        most likely queue of a task's name on a worker, for runs whose events do not contain it.
        """
        runs = [_run(end, queue_of) for end in self._fresh]
        self._fresh.clear()
        self._written.extend(runs)
        return runs

    def all(self, queue_of: QueueOf) -> Iterator[TaskRun]:
        """All runs in memory, newest first."""
        yield from (_run(end, queue_of) for end in reversed(self._fresh))
        yield from reversed(self._written)

    def find(self, uuid: str, queue_of: QueueOf) -> list[TaskRun]:
        """The runs of a task ID in memory, newest first."""
        fresh = [_run(end, queue_of) for end in reversed(self._fresh) if end[0] == uuid]
        return fresh + [run for run in reversed(self._written) if run.uuid == uuid]


def _run(end: _End, queue_of: QueueOf) -> TaskRun:
    uuid, ref, stage, started_at, ended_at, runtime = end
    if ref.stage != stage:  # the ID was reused
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
