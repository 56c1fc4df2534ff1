"""Metrics of the tasks."""

from typing import Final

from celery_monitor.adapters.prometheus.families.family import Family, Kind
from celery_monitor.core.model import FAILED, RECEIVED, REJECTED, RETRIED, REVOKED, SENT, STARTED, SUCCEEDED

_TASK: Final = ("name", "queue_name")


def _task(name: str, text: str, *labels: str) -> Family:
    return Family(f"task_{name}", Kind.COUNTER, text, _TASK + labels)


TASK_COUNTERS: Final = (
    (
        SENT,
        _task(
            "sent",
            "Total number of tasks sent, from task-sent events. Stays at 0 unless clients set task_send_sent_event.",
        ),
    ),
    (
        RECEIVED,
        _task(
            "received", "Total number of tasks received by workers. A retried or redelivered task is received again."
        ),
    ),
    (STARTED, _task("started", "Total number of executions started. Each attempt of a retried task counts.")),
    (
        SUCCEEDED,
        _task(
            "succeeded",
            "Total number of successful executions. Starts at 0 when the task's name is first seen, like "
            "celery_monitor_task_failures_total, so that a ratio of both includes the first executions.",
        ),
    ),
    (
        FAILED,
        _task(
            "failed",
            "Total number of failures by the short class name of the exception. The series with an empty exception "
            "stays at 0. To alert on a task's first failure, use celery_monitor_task_failures_total, whose series "
            "start at 0.",
            "exception",
        ),
    ),
    (REJECTED, _task("rejected", "Total number of messages rejected by workers, requeued or dropped.")),
    (REVOKED, _task("revoked", "Total number of tasks revoked, terminated or expired before completion.")),
    (
        RETRIED,
        _task(
            "retried",
            "Total number of attempts that ended in a retry. Not counted as failures; the final attempt may be.",
        ),
    ),
)
"""(index in COUNTS, family), in the order of the exposition."""

TASK_FAILURES: Final = Family(
    "monitor_task_failures",
    Kind.COUNTER,
    "Total number of task failures, one per task ID and attempt. Starts at 0 when the task's name is first seen, for "
    "example when a worker registers it, so that increase() includes the first failure. In OpenMetrics, the exemplar "
    "has the task_id of the last failure.",
    _TASK,
)

TASK_RUNTIME: Final = Family(
    "task_runtime",
    Kind.HISTOGRAM,
    "Duration of successful executions in seconds, as measured by the worker.",
    _TASK,
)

TASK_WAIT: Final = Family(
    "task_queue_wait_time",
    Kind.HISTOGRAM,
    "Seconds from sending the task, or from its ETA or countdown if later, until it started. Requires "
    "task_send_sent_event.",
    _TASK,
)

TASK_OLDEST: Final = Family(
    "task_oldest_started_seconds",
    Kind.GAUGE,
    "Age in seconds of the oldest execution of the task that is still running. Absent while none runs. An execution "
    "older than a minute was confirmed by its worker, if the worker answers remote control.",
    ("name",),
    "seconds",
)

TASK_LOST: Final = Family(
    "task_lost",
    Kind.COUNTER,
    "Total number of executions lost because their worker was killed, killed them at a cold shutdown, or was silent "
    "for silent_for of the matching rule (default 1m). Celery sends no event for them. Tasks that another worker "
    "already runs again are not counted.",
    ("name",),
)
