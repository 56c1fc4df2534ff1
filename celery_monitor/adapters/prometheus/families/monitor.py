"""Metrics of the monitor itself."""

from typing import Final

from celery_monitor.adapters.prometheus.families.family import Family, Kind

MESSAGES: Final = Family(
    "monitor_messages",
    Kind.COUNTER,
    "Total number of messages read from the event stream. One message can contain many events.",
)

EVENTS: Final = Family(
    "monitor_events", Kind.COUNTER, "Total number of events read, by type, including custom types.", ("type",)
)

DISCARDED: Final = Family(
    "monitor_events_discarded",
    Kind.COUNTER,
    "Total number of messages or events that did not change the counts of a task, by reason: malformed, content_type "
    "(neither JSON nor MessagePack), compressed, too_large (larger than broker.max_message_bytes), too_many_events "
    "(in one message), poison (the monitor died twice while applying it), unknown_type (custom event types), "
    "duplicate (such as the second failure event of a hard time limit), redelivered (already counted; expected after "
    "a restart, not a loss).",
    ("reason",),
)

REPLIES_DISCARDED: Final = Family(
    "monitor_replies_discarded",
    Kind.COUNTER,
    "Total number of replies from workers that were discarded since the process started, by reason: late (reply to an "
    "earlier request), content_type (not JSON, see task_serializer), compressed, malformed, too_large, too_many.",
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
    "Round-trip time in seconds of the monitor's last probe through the event exchange.",
    unit="seconds",
)

CONNECTED: Final = Family(
    "monitor_broker_connected",
    Kind.GAUGE,
    "1 while the event stream is open and has delivered at least one probe. While it is 0, the task counters do not "
    "change.",
)

RECONNECTS: Final = Family(
    "monitor_reconnects", Kind.COUNTER, "Total number of times that the event stream was reopened."
)

GAP: Final = Family(
    "monitor_stream_gap_seconds",
    Kind.COUNTER,
    "Total seconds whose events are lost: on Redis the time without a subscription; on RabbitMQ, where the queue keeps "
    "them, the time before a new queue was created because the old one was deleted or had expired.",
    unit="seconds",
)

UNOBSERVED: Final = Family(
    "monitor_unobserved_tasks",
    Kind.COUNTER,
    "Total number of executions whose events never arrived: tasks started as reported by the worker minus the "
    "task-started events seen, the minimum over three heartbeats. Includes tasks with send_events=False.",
    ("hostname",),
)

UNNAMED: Final = Family(
    "monitor_unnamed_failures",
    Kind.COUNTER,
    "Total number of failures whose task name is unknown. They are counted under the name unknown.",
)

TRACKED: Final = Family(
    "monitor_tracked_tasks", Kind.GAUGE, "Number of unfinished tasks in memory. At most tracking.max_tasks."
)

EVICTED: Final = Family(
    "monitor_tracked_tasks_evicted",
    Kind.COUNTER,
    "Total number of unfinished tasks evicted because tracking.max_tasks was reached. Their failures may be counted "
    "under the name unknown.",
)

NAMES_OVER_LIMIT: Final = Family(
    "monitor_task_names_over_limit",
    Kind.COUNTER,
    "Total number of events counted under the task name other because metrics.max_task_names was reached.",
)

LIMIT: Final = Family(
    "monitor_limit",
    Kind.GAUGE,
    "Limit on what the monitor keeps in memory. docs/sizing.md lists the limits and their units.",
    ("limit",),
)

LIMIT_USED: Final = Family(
    "monitor_limit_used", Kind.GAUGE, "Current usage of a limit, in the unit of the limit.", ("limit",)
)

LIMIT_EXCEEDED: Final = Family(
    "monitor_limit_exceeded",
    Kind.COUNTER,
    "Total number of times that a limit was exceeded. The excess is counted under the name other or dropped. Pages "
    "are not affected.",
    ("limit",),
)

UNACKED: Final = Family(
    "monitor_unacked_messages",
    Kind.GAUGE,
    "Number of messages read but not yet committed. The broker keeps them until then. At most broker.prefetch.",
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
    "Total number of failed store transactions since the process started. They are retried. Until one succeeds, no "
    "messages are acknowledged.",
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
    "Total number of rows dropped since the process started because space was short: ended tasks, samples of "
    "failures, error groups and counts by time. Totals, incidents and notifications are never dropped.",
    ("what",),
)

STORE_ROLLED_BACK: Final = Family(
    "monitor_store_rolled_back",
    Kind.COUNTER,
    "Total number of starts at which the store was older than the last commit. The counts in between are lost.",
)

INCIDENTS: Final = Family(
    "monitor_incidents",
    Kind.COUNTER,
    "Total number of decisions about failures, by reason. opened, reopened and storm_opened send a page; the others "
    "say why no page was sent.",
    ("reason",),
)

SILENCES_ACTIVE: Final = Family(
    "monitor_silences_active",
    Kind.GAUGE,
    "Number of silences (kind silence) and windows of alerts.mute (kind mute_window) that are in effect.",
    ("kind",),
)

SILENCED_FAILURES: Final = Family(
    "monitor_silenced_failures",
    Kind.COUNTER,
    "Total number of failures covered by a silence or a mute window. All other metrics count them, too.",
)

INCIDENTS_OPEN: Final = Family("monitor_incidents_open", Kind.GAUGE, "Number of open incidents.")

INCIDENTS_OPEN_BY_CONDITION: Final = Family(
    "monitor_incidents_open_by_condition", Kind.GAUGE, "Number of open incidents, by condition.", ("condition",)
)

NOTIFICATIONS: Final = Family(
    "monitor_notifications",
    Kind.COUNTER,
    "Total number of delivery attempts since the process started, by outcome: delivered, retried, dead (given up, see "
    "celery-monitor outbox), unknown (the receiver did not confirm delivery).",
    ("channel", "outcome"),
)

OUTBOX_PENDING: Final = Family(
    "monitor_outbox_pending", Kind.GAUGE, "Number of notifications waiting for delivery.", ("channel",)
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
    "Total number of crashes of threads other than pump and committer since the process started. The threads are "
    "restarted; see the log for the tracebacks.",
    ("thread",),
)

SIGN_INS_REFUSED: Final = Family(
    "monitor_sign_ins_refused",
    Kind.COUNTER,
    "Total number of refused sign-ins to the page or the API since the process started, by reason: wrong (user name "
    "or password), throttled (too many failures from the client within a minute), header (a user header "
    "that is ignored because the proxy did not send it or it was sent twice), group (in no group that may see the "
    "page), answer (no valid response from the OpenID provider), provider (the OpenID provider is unavailable). See "
    "the log for the clients.",
    ("reason",),
)

REDACTION_TIMEOUTS: Final = Family(
    "monitor_redaction_timeouts",
    Kind.COUNTER,
    "Total number of texts replaced completely since the process started because a tracking.redact pattern timed out.",
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
