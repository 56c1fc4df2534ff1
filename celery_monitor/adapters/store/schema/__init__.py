"""The tables. A change here needs a migration; a test compares the two.

Columns have the names of the fields in ``core.model`` that they store. Values that are searched or summed have columns;
the rest of an incident and the histograms of a series are stored as JSON text.
"""

from celery_monitor.adapters.store.schema.columns import metadata
from celery_monitor.adapters.store.schema.count_tables import (
    HAS_FAILURES,
    buckets,
    failing_buckets,
    fleet_buckets,
    series,
    task_totals,
)
from celery_monitor.adapters.store.schema.failure_tables import error_buckets, error_groups, failures
from celery_monitor.adapters.store.schema.hour_tables import checkpoints, queue_lengths
from celery_monitor.adapters.store.schema.incident_tables import (
    IS_REPORT,
    PENDING,
    deliveries,
    incidents,
    next_to_send,
    outbox,
    pending_once,
    report_once,
    silences,
)
from celery_monitor.adapters.store.schema.progress_tables import counters, fingerprints, meta
from celery_monitor.adapters.store.schema.task_tables import (
    among_oldest,
    beyond,
    ended_tasks,
    schedules,
    task_starts,
    tracked,
    tracked_changes,
    unnamed,
    workers,
)

__all__ = [
    "HAS_FAILURES",
    "IS_REPORT",
    "PENDING",
    "among_oldest",
    "beyond",
    "buckets",
    "checkpoints",
    "counters",
    "deliveries",
    "ended_tasks",
    "error_buckets",
    "error_groups",
    "failing_buckets",
    "failures",
    "fingerprints",
    "fleet_buckets",
    "incidents",
    "meta",
    "metadata",
    "next_to_send",
    "outbox",
    "pending_once",
    "queue_lengths",
    "report_once",
    "schedules",
    "series",
    "silences",
    "task_starts",
    "task_totals",
    "tracked",
    "tracked_changes",
    "unnamed",
    "workers",
]
