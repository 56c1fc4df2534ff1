"""The totals that the store holds, for readers: a total that was exported never decreases.

Memory is ahead of the store by the events since the last flush. A killed process continues from the store; if the
broker does not redeliver, the totals are then lower than those in memory were. Prometheus takes a counter that
decreases for a reset and counts its whole value again. So only committed totals are shown. They are at most one flush
old, and do not change while the store is unavailable.
"""

from collections.abc import Iterable

from msgspec import structs

from celery_monitor.core.model import Changes, Series, SeriesKey, Snapshot, Worker


class CommittedTotals:
    """Not thread-safe: the caller holds a lock during each call."""

    def __init__(self, restored: Snapshot) -> None:
        """``restored``: the monitor's state before its first message."""
        self.counters = restored.counters
        self._series: dict[SeriesKey, Series] = {series.key: series for series in restored.series}
        self._workers: dict[str, Worker] = {worker.hostname: worker for worker in restored.workers}

    def commit(self, changes: Changes) -> None:
        """Apply changes that were committed."""
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
        """The workers as they are now, but with committed totals.

        A dropped worker stays until that is committed, because the same commit adds its totals to another worker.
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
