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
    (SENT, _task("sent", "Tasks published, by task-sent events. Stays 0 unless clients set task_send_sent_event.")),
    (RECEIVED, _task("received", "Tasks received by a worker. A retried or redelivered task is received again.")),
    (STARTED, _task("started", "Executions begun: each attempt of a retried task is one.")),
    (
        SUCCEEDED,
        _task(
            "succeeded",
            "Executions that ended well. At 0 from the first sight of the task's name, as "
            "celery_monitor_task_failures_total, so that a ratio of both sees a task's first ones.",
        ),
    ),
    (
        FAILED,
        _task(
            "failed",
            "Failures by the exception's short class name. The series with an empty exception stays 0; for a task's "
            "first failure ask celery_monitor_task_failures_total, whose series begin at 0.",
            "exception",
        ),
    ),
    (REJECTED, _task("rejected", "Messages that a worker rejected, to be requeued or dropped.")),
    (REVOKED, _task("revoked", "Tasks revoked, terminated or expired before they could end.")),
    (RETRIED, _task("retried", "Attempts that ended in a retry. They are no failures; the last one may be.")),
)
"""Position in a vector of counts, and the family; in the order of the exposition."""

TASK_FAILURES: Final = Family(
    "monitor_task_failures",
    Kind.COUNTER,
    "Failures of a task, one per task id and attempt. At 0 from the first sight of the task's name, which can be a "
    "worker that knows it, so that increase() sees the first failure too; OpenMetrics carries the last failure's "
    "task_id as exemplar.",
    _TASK,
)
TASK_RUNTIME: Final = Family(
    "task_runtime",
    Kind.HISTOGRAM,
    "Seconds that successful executions took, as the worker measured them.",
    _TASK,
)
TASK_WAIT: Final = Family(
    "task_queue_wait_time",
    Kind.HISTOGRAM,
    "Seconds from sending, or from the ETA or countdown if later, to the start. Needs task_send_sent_event.",
    _TASK,
)

WORKER_UP: Final = Family(
    "worker_up",
    Kind.GAUGE,
    "1 while heartbeats come, 0 after the worker went offline or missed them for metrics.worker_timeout. The series "
    "goes after metrics.worker_purge. Workers of one host share it: 1 if any of them is up.",
    ("hostname",),
)
WORKER_ACTIVE: Final = Family(
    "worker_tasks_active", Kind.GAUGE, "Tasks running on the host's workers, by their last heartbeats.", ("hostname",)
)
WORKER_HEARTBEAT: Final = Family(
    "worker_last_heartbeat_timestamp_seconds",
    Kind.GAUGE,
    "When the last heartbeat of the host's workers was sent, in unix time.",
    ("hostname",),
    "seconds",
)
WORKER_CLOCK: Final = Family(
    "worker_clock_offset_seconds",
    Kind.GAUGE,
    "How far the host's clock is behind the monitor's (negative: ahead), in seconds; 0 when it is less than a minute.",
    ("hostname",),
    "seconds",
)
WORKER_PROCESSED: Final = Family(
    "worker_processed",
    Kind.COUNTER,
    "Executions that the host's workers say they have begun, over all of their runs while the host is known.",
    ("hostname",),
)
WORKER_INFO: Final = Family(
    "worker",
    Kind.INFO,
    "The software that a worker says it runs.",
    ("hostname", "sw_ident", "sw_ver", "sw_sys"),
)

_QUEUE: Final = ("queue_name",)
QUEUE_LENGTH: Final = Family(
    "queue_length",
    Kind.GAUGE,
    "Messages ready in the queue, asked from the broker every metrics.poll_interval and never in a scrape. What "
    "workers have prefetched is not in it. A queue without workers is shown on, until the broker has it no more or it "
    "was empty for an hour. While the broker does not answer, all queues are absent after four polls.",
    _QUEUE,
)
# Of unknown type, though they are gauges: the drop-in names end in _count, which linters allow to histograms only.
CONSUMERS: Final = Family(
    "active_consumer_count", Kind.UNKNOWN, "Consumers of the queue, as the broker tells (a gauge).", _QUEUE
)
QUEUE_WORKERS: Final = Family(
    "active_worker_count",
    Kind.UNKNOWN,
    "Workers that consume the queue, as they tell (a gauge). One that is late to answer counts for three polls more.",
    _QUEUE,
)
QUEUE_PROCESSES: Final = Family(
    "active_process_count",
    Kind.UNKNOWN,
    "Pool processes or threads of the workers that consume the queue (a gauge).",
    _QUEUE,
)

MESSAGES: Final = Family(
    "monitor_messages", Kind.COUNTER, "Messages read from the event stream; one message may carry many events."
)
EVENTS: Final = Family("monitor_events", Kind.COUNTER, "Events read, by type; custom types are counted too.", ("type",))
DISCARDED: Final = Family(
    "monitor_events_discarded",
    Kind.COUNTER,
    "Messages or events that changed no task's counts: malformed, content_type (neither JSON nor MessagePack), "
    "compressed, too_large (longer than broker.max_message_bytes), too_many_events (of one message), poison (the "
    "monitor died twice while it applied it), unknown_type (one of the fleet's own), duplicate (such as the twin of a "
    "hard time limit), redelivered (counted before, by its fingerprint: exactness at work, and no loss).",
    ("reason",),
)
REPLIES_DISCARDED: Final = Family(
    "monitor_replies_discarded",
    Kind.COUNTER,
    "Replies of workers to the monitor's questions that were not used, since the process began: late (to an earlier "
    "question), content_type (not JSON: see task_serializer), compressed, malformed, too_large, too_many.",
    ("reason",),
)
LAG: Final = Family(
    "monitor_event_lag_seconds",
    Kind.GAUGE,
    "How far the monitor reads behind the fleet: from an event's own time to its reading.",
    unit="seconds",
)
ROUNDTRIP: Final = Family(
    "monitor_probe_roundtrip_seconds",
    Kind.GAUGE,
    "How long the monitor's own last probe took through the event exchange and back.",
    unit="seconds",
)
CONNECTED: Final = Family(
    "monitor_broker_connected",
    Kind.GAUGE,
    "1 while the event stream is open and has brought something, a probe at least. At 0 the task counters stand still.",
)
RECONNECTS: Final = Family("monitor_reconnects", Kind.COUNTER, "Times that the event stream was opened anew.")
GAP: Final = Family(
    "monitor_stream_gap_seconds",
    Kind.COUNTER,
    "Seconds without a subscription on Redis, where what is sent then is lost. 0 on RabbitMQ, whose queue keeps it.",
    unit="seconds",
)
UNOBSERVED: Final = Family(
    "monitor_unobserved_tasks",
    Kind.COUNTER,
    "Executions that workers began and whose events never came: a worker's count of begun tasks less the task-started "
    "events seen, the least over three heartbeats. Tasks with send_events off are in it too.",
    ("hostname",),
)
UNNAMED: Final = Family(
    "monitor_unnamed_failures",
    Kind.COUNTER,
    "Failures whose task was never named, counted under the name unknown.",
)
TRACKED: Final = Family(
    "monitor_tracked_tasks", Kind.GAUGE, "Tasks remembered because their end has not come (tracking.max_tasks)."
)
EVICTED: Final = Family(
    "monitor_tracked_tasks_evicted",
    Kind.COUNTER,
    "Tasks forgotten before their end because tracking.max_tasks was reached: their failures may be unnamed.",
)
NAMES_OVER_LIMIT: Final = Family(
    "monitor_task_names_over_limit",
    Kind.COUNTER,
    "Events of tasks that are counted under the name other, because metrics.max_task_names was reached.",
)
LIMIT: Final = Family(
    "monitor_limit",
    Kind.GAUGE,
    "The bounds of what the monitor keeps in memory, of which docs/sizing.md tells each.",
    ("limit",),
)
LIMIT_USED: Final = Family(
    "monitor_limit_used", Kind.GAUGE, "How much of a bound is used now, in the bound's own unit.", ("limit",)
)
LIMIT_EXCEEDED: Final = Family(
    "monitor_limit_exceeded",
    Kind.COUNTER,
    "How often a bound was exceeded: what is beyond it is counted under the name other, or not kept. Pages are not "
    "affected.",
    ("limit",),
)
UNACKED: Final = Family(
    "monitor_unacked_messages",
    Kind.GAUGE,
    "Messages read and not yet committed; the broker holds them until then. It stops at broker.prefetch.",
)
COMMIT: Final = Family(
    "monitor_commit_seconds",
    Kind.HISTOGRAM,
    "Seconds that a transaction of the store took, since the process began.",
    unit="seconds",
)
COMMIT_FAILURES: Final = Family(
    "monitor_commit_failures",
    Kind.COUNTER,
    "Transactions that the store refused since the process began. They are tried again; nothing is acknowledged or "
    "lost meanwhile.",
)
STORE_BYTES: Final = Family(
    "monitor_store_bytes",
    Kind.GAUGE,
    "What the store takes: pages that hold something, and the log.",
    unit="bytes",
)
STORE_ROOM: Final = Family(
    "monitor_store_room_bytes",
    Kind.GAUGE,
    "What can be added to the store before store.max_bytes or the end of the disk, whichever comes first; absent "
    "before the first flush.",
    unit="bytes",
)
STORE_GIVEN_UP: Final = Family(
    "monitor_store_given_up",
    Kind.COUNTER,
    "Rows given up since the process began, because space was short: samples of failures, error groups, and counts by "
    "time. Totals, incidents and notifications never are.",
    ("what",),
)
STORE_ROLLED_BACK: Final = Family(
    "monitor_store_rolled_back",
    Kind.COUNTER,
    "Starts at which the store was older than what had been committed to it: what came between is missing.",
)
INCIDENTS: Final = Family(
    "monitor_incidents",
    Kind.COUNTER,
    "Decisions about failures by reason: opened, reopened and storm_opened page, the others say why none was sent.",
    ("reason",),
)
INCIDENTS_OPEN: Final = Family("monitor_incidents_open", Kind.GAUGE, "Incidents that are open now.")
NOTIFICATIONS: Final = Family(
    "monitor_notifications",
    Kind.COUNTER,
    "Attempts to send since the process began: delivered, retried (will be tried again), dead (given up; see "
    "celery-monitor outbox), unknown (the receiver did not say whether it has it).",
    ("channel", "outcome"),
)
OUTBOX_PENDING: Final = Family(
    "monitor_outbox_pending", Kind.GAUGE, "Notifications that wait to be delivered.", ("channel",)
)
OUTBOX_OLDEST: Final = Family(
    "monitor_outbox_oldest_seconds",
    Kind.GAUGE,
    "Age of the oldest notification that waits; 0 when none does.",
    ("channel",),
    "seconds",
)
REPORT: Final = Family(
    "monitor_report_last_success_timestamp_seconds",
    Kind.GAUGE,
    "When the daily report was last delivered, in unix time; absent before the first, and without recipients.",
    unit="seconds",
)
THREAD_FAILURES: Final = Family(
    "monitor_thread_failures",
    Kind.COUNTER,
    "Failures of a thread beside the counting, since the process began. Each was started again; the log has the "
    "traceback.",
    ("thread",),
)
SIGN_INS_REFUSED: Final = Family(
    "monitor_sign_ins_refused",
    Kind.COUNTER,
    "Requests to the page or the API that were refused since the process began: wrong (user name or password), or "
    "throttled (the client failed too often within a minute). The log has the clients.",
    ("reason",),
)
REDACTION_TIMEOUTS: Final = Family(
    "monitor_redaction_timeouts",
    Kind.COUNTER,
    "Texts that were replaced as a whole since the process began, because a pattern of tracking.redact took too long "
    "on them.",
)
BUILD: Final = Family(
    "monitor_build",
    Kind.INFO,
    "Versions of the monitor and of what it stands on.",
    ("version", "python", "celery", "kombu"),
)

FAMILIES: Final = (
    *(family for _, family in TASK_COUNTERS),
    *(TASK_FAILURES, TASK_RUNTIME, TASK_WAIT),
    *(WORKER_UP, WORKER_ACTIVE, WORKER_HEARTBEAT, WORKER_CLOCK, WORKER_PROCESSED, WORKER_INFO),
    *(QUEUE_LENGTH, CONSUMERS, QUEUE_WORKERS, QUEUE_PROCESSES),
    *(MESSAGES, EVENTS, DISCARDED, REPLIES_DISCARDED, LAG, ROUNDTRIP, CONNECTED, RECONNECTS, GAP, UNOBSERVED, UNNAMED),
    *(TRACKED, EVICTED, NAMES_OVER_LIMIT, LIMIT, LIMIT_USED, LIMIT_EXCEEDED, UNACKED, COMMIT, COMMIT_FAILURES),
    *(STORE_BYTES, STORE_ROOM, STORE_GIVEN_UP, STORE_ROLLED_BACK),
    *(INCIDENTS, INCIDENTS_OPEN, NOTIFICATIONS, OUTBOX_PENDING, OUTBOX_OLDEST, REPORT),
    *(THREAD_FAILURES, SIGN_INS_REFUSED, REDACTION_TIMEOUTS, BUILD),
)
"""In the order of the exposition."""
