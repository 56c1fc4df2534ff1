"""Metrics of the workers, the queues and the schedules."""

from typing import Final

from celery_monitor.adapters.prometheus.families.family import Family, Kind

WORKER_UP: Final = Family(
    "worker_up",
    Kind.GAUGE,
    "1 while the worker sends heartbeats, or answers inspect if it sends none; 0 after it went offline or did neither "
    "for metrics.worker_timeout. The series is removed after metrics.worker_purge. Workers on one host share a "
    "series, which is 1 if any of them is up.",
    ("hostname",),
)

WORKER_ACTIVE: Final = Family(
    "worker_tasks_active",
    Kind.GAUGE,
    "Number of tasks running on the host's workers, according to their last heartbeats.",
    ("hostname",),
)

WORKER_HEARTBEAT: Final = Family(
    "worker_last_heartbeat_timestamp_seconds",
    Kind.GAUGE,
    "Unix timestamp of the last heartbeat from the host's workers.",
    ("hostname",),
    "seconds",
)

WORKER_CLOCK: Final = Family(
    "worker_clock_offset_seconds",
    Kind.GAUGE,
    "Seconds by which the host's clock is behind the monitor's (negative: ahead). 0 if the difference is less than "
    "a minute.",
    ("hostname",),
    "seconds",
)

WORKER_PROCESSED: Final = Family(
    "worker_processed",
    Kind.COUNTER,
    "Total number of executions started, as reported by the host's workers, summed over worker restarts while the host "
    "is known.",
    ("hostname",),
)

WORKER_INFO: Final = Family(
    "worker",
    Kind.INFO,
    "Software versions reported by the worker.",
    ("hostname", "sw_ident", "sw_ver", "sw_sys"),
)

_QUEUE: Final = ("queue_name",)

QUEUE_LENGTH: Final = Family(
    "queue_length",
    Kind.GAUGE,
    "Number of messages ready in the queue, without those prefetched by workers. Queried from the broker every "
    "metrics.poll_interval, never during a scrape. A queue without workers remains until it is deleted from the "
    "broker or has been empty for an hour. If the broker does not respond, all queues are absent after four polls.",
    _QUEUE,
)

# Type unknown although they are gauges: the drop-in names end in _count, which linters allow only for histograms.
CONSUMERS: Final = Family(
    "active_consumer_count",
    Kind.UNKNOWN,
    "Number of consumers of the queue, as reported by the broker (a gauge).",
    _QUEUE,
)

QUEUE_WORKERS: Final = Family(
    "active_worker_count",
    Kind.UNKNOWN,
    "Number of workers that consume the queue, as reported by the workers (a gauge). A worker that does not respond is "
    "counted for three more polls.",
    _QUEUE,
)

QUEUE_PROCESSES: Final = Family(
    "active_process_count",
    Kind.UNKNOWN,
    "Number of pool processes or threads of the workers that consume the queue (a gauge).",
    _QUEUE,
)

QUEUE_LOAD: Final = Family(
    "queue_load",
    Kind.GAUGE,
    "Number of tasks of the queue that are ready, prefetched by workers and due, or running: what an autoscaler should "
    "use. Absent if the queue's length is unknown.",
    _QUEUE,
)

SCHEDULE_LAST_RUN: Final = Family(
    "schedule_last_run_timestamp_seconds",
    Kind.GAUGE,
    "Unix timestamp of the last start of a configured schedule. Absent until the first start is seen.",
    ("schedule", "name"),
    "seconds",
)

SCHEDULE_MISSED: Final = Family(
    "schedule_missed",
    Kind.COUNTER,
    "Total number of expected starts of a configured schedule that did not happen within its grace period. "
    "Starts at 0.",
    ("schedule", "name"),
)

SCHEDULE_MISSING: Final = Family(
    "schedule_missing",
    Kind.GAUGE,
    "Number of expected starts of a configured schedule missed since its last run. 0 while it runs as expected.",
    ("schedule", "name"),
)

SCHEDULE_UNJUDGED: Final = Family(
    "schedule_not_judged",
    Kind.COUNTER,
    "Total number of expected starts of a configured schedule that could not be judged because events of that time "
    "were lost.",
    ("schedule", "name"),
)
