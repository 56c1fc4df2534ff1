"""All exported metrics. ``docs/metrics.md`` is generated from this table."""

from typing import Final

from celery_monitor.adapters.prometheus.families import fleet, monitor, tasks
from celery_monitor.adapters.prometheus.families.family import Family, Kind

FAMILIES: Final = (
    *(family for _, family in tasks.TASK_COUNTERS),
    tasks.TASK_FAILURES,
    tasks.TASK_RUNTIME,
    tasks.TASK_WAIT,
    tasks.TASK_OLDEST,
    tasks.TASK_LOST,
    fleet.WORKER_UP,
    fleet.WORKER_ACTIVE,
    fleet.WORKER_HEARTBEAT,
    fleet.WORKER_CLOCK,
    fleet.WORKER_PROCESSED,
    fleet.WORKER_INFO,
    fleet.QUEUE_LENGTH,
    fleet.CONSUMERS,
    fleet.QUEUE_WORKERS,
    fleet.QUEUE_PROCESSES,
    fleet.QUEUE_LOAD,
    monitor.MESSAGES,
    monitor.EVENTS,
    monitor.DISCARDED,
    monitor.REPLIES_DISCARDED,
    monitor.LAG,
    monitor.ROUNDTRIP,
    monitor.CONNECTED,
    monitor.RECONNECTS,
    monitor.GAP,
    monitor.UNOBSERVED,
    monitor.UNNAMED,
    monitor.TRACKED,
    monitor.EVICTED,
    monitor.NAMES_OVER_LIMIT,
    monitor.LIMIT,
    monitor.LIMIT_USED,
    monitor.LIMIT_EXCEEDED,
    monitor.UNACKED,
    monitor.COMMIT,
    monitor.COMMIT_FAILURES,
    monitor.STORE_BYTES,
    monitor.STORE_ROOM,
    monitor.STORE_GIVEN_UP,
    monitor.STORE_ROLLED_BACK,
    monitor.INCIDENTS,
    monitor.INCIDENTS_OPEN,
    monitor.INCIDENTS_OPEN_BY_CONDITION,
    monitor.SILENCES_ACTIVE,
    monitor.SILENCED_FAILURES,
    fleet.SCHEDULE_LAST_RUN,
    fleet.SCHEDULE_MISSING,
    fleet.SCHEDULE_MISSED,
    fleet.SCHEDULE_UNJUDGED,
    monitor.NOTIFICATIONS,
    monitor.OUTBOX_PENDING,
    monitor.OUTBOX_OLDEST,
    monitor.REPORT,
    monitor.THREAD_FAILURES,
    monitor.SIGN_INS_REFUSED,
    monitor.REDACTION_TIMEOUTS,
    monitor.LEADER,
    monitor.BUILD,
)
"""In the order of the exposition."""

OF_THE_PROCESS: Final = frozenset(
    {monitor.REPLIES_DISCARDED, monitor.COMMIT, monitor.COMMIT_FAILURES, monitor.STORE_GIVEN_UP, monitor.NOTIFICATIONS}
    | {monitor.THREAD_FAILURES, monitor.SIGN_INS_REFUSED, monitor.REDACTION_TIMEOUTS, monitor.LEADER, monitor.BUILD}
)
"""Metrics of the process: a standby exports only these, and the chart's relabelling keeps the labels of their pod. All
others describe the fleet: only the leader exports them, and they continue after a failover."""

__all__ = ["FAMILIES", "OF_THE_PROCESS", "Family", "Kind"]
