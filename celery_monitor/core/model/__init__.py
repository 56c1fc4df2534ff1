"""The values of the program, without behaviour. Times are Unix seconds (float, UTC); durations are seconds.

Values are frozen, except ``Event`` and ``TaskRef``: they are on the hot path and owned by the thread that feeds the
monitor. Values created for each event or flush are structs that the garbage collector does not track.

Everything is imported from this package; its modules are an arrangement for the reader.
"""

from celery_monitor.core.model.changes import Changes, Limit, Restored, RolledBack, Snapshot
from celery_monitor.core.model.counters import CounterFamily, CounterName, LabelledCounter
from celery_monitor.core.model.counts import (
    BUCKET_SECONDS,
    COUNTS,
    FAILED,
    RECEIVED,
    REJECTED,
    RETRIED,
    REVOKED,
    SENT,
    STARTED,
    SUCCEEDED,
    BucketDelta,
    ErrorDelta,
    ErrorGroup,
    Failure,
    Histogram,
    Series,
    SeriesKey,
)
from celery_monitor.core.model.events import (
    HEAD,
    LATEST_TIMESTAMP,
    MAX_INT,
    MAX_RUNTIME,
    MAX_TYPE_LENGTH,
    MAX_UUID_LENGTH,
    Delivery,
    Event,
    UnnamedEvent,
)
from celery_monitor.core.model.incidents import (
    MAX_DETAILS,
    STORM,
    Condition,
    Incident,
    IncidentState,
    Reason,
    Severity,
)
from celery_monitor.core.model.outbox import (
    ASKED_FOR,
    FIRST_UPDATE,
    REFRESH,
    Action,
    MessageKind,
    OutboxItem,
    OutboxRequest,
)
from celery_monitor.core.model.rows import BucketRow, ChannelDelivery, GroupRow, HistoryRow, IncidentRow
from celery_monitor.core.model.schedules import RUNS_KEPT, Outcome, ScheduledRun, ScheduleState, ToldBy
from celery_monitor.core.model.silences import MAX_REASON, MAX_SILENCE, MAX_SILENCES, Silence
from celery_monitor.core.model.tasks import UNKNOWN_TASK, FleetTask, Stage, TaskRef
from celery_monitor.core.model.workers import QueueStats, Worker

__all__ = [
    "ASKED_FOR",
    "BUCKET_SECONDS",
    "COUNTS",
    "FAILED",
    "FIRST_UPDATE",
    "HEAD",
    "LATEST_TIMESTAMP",
    "MAX_DETAILS",
    "MAX_INT",
    "MAX_REASON",
    "MAX_RUNTIME",
    "MAX_SILENCE",
    "MAX_SILENCES",
    "MAX_TYPE_LENGTH",
    "MAX_UUID_LENGTH",
    "RECEIVED",
    "REFRESH",
    "REJECTED",
    "RETRIED",
    "REVOKED",
    "RUNS_KEPT",
    "SENT",
    "STARTED",
    "STORM",
    "SUCCEEDED",
    "UNKNOWN_TASK",
    "Action",
    "BucketDelta",
    "BucketRow",
    "Changes",
    "ChannelDelivery",
    "Condition",
    "CounterFamily",
    "CounterName",
    "Delivery",
    "ErrorDelta",
    "ErrorGroup",
    "Event",
    "Failure",
    "FleetTask",
    "GroupRow",
    "Histogram",
    "HistoryRow",
    "Incident",
    "IncidentRow",
    "IncidentState",
    "LabelledCounter",
    "Limit",
    "MessageKind",
    "OutboxItem",
    "OutboxRequest",
    "Outcome",
    "QueueStats",
    "Reason",
    "Restored",
    "RolledBack",
    "ScheduleState",
    "ScheduledRun",
    "Series",
    "SeriesKey",
    "Severity",
    "Silence",
    "Snapshot",
    "Stage",
    "TaskRef",
    "ToldBy",
    "UnnamedEvent",
    "Worker",
]
