"""Collects all families except those of tasks and workers, with new prometheus_client metric objects per scrape."""

import functools
import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import accumulate
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    UnknownMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from celery_monitor.adapters.prometheus import families, labels
from celery_monitor.adapters.prometheus.families import Family, Kind, fleet, monitor, tasks
from celery_monitor.adapters.prometheus.runtime_stats import RuntimeStats
from celery_monitor.core.model import (
    Condition,
    CounterFamily,
    CounterName,
    Histogram,
    QueueStats,
    Reason,
    Snapshot,
)

# Series that are exported as 0 from the start, so that increase() includes the first event of each.
DISCARDED: Final = (
    "malformed", "content_type", "compressed", "too_large", "too_many_events", "poison", "unknown_type", "duplicate",
    "redelivered",
)  # fmt: skip
REPLIES_DISCARDED: Final = ("late", "content_type", "compressed", "malformed", "too_large", "too_many")
OUTCOMES: Final = ("delivered", "retried", "dead", "unknown")
GIVEN_UP: Final = ("ended_tasks", "samples", "groups", "buckets")

_Numbers = CounterMetricFamily | GaugeMetricFamily | UnknownMetricFamily
_TYPES: Final[Mapping[Kind, type[_Numbers]]] = {
    Kind.COUNTER: CounterMetricFamily,
    Kind.GAUGE: GaugeMetricFamily,
    Kind.UNKNOWN: UnknownMetricFamily,
}

Samples = Sequence[tuple[tuple[str, ...], float]]
"""(label values in the family's order, value)."""


class MonitorCollector(Collector):
    """Collects one scrape from a fixed state."""

    def __init__(
        self,
        snapshot: Snapshot | None,
        queues: Sequence[QueueStats],
        stats: RuntimeStats,
        *,
        now: float,
        prefix: str,
        static_labels: Mapping[str, str],
    ) -> None:
        self._snapshot = snapshot
        self._queues = queues
        self._stats = stats
        self._now = now
        self._prefix = prefix
        self._static = {name: labels.label_text(value) for name, value in static_labels.items()}

    def collect(self) -> Iterator[Metric]:
        """All families in the order of ``families.FAMILIES``; those of the fleet only after the store has been read.

        Before that their values are unknown, and a 0 would look like a counter reset. A standby exports only the
        families of the process, because the leader already exports the fleet's.
        """
        own = {self._prefix + family.name for family in families.OF_THE_PROCESS}
        for metric in self._all():
            if self._stats.leader or metric.name in own:
                yield metric

    def _all(self) -> Iterator[Metric]:
        if self._snapshot is not None:
            yield from self._unfinished_tasks(self._snapshot)
            yield from self._queue_stats(self._snapshot.load)
            yield from self._stream(self._snapshot)
            yield from self._tracking(self._snapshot)
            yield from self._decisions(self._snapshot)
        yield from self._runtime(self._stats)
        yield self._metric(monitor.BUILD, [(_build(), 1)])

    def _unfinished_tasks(self, snapshot: Snapshot) -> Iterator[Metric]:
        ages = {name: max(0.0, self._now - started_at) for name, started_at in snapshot.oldest_started.items()}
        yield self._keyed(tasks.TASK_OLDEST, ages)
        # 0 while the task runs, so that increase() includes the first loss; a 0 for every task would be expensive.
        lost = dict.fromkeys(snapshot.oldest_started, 0.0)
        yield self._keyed(tasks.TASK_LOST, lost | CounterFamily.LOST.of(snapshot.counters))

    def _queue_stats(self, load: Mapping[str, int]) -> Iterator[Metric]:
        queues = {labels.label_text(queue.name): queue for queue in self._queues}

        def per_queue(family: Family, value: Callable[[QueueStats], int | None]) -> Metric:
            samples = [((name,), value(queue)) for name, queue in queues.items()]
            return self._metric(family, [(name, number) for name, number in samples if number is not None])

        yield per_queue(fleet.QUEUE_LENGTH, lambda queue: queue.length)
        yield per_queue(fleet.CONSUMERS, lambda queue: queue.consumers)
        yield per_queue(fleet.QUEUE_WORKERS, lambda queue: queue.workers)
        yield per_queue(fleet.QUEUE_PROCESSES, lambda queue: queue.processes)
        yield per_queue(
            fleet.QUEUE_LOAD, lambda queue: None if queue.length is None else queue.length + load.get(queue.name, 0)
        )

    def _stream(self, snapshot: Snapshot) -> Iterator[Metric]:
        counters = snapshot.counters
        yield self._single(monitor.MESSAGES, counters.get(CounterName.MESSAGES, 0))
        yield self._keyed(monitor.EVENTS, CounterFamily.EVENTS.of(counters))
        discarded = dict.fromkeys(DISCARDED, 0.0) | CounterFamily.DISCARDED.of(counters)
        yield self._keyed(monitor.DISCARDED, discarded)
        yield self._single(monitor.LAG, snapshot.lag)
        yield self._single(monitor.ROUNDTRIP, snapshot.probe_roundtrip)
        yield self._single(monitor.RECONNECTS, counters.get(CounterName.RECONNECTS, 0))
        yield self._single(monitor.GAP, counters.get(CounterName.STREAM_GAP, 0))

    def _tracking(self, snapshot: Snapshot) -> Iterator[Metric]:
        counters = snapshot.counters
        yield self._single(monitor.UNNAMED, counters.get(CounterName.UNNAMED_FAILURES, 0))
        yield self._single(monitor.TRACKED, snapshot.tracked)
        yield self._single(monitor.EVICTED, counters.get(CounterName.EVICTED_TASKS, 0))
        yield self._single(monitor.NAMES_OVER_LIMIT, counters.get(CounterName.TASK_NAMES_OVER_LIMIT, 0))
        yield self._single(monitor.STORE_ROLLED_BACK, counters.get(CounterName.STORE_ROLLED_BACK, 0))

        limits = snapshot.limits
        yield self._keyed(monitor.LIMIT, {limit.name: limit.maximum for limit in limits if limit.maximum is not None})
        yield self._keyed(monitor.LIMIT_USED, {limit.name: limit.used for limit in limits if limit.used is not None})
        yield self._keyed(monitor.LIMIT_EXCEEDED, {limit.name: limit.exceeded for limit in limits})

    def _decisions(self, snapshot: Snapshot) -> Iterator[Metric]:
        reasons = dict.fromkeys([str(reason) for reason in Reason], 0.0) | dict(snapshot.incidents)
        yield self._keyed(monitor.INCIDENTS, reasons)
        yield self._single(monitor.INCIDENTS_OPEN, snapshot.incidents_open)
        by_condition = dict.fromkeys(map(str, Condition), 0) | dict(snapshot.incidents_by_condition)
        yield self._keyed(monitor.INCIDENTS_OPEN_BY_CONDITION, by_condition)
        active = {"silence": snapshot.silences_active, "mute_window": snapshot.mute_windows_active}
        yield self._keyed(monitor.SILENCES_ACTIVE, active)
        yield self._single(monitor.SILENCED_FAILURES, snapshot.counters.get(CounterName.SILENCED_FAILURES, 0))
        yield from self._schedules(snapshot)

    def _schedules(self, snapshot: Snapshot) -> Iterator[Metric]:
        samples = [
            ((labels.label_text(schedule.name), labels.label_text(schedule.task)), schedule)
            for schedule in snapshot.schedules
        ]
        runs = [(names, schedule.last.at) for names, schedule in samples if schedule.last is not None]
        yield self._metric(fleet.SCHEDULE_LAST_RUN, runs)
        yield self._metric(fleet.SCHEDULE_MISSING, [(names, float(schedule.missed)) for names, schedule in samples])
        for family, counter_family in (
            (fleet.SCHEDULE_MISSED, CounterFamily.MISSED),
            (fleet.SCHEDULE_UNJUDGED, CounterFamily.UNJUDGED),
        ):
            numbers = counter_family.of(snapshot.counters)
            yield self._metric(family, [(names, numbers.get(schedule.name, 0.0)) for names, schedule in samples])

    def _runtime(self, stats: RuntimeStats) -> Iterator[Metric]:
        yield self._single(monitor.CONNECTED, stats.broker_connected)
        yield self._keyed(
            monitor.REPLIES_DISCARDED, dict.fromkeys(REPLIES_DISCARDED, 0) | dict(stats.replies_discarded)
        )
        yield self._single(monitor.UNACKED, stats.unacked_messages)
        yield self._histogram(monitor.COMMIT, stats.commits)
        yield self._single(monitor.COMMIT_FAILURES, stats.commit_failures)
        yield self._single(monitor.STORE_BYTES, stats.store.used)
        yield self._single(monitor.STORE_ROOM, stats.store.room)
        yield self._keyed(monitor.STORE_GIVEN_UP, dict.fromkeys(GIVEN_UP, 0) | dict(stats.store.given_up))
        sent = {(channel, outcome): 0 for channel in stats.channels for outcome in OUTCOMES}
        sent |= stats.notifications
        yield self._metric(monitor.NOTIFICATIONS, list(sent.items()))
        waiting = dict.fromkeys(stats.channels, (0, None)) | dict(stats.outbox)
        yield self._keyed(monitor.OUTBOX_PENDING, {channel: pending for channel, (pending, _) in waiting.items()})
        ages = {
            channel: 0.0 if oldest is None else max(self._now - oldest, 0.0) for channel, (_, oldest) in waiting.items()
        }
        yield self._keyed(monitor.OUTBOX_OLDEST, ages)
        yield self._single(monitor.REPORT, stats.report_last_success)
        yield self._keyed(monitor.THREAD_FAILURES, stats.thread_failures)
        yield self._keyed(monitor.SIGN_INS_REFUSED, stats.sign_ins_refused)
        yield self._single(monitor.REDACTION_TIMEOUTS, stats.redaction_timeouts)
        yield self._single(monitor.LEADER, stats.leader)

    def _single(self, family: Family, value: float | None) -> Metric:
        return self._metric(family, [] if value is None else [((), value)])

    def _keyed(self, family: Family, values: Mapping[str, float]) -> Metric:
        return self._metric(family, [((labels.label_text(key),), value) for key, value in values.items()])

    def _metric(self, family: Family, samples: Samples) -> Metric:
        name, static = self._prefix + family.name, tuple(self._static)
        if family.kind is Kind.INFO:
            info = InfoMetricFamily(name, family.help, labels=static)
            for values, _ in samples:
                info.add_metric(tuple(self._static.values()), dict(zip(family.labels, values, strict=True)))
            return info
        metric: _Numbers = _TYPES[family.kind](name, family.help, labels=family.labels + static, unit=family.unit)
        for values, number in samples:
            metric.add_metric(values + tuple(self._static.values()), float(number))
        return metric

    def _histogram(self, family: Family, histogram: Histogram) -> Metric:
        metric = HistogramMetricFamily(
            self._prefix + family.name, family.help, labels=tuple(self._static), unit=family.unit
        )
        edges = map(floatToGoString, (*histogram.bounds, math.inf))
        buckets = list(zip(edges, accumulate(histogram.counts), strict=True))
        metric.add_metric(tuple(self._static.values()), buckets, histogram.sum)
        return metric


@functools.cache
def _build() -> tuple[str, ...]:
    return (version("celery-monitor"), platform.python_version(), version("celery"), version("kombu"))
