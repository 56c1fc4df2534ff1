"""Every metric that is exported. ``docs/metrics.md`` is made of this table."""

import enum
from dataclasses import dataclass
from typing import Final

from celery_monitor.core.model import FAILED, RECEIVED, REJECTED, RETRIED, REVOKED, SENT, STARTED, SUCCEEDED


class Kind(enum.StrEnum):
    """Types as OpenMetrics names them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family. ``name`` has neither the prefix nor the ``_total`` or ``_info`` of its samples."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    """Only where the name ends in it: OpenMetrics asks for that, and the drop-in names cannot change."""

    @property
    def sample(self) -> str:
        """The name by which queries know it."""
        return self.name + {Kind.COUNTER: "_total", Kind.INFO: "_info"}.get(self.kind, "")


_TASK: Final = ("name", "queue_name")


def _task(name: str, text: str, *labels: str) -> Family:
    return Family(f"task_{name}", Kind.COUNTER, text, _TASK + labels)


TASK_COUNTERS: Final = (
    (
        SENT,
        _task(
            "sent",
            "Tasks published, counted from task-sent events. Stays at 0 unless clients set task_send_sent_event.",
        ),
    ),
    (RECEIVED, _task("received", "Tasks received by a worker. A retried or redelivered task is received again.")),
    (STARTED, _task("started", "Executions started. Each attempt of a retried task counts.")),
    (
        SUCCEEDED,
        _task(
            "succeeded",
            "Executions that succeeded. Starts at 0 when the task's name is first seen, like "
            "celery_monitor_task_failures_total, so that a ratio of both includes the first executions.",
        ),
    ),
    (
        FAILED,
        _task(
            "failed",
            "Failures by the short class name of the exception. The series with an empty exception stays at 0. To "
            "alert on a task's first failure use celery_monitor_task_failures_total, whose series start at 0.",
            "exception",
        ),
    ),
    (REJECTED, _task("rejected", "Messages rejected by a worker, requeued or dropped.")),
    (REVOKED, _task("revoked", "Tasks revoked, terminated or expired before completion.")),
    (RETRIED, _task("retried", "Attempts that ended in a retry. Not counted as failures; the final attempt may be.")),
)
"""Position in a vector of counts, and the family; in the order of the exposition."""

TASK_FAILURES: Final = Family(
    "monitor_task_failures",
    Kind.COUNTER,
    "Task failures, one per task ID and attempt. Starts at 0 when the task's name is first seen, for example when a "
    "worker registers it, so that increase() includes the first failure. In OpenMetrics, the exemplar has the "
    "task_id of the last failure.",
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
    "Seconds since the oldest execution of the task that is still running was started. Absent while none runs. After a "
    "minute, the worker has confirmed that it still runs it, if it answers remote control.",
    ("name",),
    "seconds",
)
TASK_LOST: Final = Family(
    "task_lost",
    Kind.COUNTER,
    "Executions lost because their worker was killed, killed them at a cold shutdown, or was silent for silent_for of "
    "the matching rule (default 1m). Celery counts them nowhere. Tasks that another worker already runs again are not "
    "counted.",
    ("name",),
)

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
    "Tasks running on the host's workers, according to their last heartbeats.",
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
    "Executions started, as reported by the host's workers, summed over worker restarts while the host is known.",
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
    "Messages ready in the queue, without those prefetched by workers. Queried from the broker every "
    "metrics.poll_interval, never during a scrape. A queue without workers remains until it is deleted from the "
    "broker or has been empty for an hour. If the broker does not respond, all queues are absent after four polls.",
    _QUEUE,
)
# Of unknown type, though they are gauges: the drop-in names end in _count, which linters allow to histograms only.
CONSUMERS: Final = Family(
    "active_consumer_count", Kind.UNKNOWN, "Consumers of the queue, as reported by the broker (a gauge).", _QUEUE
)
QUEUE_WORKERS: Final = Family(
    "active_worker_count",
    Kind.UNKNOWN,
    "Workers that consume the queue, as reported by the workers (a gauge). A worker that does not respond is "
    "counted for three more polls.",
    _QUEUE,
)
QUEUE_PROCESSES: Final = Family(
    "active_process_count",
    Kind.UNKNOWN,
    "Pool processes or threads of the workers that consume the queue (a gauge).",
    _QUEUE,
)
QUEUE_LOAD: Final = Family(
    "queue_load",
    Kind.GAUGE,
    "Tasks of the queue that are ready, prefetched by workers and due, or running: what an autoscaler should count. "
    "Absent if the broker does not tell the length.",
    _QUEUE,
)

MESSAGES: Final = Family(
    "monitor_messages", Kind.COUNTER, "Messages read from the event stream. One message can contain many events."
)
EVENTS: Final = Family("monitor_events", Kind.COUNTER, "Events read, by type, including custom types.", ("type",))
DISCARDED: Final = Family(
    "monitor_events_discarded",
    Kind.COUNTER,
    "Messages or events that did not change the counts of a task: malformed, content_type (neither JSON nor "
    "MessagePack), compressed, too_large (larger than broker.max_message_bytes), too_many_events (in one message), "
    "poison (the monitor died twice while applying it), unknown_type (custom event types), duplicate (such as the "
    "second failure event of a hard time limit), redelivered (already counted; expected after a restart, not a "
    "loss).",
    ("reason",),
)
REPLIES_DISCARDED: Final = Family(
    "monitor_replies_discarded",
    Kind.COUNTER,
    "Replies from workers that were discarded since the process started: late (reply to an earlier request), "
    "content_type (not JSON, see task_serializer), compressed, malformed, too_large, too_many.",
    ("reason",),
)
LAG: Final = Family(
    "monitor_event_lag_seconds",
    Kind.GAUGE,
    "Seconds from the timestamp of the last event until the monitor read it.",
    unit="seconds",
)
ROUNDTRIP: Final = Family(
    "monitor_probe_roundtrip_seconds",
    Kind.GAUGE,
    "Seconds that the monitor's last probe took through the event exchange and back.",
    unit="seconds",
)
CONNECTED: Final = Family(
    "monitor_broker_connected",
    Kind.GAUGE,
    "1 while the event stream is open and has delivered at least a probe. While it is 0, the task counters do not "
    "change.",
)
RECONNECTS: Final = Family("monitor_reconnects", Kind.COUNTER, "Number of times the event stream was reopened.")
GAP: Final = Family(
    "monitor_stream_gap_seconds",
    Kind.COUNTER,
    "Seconds without a subscription on Redis. Events sent during that time are lost. Always 0 on RabbitMQ, where "
    "the queue keeps them.",
    unit="seconds",
)
UNOBSERVED: Final = Family(
    "monitor_unobserved_tasks",
    Kind.COUNTER,
    "Executions whose events never arrived: tasks started as reported by the worker minus the task-started events "
    "seen, the minimum over three heartbeats. Includes tasks with send_events=False.",
    ("hostname",),
)
UNNAMED: Final = Family(
    "monitor_unnamed_failures",
    Kind.COUNTER,
    "Failures whose task name is not known, counted under the name unknown.",
)
TRACKED: Final = Family("monitor_tracked_tasks", Kind.GAUGE, "Unfinished tasks in memory (limit: tracking.max_tasks).")
EVICTED: Final = Family(
    "monitor_tracked_tasks_evicted",
    Kind.COUNTER,
    "Unfinished tasks evicted because tracking.max_tasks was reached. Their failures may be counted under the name "
    "unknown.",
)
NAMES_OVER_LIMIT: Final = Family(
    "monitor_task_names_over_limit",
    Kind.COUNTER,
    "Events counted under the task name other because metrics.max_task_names was reached.",
)
LIMIT: Final = Family(
    "monitor_limit",
    Kind.GAUGE,
    "Limits on what the monitor keeps in memory. See docs/sizing.md for each.",
    ("limit",),
)
LIMIT_USED: Final = Family(
    "monitor_limit_used", Kind.GAUGE, "Current usage of a limit, in the unit of the limit.", ("limit",)
)
LIMIT_EXCEEDED: Final = Family(
    "monitor_limit_exceeded",
    Kind.COUNTER,
    "Number of times a limit was exceeded. The excess is counted under the name other or dropped. Pages are not "
    "affected.",
    ("limit",),
)
UNACKED: Final = Family(
    "monitor_unacked_messages",
    Kind.GAUGE,
    "Messages read but not yet committed. The broker keeps them until then. At most broker.prefetch.",
)
COMMIT: Final = Family(
    "monitor_commit_seconds",
    Kind.HISTOGRAM,
    "Duration of store transactions in seconds, since the process started.",
    unit="seconds",
)
COMMIT_FAILURES: Final = Family(
    "monitor_commit_failures",
    Kind.COUNTER,
    "Failed store transactions since the process started. They are retried. Until one succeeds, no messages are "
    "acknowledged.",
)
STORE_BYTES: Final = Family(
    "monitor_store_bytes",
    Kind.GAUGE,
    "Size of the store in bytes: used pages and the write-ahead log.",
    unit="bytes",
)
STORE_ROOM: Final = Family(
    "monitor_store_room_bytes",
    Kind.GAUGE,
    "Bytes left in the store until store.max_bytes or the end of the disk, whichever is less. Absent before the "
    "first flush.",
    unit="bytes",
)
STORE_GIVEN_UP: Final = Family(
    "monitor_store_given_up",
    Kind.COUNTER,
    "Rows dropped since the process started because space was short: ended tasks, samples of failures, error groups "
    "and counts by time. Totals, incidents and notifications are never dropped.",
    ("what",),
)
STORE_ROLLED_BACK: Final = Family(
    "monitor_store_rolled_back",
    Kind.COUNTER,
    "Starts at which the store was older than the last commit. The counts in between are lost.",
)
INCIDENTS: Final = Family(
    "monitor_incidents",
    Kind.COUNTER,
    "Decisions about failures, by reason. opened, reopened and storm_opened send a page, the others tell why no "
    "page was sent.",
    ("reason",),
)
SILENCES_ACTIVE: Final = Family(
    "monitor_silences_active",
    Kind.GAUGE,
    "Silences (kind silence) and windows of alerts.mute (kind mute_window) that hold notifications back now.",
    ("kind",),
)
SILENCED_FAILURES: Final = Family(
    "monitor_silenced_failures",
    Kind.COUNTER,
    "Failures that a silence or a mute window covered. They are counted everywhere else, too.",
)
SCHEDULE_LAST_RUN: Final = Family(
    "schedule_last_run_timestamp_seconds",
    Kind.GAUGE,
    "Unix timestamp of the last start of a configured schedule (schedules). Absent before the first one is seen.",
    ("schedule", "name"),
    "seconds",
)
SCHEDULE_MISSED: Final = Family(
    "schedule_missed",
    Kind.COUNTER,
    "Expected starts of a configured schedule that did not happen within its grace. Starts at 0.",
    ("schedule", "name"),
)
SCHEDULE_MISSING: Final = Family(
    "schedule_missing",
    Kind.GAUGE,
    "Expected starts of a configured schedule that were missed since it last ran. 0 while it runs as expected.",
    ("schedule", "name"),
)
SCHEDULE_UNJUDGED: Final = Family(
    "schedule_not_judged",
    Kind.COUNTER,
    "Expected starts of a configured schedule that could not be judged, because events of that time are lost.",
    ("schedule", "name"),
)
INCIDENTS_OPEN: Final = Family("monitor_incidents_open", Kind.GAUGE, "Open incidents.")
INCIDENTS_OPEN_BY_CONDITION: Final = Family(
    "monitor_incidents_open_by_condition", Kind.GAUGE, "Open incidents, by their condition.", ("condition",)
)
NOTIFICATIONS: Final = Family(
    "monitor_notifications",
    Kind.COUNTER,
    "Delivery attempts since the process started, by outcome: delivered, retried, dead (given up, see "
    "celery-monitor outbox), unknown (the receiver did not confirm delivery).",
    ("channel", "outcome"),
)
OUTBOX_PENDING: Final = Family(
    "monitor_outbox_pending", Kind.GAUGE, "Notifications waiting for delivery.", ("channel",)
)
OUTBOX_OLDEST: Final = Family(
    "monitor_outbox_oldest_seconds",
    Kind.GAUGE,
    "Age of the oldest waiting notification in seconds. 0 if there is none.",
    ("channel",),
    "seconds",
)
REPORT: Final = Family(
    "monitor_report_last_success_timestamp_seconds",
    Kind.GAUGE,
    "Unix timestamp of the last delivered daily report. Absent before the first one and without recipients.",
    unit="seconds",
)
THREAD_FAILURES: Final = Family(
    "monitor_thread_failures",
    Kind.COUNTER,
    "Crashes of threads other than pump and committer since the process started. The threads are restarted; see the "
    "log for the tracebacks.",
    ("thread",),
)
SIGN_INS_REFUSED: Final = Family(
    "monitor_sign_ins_refused",
    Kind.COUNTER,
    "Sign-ins to the page or the API refused since the process started: wrong (user name or password), throttled (too "
    "many failures from the client within a minute), header (a header that names a person, not from the proxy or sent "
    "twice: ignored), group (in no group that may see the page), answer (what the browser brought from the OpenID "
    "provider proves nothing), provider (the OpenID provider is unavailable). See the log for the clients.",
    ("reason",),
)
REDACTION_TIMEOUTS: Final = Family(
    "monitor_redaction_timeouts",
    Kind.COUNTER,
    "Texts replaced completely since the process started because a tracking.redact pattern timed out.",
)
LEADER: Final = Family(
    "monitor_leader",
    Kind.GAUGE,
    "1 for the process that counts and pages, 0 for a standby, which exports only this and the metrics of its own "
    "process. Always 1 for a single process.",
)
BUILD: Final = Family(
    "monitor_build",
    Kind.INFO,
    "Versions of the monitor, Python, Celery and kombu.",
    ("version", "python", "celery", "kombu"),
)

FAMILIES: Final = (
    *(family for _, family in TASK_COUNTERS),
    *(TASK_FAILURES, TASK_RUNTIME, TASK_WAIT),
    *(TASK_OLDEST, TASK_LOST),
    *(WORKER_UP, WORKER_ACTIVE, WORKER_HEARTBEAT, WORKER_CLOCK, WORKER_PROCESSED, WORKER_INFO),
    *(QUEUE_LENGTH, CONSUMERS, QUEUE_WORKERS, QUEUE_PROCESSES, QUEUE_LOAD),
    *(MESSAGES, EVENTS, DISCARDED, REPLIES_DISCARDED, LAG, ROUNDTRIP, CONNECTED, RECONNECTS, GAP, UNOBSERVED, UNNAMED),
    *(TRACKED, EVICTED, NAMES_OVER_LIMIT, LIMIT, LIMIT_USED, LIMIT_EXCEEDED, UNACKED, COMMIT, COMMIT_FAILURES),
    *(STORE_BYTES, STORE_ROOM, STORE_GIVEN_UP, STORE_ROLLED_BACK),
    *(INCIDENTS, INCIDENTS_OPEN, INCIDENTS_OPEN_BY_CONDITION, SILENCES_ACTIVE, SILENCED_FAILURES),
    *(SCHEDULE_LAST_RUN, SCHEDULE_MISSING, SCHEDULE_MISSED, SCHEDULE_UNJUDGED),
    *(NOTIFICATIONS, OUTBOX_PENDING, OUTBOX_OLDEST, REPORT),
    *(THREAD_FAILURES, SIGN_INS_REFUSED, REDACTION_TIMEOUTS, LEADER, BUILD),
)
"""In the order of the exposition."""

OF_THE_PROCESS: Final = frozenset(
    {REPLIES_DISCARDED, COMMIT, COMMIT_FAILURES, STORE_GIVEN_UP, NOTIFICATIONS}
    | {THREAD_FAILURES, SIGN_INS_REFUSED, REDACTION_TIMEOUTS, LEADER, BUILD}
)
"""What describes the process, or counts since its start: a standby exports these only, and the chart's relabelling
leaves them the labels of their pod. All others are the fleet's: only the leader exports them, and they continue through
a take-over."""
