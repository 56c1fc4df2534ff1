"""Metrics of the monitor itself."""

from typing import Final

from celery_monitor.adapters.prometheus.families.family import Family, Kind

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
