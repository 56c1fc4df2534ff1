"""Workers, queues and schedules."""

from typing import Final

from celery_monitor.adapters.web.openapi.json_schema import (
    COUNT,
    NUMBER,
    TEXT,
    TIME,
    TOTALS,
    Json,
    array,
    nullable,
    object_of,
    one_of,
    ref,
)
from celery_monitor.adapters.web.openapi.operation import Operation
from celery_monitor.core.lookup import LISTED
from celery_monitor.core.model import Outcome

_WORKER: Final = {
    "hostname": TEXT,
    "up": {"type": "boolean"},
    "last_heartbeat_at": nullable(TIME),
    "active": {**COUNT, "description": "Running tasks, as of its last heartbeat"},
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
    "queues": array({"type": "string", "description": "Name of a queue that it consumes"}),
    "pool": nullable({"type": "string", "description": "Pool implementation, such as `prefork`"}),
    "processes": nullable({**COUNT, "description": "Processes or threads in the pool"}),
    "prefetch": nullable({**COUNT, "description": "Prefetch limit: messages that it may hold unacknowledged"}),
    "load_average": nullable({**array(NUMBER), "description": "Load averages of its host over 1, 5 and 15 minutes"}),
    "uptime_seconds": nullable({"type": "number", "description": "Seconds since it started, as of `answered_at`"}),
    "peak_memory_bytes": nullable({**COUNT, "description": "Peak resident memory of its main process, in bytes"}),
    "answered_at": nullable({**TIME, "description": "When it last answered remote control; null: never"}),
}

_QUEUE: Final = {
    "name": TEXT,
    "length": nullable(COUNT),
    "consumers": nullable(COUNT),
    "workers": COUNT,
    "processes": COUNT,
}
_OLDEST: Final = nullable({**TIME, "description": "Since when its oldest waiting task waits; null: none is known"})
_WAITED: Final = {
    **object_of(count=COUNT, seconds=NUMBER),
    "description": "Runs whose waiting time was measured since counting began, and how long they waited together",
}

SCHEMAS: Final[dict[str, Json]] = {
    "Worker": object_of(**_WORKER),
    "WorkerInFull": object_of(**_WORKER, tasks=object_of(**dict.fromkeys(map(str, LISTED), COUNT))),
    "Queue": object_of(**_QUEUE),
    "QueueWithTotals": object_of(**_QUEUE, oldest_waiting_at=_OLDEST, **TOTALS, wait=_WAITED),
    "QueueInFull": object_of(
        **_QUEUE,
        oldest_waiting_at=_OLDEST,
        **TOTALS,
        wait=_WAITED,
        tasks={**array(ref("QueueTask")), "description": "The first 1,000 by name"},
        hours=array(ref("TaskHour")),
    ),
    "QueueTask": object_of(name=TEXT, queue=TEXT, **TOTALS, wait=_WAITED),
    "QueueLength": object_of(
        queue=TEXT,
        start=nullable({**TIME, "description": "Start of the hour"}),
        mean={"type": "number", "description": "Mean number of waiting messages over all samples in the hour"},
        longest={**COUNT, "description": "Largest number of waiting messages in the hour"},
    ),
    "Schedule": object_of(
        name=TEXT,
        task=TEXT,
        schedule={"type": "string", "description": "As configured, such as `0 3 * * * Europe/Berlin` or `every 5m`"},
        expected_at=nullable({**TIME, "description": "Next expected start"}),
        missing={**COUNT, "description": "Expected starts missed since its last run"},
        missing_since=nullable({**TIME, "description": "First missed start since its last run"}),
        missed_total=COUNT,
        not_judged_total={
            **COUNT,
            "description": "Expected starts that could not be judged because events of that time were lost",
        },
        not_judged_at=nullable({**TIME, "description": "Last expected start that could not be judged"}),
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
        "A worker, with the number of its unfinished tasks by state", "WorkerInFull", False, ()
    ),
    "/api/v1/queues": Operation(
        "Queues by name, with what was counted in them over the retention", "QueueWithTotals", True, ("limit", "cursor")
    ),
    "/api/v1/queues/{name}": Operation(
        "A queue, with its tasks, and hourly percentiles since `since` (default: the last day)",
        "QueueInFull",
        False,
        ("since",),
    ),
    "/api/v1/queue-lengths": Operation(
        "Queue lengths by hour, ordered by queue and time; default: the last day",
        "QueueLength",
        True,
        ("limit", "cursor", "queue", "since", "until"),
    ),
    "/api/v1/schedules": Operation(
        "Configured schedules, with the next expected start and the newest runs of each", "Schedule", True, ()
    ),
}
