"""What the store holds, for readers: a number that was shown once is not taken back.

The monitor's memory is ahead of the store by what came since the last flush. A process that is killed goes on from the
store: on a broker that gives nothing twice that is less than memory held, and Prometheus takes a counter that falls
for one that began again at zero, and adds all of it once more. So the totals that are shown are those of the last
commit. They are at most a flush old; while the store is away, they stand still.
"""

from collections.abc import Iterable

from msgspec import structs

from celery_monitor.core.model import Changes, Series, SeriesKey, Snapshot, Worker


class CommittedTotals:
    """Totals as committed. Not thread-safe: the caller holds a lock over each call."""

    def __init__(self, restored: Snapshot) -> None:
        """``restored``: the monitor's state before its first message."""
        self.counters = restored.counters
        self._series: dict[SeriesKey, Series] = {series.key: series for series in restored.series}
        self._workers: dict[str, Worker] = {worker.hostname: worker for worker in restored.workers}

    def commit(self, changes: Changes) -> None:
        """Take over what was written."""
        for key in changes.dropped_series:
            self._series.pop(key, None)
        for series in changes.series:
            self._series[series.key] = series
        for hostname in changes.dropped_workers:
            self._workers.pop(hostname, None)
        for worker in changes.workers:
            self._workers[worker.hostname] = worker
        self.counters = changes.counters

    def series(self) -> list[Series]:
        """All totals."""
        return list(self._series.values())

    def workers(self, live: Iterable[Worker]) -> list[Worker]:
        """The workers as they are now, but for what they have in total.

        One that was dropped stays until that is committed: another one gets its totals with the same commit.
        """
        workers = self._workers.copy()
        for worker in live:
            workers[worker.hostname] = _with_totals(worker, workers.get(worker.hostname, worker))
        return list(workers.values())


def _with_totals(worker: Worker, committed: Worker) -> Worker:
    if committed is worker or (committed.processed, committed.processed_before, committed.unobserved) == (
        worker.processed, worker.processed_before, worker.unobserved,
    ):  # fmt: skip
        return worker
    return structs.replace(
        worker,
        processed=committed.processed,
        processed_before=committed.processed_before,
        unobserved=committed.unobserved,
    )
