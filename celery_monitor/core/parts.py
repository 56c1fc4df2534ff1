"""The parts of one monitor: creates and connects them, and restores their state at start."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from celery_monitor.core import usage
from celery_monitor.core.aggregate import Aggregator, Bounds
from celery_monitor.core.conditions.watch import Conditions
from celery_monitor.core.counters import Counters
from celery_monitor.core.decide import Decider
from celery_monitor.core.ended import EndedTasks
from celery_monitor.core.fingerprint import Fingerprints
from celery_monitor.core.hosts import Hosts
from celery_monitor.core.limits import Limits
from celery_monitor.core.model import SENT, Condition, CounterFamily, CounterName, Limit, Restored
from celery_monitor.core.queues import Queues
from celery_monitor.core.schedules.judge import ScheduleJudge
from celery_monitor.core.silences import Silences
from celery_monitor.core.start_history import StartHistory
from celery_monitor.core.stream_clock import MAX_TICK_GAP
from celery_monitor.core.text import OTHER
from celery_monitor.core.track import Tracker
from celery_monitor.core.transitions import KINDS
from celery_monitor.core.undecodable import UndecodableMessages
from celery_monitor.core.unnamed import UnnamedEvents
from celery_monitor.core.workers import KINDS as WORKER_KINDS
from celery_monitor.core.workers import Workers

PROBE: Final = "monitor-probe"
"""Type of the monitor's own events, its round-trip probes."""


class Parts:
    """The parts of one monitor. Not thread-safe. ``restore`` fills them."""

    def __init__(self, limits: Limits, restored: Restored, now: float) -> None:
        """Create the parts. ``restored``: stored state that some of them need at creation."""
        self.limits = limits
        self.overflows = usage.restored(restored.counters)
        self.overflows["series"] += restored.series_merged
        self.ended = EndedTasks(limits.max_ended_tasks)
        self.tracker = _tracker(limits, self.ended)
        self.unnamed = UnnamedEvents(limits.name_wait)
        self.workers = Workers(
            timeout=limits.worker_timeout,
            purge=limits.worker_purge,
            max_workers=limits.max_workers,
            overflows=self.overflows,
        )
        self.silences = Silences(limits.mutes, restored.silences)
        self.decider = Decider(
            limits.policy, silences=self.silences, max_incidents=limits.max_incidents, overflows=self.overflows
        )
        self.schedules = ScheduleJudge(limits.schedules, restored.schedules, now, scheduler=limits.scheduler)
        self.starts = StartHistory(restored.starts, now)
        self.hosts = Hosts(purge=limits.worker_purge, overflows=self.overflows)
        self.counters = Counters(restored.counters, {*KINDS, *WORKER_KINDS, PROBE}, limits.prober)
        self.undecodable = UndecodableMessages()
        self.fingerprints = Fingerprints(capacity=limits.prefetch)
        self.queues = Queues(
            default=limits.default_queue,
            last_of=self.tracker.queue_of,
            normalize=self.tracker.name,
            max_tasks=min(limits.max_task_names, limits.max_series),
        )
        self.aggregator = _aggregator(limits, self.queues, self.overflows)
        self.conditions = Conditions(
            limits.policy,
            self.tracker,
            self.workers,
            purge=limits.worker_purge,
            queue_of=self.queues.likely_queue,
            on_lost=self._count_lost,
            unreported=lambda: self.queues.unreported,
        )

    def restore(self, restored: Restored, now: float) -> None:
        """Continue from the stored state."""
        self.aggregator.tick(now)
        self.aggregator.restore(restored.series)
        self.hosts.restore({series.key.host for series in restored.series if series.key.host}, 0.0)
        self.queues.restore(series.key for series in restored.series)
        self.tracker.restore(restored.tracked, restored.ended)
        self.unnamed.restore(restored.unnamed, now)
        self.tracker.queue_of.update(
            {series.key.name: series.key.queue for series in restored.series if series.counts[SENT]}
        )
        self.workers.restore(restored.workers, now)
        self.workers.unobserved = int(restored.counters.get(CounterName.UNOBSERVED, 0))
        self.decider.restore(restored.incidents, now)
        alive_at = restored.counters.get(CounterName.ALIVE_AT)
        self.conditions.restore(self.decider.episodes.live)
        if alive_at is not None and alive_at - now > MAX_TICK_GAP:
            self.clock_set_back(alive_at - now, now)
        if alive_at is not None:
            self.conditions.note_downtime(alive_at, now)
            self.note_downtime(alive_at, now)
        self.schedules.resume(self.decider.episodes.live(Condition.MISSED))
        self.fingerprints.restore(restored.epoch, restored.fingerprints)
        self.tracker.evicted, self.tracker.arguments.cut = self.overflows["tasks"], self.overflows["arguments"]
        self.tracker.tick(now)

    def clock_set_back(self, seconds: float, now: float) -> None:
        """The machine's clock was set back by ``seconds`` to ``now``."""
        self.workers.clock_set_back(seconds, now)
        self.tracker.clock_set_back(seconds, now)
        self.conditions.clock_set_back(seconds, now)
        self.decider.clock_set_back(seconds, now)
        self.schedules.clock_set_back(seconds, now)

    def clock_set_forward(self, since: float, until: float) -> None:
        """The machine's clock was set forward, so the times between these have not existed."""
        self.conditions.clock_set_forward(since, until)
        self.schedules.unwatched(since, until)

    def note_gap(self, since: float, until: float) -> None:
        """The events between these times are lost."""
        self.conditions.note_gap(since, until)
        self.schedules.unwatched(since, until)

    def note_downtime(self, since: float, until: float) -> None:
        """The stream was not read between these times. The broker kept its events, but only for a limited time."""
        if until - since > self.limits.stream_kept:
            self.note_gap(since, until)

    def all_overflows(self) -> Mapping[str, int]:
        """Number of entries that exceeded each bound, by its name."""
        return self.overflows | {"tasks": self.tracker.evicted, "arguments": self.tracker.arguments_cut}

    def all_limits(self) -> list[Limit]:
        """Every bound, with its usage and overflows."""
        used = {
            "workers": len(self.workers),
            "hosts": len(self.hosts),
            "tasks": len(self.tracker),
            "incidents": len(self.decider),
            "unnamed_events": len(self.unnamed),
            "arguments": self.tracker.arguments_bytes,
        }
        return usage.limits(self.limits.maxima(), used | self.aggregator.used, self.all_overflows())

    def _count_lost(self, task: str, queue: str) -> None:
        """Count a lost run of the task."""
        self.counters.add(CounterFamily.LOST.counter(task if self.aggregator.admits(task, queue) else OTHER), 1)


def _tracker(limits: Limits, ended: EndedTasks) -> Tracker:
    return Tracker(
        max_tasks=limits.max_tasks,
        max_age=limits.max_age,
        linger=limits.linger,
        capture_arguments=limits.capture_arguments,
        max_argument_bytes=limits.max_argument_bytes,
        on_ended=ended.note,
    )


def _aggregator(limits: Limits, queues: Queues, overflows: Counter[str]) -> Aggregator:
    return Aggregator(
        Bounds(limits.max_task_names, limits.max_series, limits.max_error_groups, limits.max_sample_bytes),
        runtime_bounds=limits.runtime_bounds,
        wait_bounds=limits.wait_bounds,
        hosts=limits.hostname_label,
        knows=queues.knows,
        overflows=overflows,
    )
