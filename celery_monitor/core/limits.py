"""The settings that the monitor needs, and the maximum of everything that it keeps."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from celery_monitor.core.aggregate import MAX_BUCKETS
from celery_monitor.core.decide import MAX_INCIDENTS
from celery_monitor.core.hosts import MAX_HOSTS
from celery_monitor.core.rules import Policy, Rule
from celery_monitor.core.schedules.calendar import Schedule
from celery_monitor.core.series import EXCEPTIONS_PER_SERIES, QUEUES_PER_TASK
from celery_monitor.core.silences import MuteWindow
from celery_monitor.core.text import Pattern
from celery_monitor.core.unnamed import MAX_EVENTS
from celery_monitor.core.workers import MAX_WORKERS


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings that the monitor needs. Times in seconds."""

    prefetch: int = 4000
    max_tasks: int = 1_000_000
    max_age: float = 604_800.0
    linger: float = 60.0
    max_ended_tasks: int = 10_000
    name_wait: float = 15.0
    capture_arguments: bool = False
    redact: Sequence[Pattern] = ()
    hostname_label: bool = False
    runtime_bounds: tuple[float, ...] = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
    wait_bounds: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
    default_queue: str = "celery"
    max_task_names: int = 10_000
    max_series: int = 10_000
    max_workers: int = MAX_WORKERS
    max_error_groups: int = 20_000
    max_sample_bytes: int = 16 * 1024 * 1024
    max_incidents: int = MAX_INCIDENTS
    max_argument_bytes: int = 32 * 1024 * 1024
    worker_timeout: float = 300.0
    worker_purge: float = 600.0
    policy: Policy = field(default_factory=Policy)
    mutes: Sequence[MuteWindow] = ()
    schedules: Sequence[Schedule] = ()
    scheduler: Rule | None = None  # the rule for "no schedule has run"
    stream_kept: float = 86_400.0  # for how long the broker keeps events for the monitor, if it keeps any
    prober: int | None = None  # whose probes show how far the stream was read: others may have wrong clocks

    def maxima(self) -> dict[str, int]:
        """The maximum of each bound, by the names of ``usage``."""
        return {
            "series": self.max_series,
            "task_names": self.max_task_names,
            "queues": QUEUES_PER_TASK,
            "exceptions": EXCEPTIONS_PER_SERIES,
            "workers": self.max_workers,
            "hosts": MAX_HOSTS,
            "tasks": self.max_tasks,
            "unnamed_events": MAX_EVENTS,
            "arguments": self.max_argument_bytes,
            "error_groups": self.max_error_groups,
            "samples": self.max_sample_bytes,
            "buckets": MAX_BUCKETS,
            "incidents": self.max_incidents,
        }
