"""Workers, queues and schedules."""

from typing import Final

from celery_monitor.adapters.web.openapi.json_schema import (
    COUNT,
    NUMBER,
    TEXT,
    TIME,
    Json,
    array,
    nullable,
    object_of,
    one_of,
)
from celery_monitor.adapters.web.openapi.operation import Operation
from celery_monitor.core.lookup import LISTED
from celery_monitor.core.model import Outcome

_WORKER: Final = {
    "hostname": TEXT,
    "up": {"type": "boolean"},
    "last_heartbeat_at": nullable(TIME),
    "active": COUNT,
    "processed": COUNT,
    "unobserved": COUNT,
    "heartbeats": {"type": "boolean", "description": "false: the worker sends none (--without-heartbeat)"},
    "clock_offset_seconds": {
        "type": "number",
        "description": "Seconds that the monitor adds to the worker's timestamps: how far its clock is behind "
        "(negative: ahead)",
    },
    "pid": COUNT,
    "software": TEXT,
    "queues": array({"type": "string", "description": "Names of those that it consumes"}),
    "pool": nullable({"type": "string", "description": "Kind of its pool: `prefork`"}),
    "processes": nullable({**COUNT, "description": "Size of its pool"}),
    "prefetch": nullable({**COUNT, "description": "Messages that it may have fetched and not acknowledged"}),
    "load_average": nullable({**array(NUMBER), "description": "Of its machine, over 1, 5 and 15 minutes"}),
    "uptime_seconds": nullable({"type": "number", "description": "At `answered_at`"}),
    "peak_memory_bytes": nullable({**COUNT, "description": "Of its main process"}),
    "answered_at": nullable({**TIME, "description": "When it last answered a question; null: not yet"}),
}

SCHEMAS: Final[dict[str, Json]] = {
    "Worker": object_of(**_WORKER),
    "WorkerInFull": object_of(**_WORKER, tasks=object_of(**dict.fromkeys(map(str, LISTED), COUNT))),
    "Queue": object_of(name=TEXT, length=nullable(COUNT), consumers=nullable(COUNT), workers=COUNT, processes=COUNT),
    "QueueLength": object_of(
        queue=TEXT,
        start=nullable({**TIME, "description": "Of the hour"}),
        mean={"type": "number", "description": "Messages that waited, of all looks in the hour"},
        longest={**COUNT, "description": "The most that were found in the hour"},
    ),
    "Schedule": object_of(
        name=TEXT,
        task=TEXT,
        schedule={"type": "string", "description": "As configured: `0 3 * * * Europe/Berlin`, `every 5m`"},
        expected_at=nullable({**TIME, "description": "The next start that is expected"}),
        missing={**COUNT, "description": "Starts missed since it last ran"},
        missing_since=nullable({**TIME, "description": "The first of these"}),
        missed_total=COUNT,
        not_judged_total={**COUNT, "description": "Starts not judged, because events of that time are lost"},
        not_judged_at=nullable({**TIME, "description": "The last of these"}),
        runs=array(
            object_of(
                uuid=TEXT,
                hostname=TEXT,
                started_at=nullable(TIME),
                ended_at=nullable(TIME),
                seconds=nullable(NUMBER),
                outcome=one_of(Outcome),
            )
        ),
    ),
}

OPERATIONS: Final = {
    "/api/v1/workers": Operation("Current workers by hostname", "Worker", True, ("limit", "cursor")),
    "/api/v1/workers/{hostname}": Operation(
        "A worker, with the number of its tasks by state", "WorkerInFull", False, ()
    ),
    "/api/v1/queue-lengths": Operation(
        "Lengths of queues by hour, without `since` of the last day, by queue and time",
        "QueueLength",
        True,
        ("limit", "cursor", "queue", "since", "until"),
    ),
    "/api/v1/schedules": Operation(
        "Configured schedules: when each is expected, and its newest runs", "Schedule", True, ()
    ),
}
