"""Renders the families of the workers, column by column.

There may be thousands of workers, real or invented. prometheus_client's renderer takes 5 µs per line and 150 ms for all
of them, which is more than the rest of a scrape.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from celery_monitor.adapters.prometheus import columns, labels
from celery_monitor.adapters.prometheus.families import Family, fleet, monitor
from celery_monitor.core.model import Worker

_AT_ONCE: Final = 1000
"""Samples per chunk of text."""


class WorkerRenderer:
    """Renders the workers' metrics with a name prefix and static labels."""

    def __init__(self, prefix: str, static_labels: Mapping[str, str]) -> None:
        self._prefix = prefix
        self._static = "".join(f',{name}="{labels.escaped(value)}"' for name, value in static_labels.items())

    def render(self, workers: Sequence[Worker], *, openmetrics: bool) -> Iterator[bytes]:
        """The text of all worker families, in chunks. Workers on one host share its series."""
        hosts: dict[str, list[Worker]] = {}
        for worker in workers:
            hosts.setdefault(labels.escaped(labels.host(worker.hostname)), []).append(worker)
        label_sets = [f'hostname="{host}"{self._static}'.encode() for host in hosts]
        rows = [_of_host(host_workers) for host_workers in hosts.values()]
        up, active, heartbeat, clock, processed, unobserved = zip(*rows, strict=True) if rows else [()] * 6
        for family, values in (
            (fleet.WORKER_UP, up),
            (fleet.WORKER_ACTIVE, active),
            (fleet.WORKER_HEARTBEAT, heartbeat),
            (fleet.WORKER_CLOCK, clock),
            (fleet.WORKER_PROCESSED, processed),
        ):
            yield from self._family(family, label_sets, values, openmetrics=openmetrics)
        software = sorted(
            {self._software(host, worker) for host, host_workers in hosts.items() for worker in host_workers}
        )
        yield from self._family(fleet.WORKER_INFO, software, [1] * len(software), openmetrics=openmetrics)
        yield from self._family(monitor.UNOBSERVED, label_sets, unobserved, openmetrics=openmetrics)

    def _family(
        self, family: Family, label_sets: Sequence[bytes], values: Sequence[float], *, openmetrics: bool
    ) -> Iterator[bytes]:
        yield columns.head(self._prefix, family, openmetrics=openmetrics)
        sample = (self._prefix + family.sample).encode()
        for start in range(0, len(label_sets), _AT_ONCE):
            yield columns.lines(sample, label_sets[start : start + _AT_ONCE], values[start : start + _AT_ONCE])

    def _software(self, host: str, worker: Worker) -> bytes:
        values = ((name, labels.escaped(getattr(worker, name))) for name in fleet.WORKER_INFO.labels[1:])
        pairs = ",".join([f'{name}="{value}"' for name, value in values])
        return f'hostname="{host}",{pairs}{self._static}'.encode()


def _of_host(workers: Sequence[Worker]) -> tuple[int, int, float, float, int, int]:
    """A host's (any worker up, active tasks, last heartbeat, largest clock offset, started and unobserved tasks)."""
    first = workers[0]
    if len(workers) == 1:
        begun = first.processed_before + first.processed
        return int(first.up), first.active, first.last_heartbeat, first.clock_offset, begun, first.unobserved
    return (
        int(any(worker.up for worker in workers)),
        sum(worker.active for worker in workers),
        max(worker.last_heartbeat for worker in workers),
        max((worker.clock_offset for worker in workers), key=abs),
        sum(worker.processed_before + worker.processed for worker in workers),
        sum(worker.unobserved for worker in workers),
    )
