"""The index, the fleet's summary, health, and the report of a day."""

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

INDEX: Final = "/api/v1"

SCHEMAS: Final[dict[str, Json]] = {
    "Index": object_of(resources=array(object_of(href=TEXT, about=TEXT)), description=TEXT),
    "Error": object_of(error={"type": "string", "description": "What is wrong; names the invalid parameter, if any"}),
    "Health": object_of(
        status=one_of(("ok", "failing")),
        checks={"type": "object", "additionalProperties": TEXT},
        notes={"type": "object", "additionalProperties": TEXT},
        about={"type": "object", "additionalProperties": TEXT},
    ),
    "Summary": object_of(
        fleet=TEXT,
        at=TIME,
        since=nullable(TIME),
        health=ref("Health"),
        counts=ref("Counts"),
        tasks=object_of(seen=COUNT, failing=COUNT),
        worst=array(object_of(name=TEXT, failure_rate=nullable(NUMBER), **TOTALS)),
        incidents=object_of(open=nullable(COUNT)),
        workers=object_of(up=COUNT, down=COUNT),
        outbox=array(
            object_of(
                channel=TEXT,
                configured={"type": "boolean", "description": "Whether the channel has a receiver"},
                pending=COUNT,
                oldest_at=nullable({**TIME, "description": "Creation time of the oldest pending notification"}),
                dead={**COUNT, "description": "Given up: retried only on request"},
                unknown={**COUNT, "description": "May have been delivered: the receiver never confirmed it"},
            )
        ),
        limits=array(
            object_of(
                name=TEXT,
                setting=nullable({**TEXT, "description": "Setting that raises the limit"}),
                limit=nullable(COUNT),
                used=nullable(COUNT),
                exceeded={
                    **COUNT,
                    "description": "Times that something was counted as other or dropped because of this limit",
                },
            )
        ),
        queues=array(ref("Queue")),
        store=object_of(
            bytes=COUNT,
            max_bytes=nullable(COUNT),
            room_bytes=nullable({**COUNT, "description": "Bytes left until the limit or the end of the disk"}),
            short_of_space={"type": "boolean"},
            given_up={
                "type": "object",
                "additionalProperties": COUNT,
                "description": "Rows dropped for lack of space since the process started: samples, groups, buckets",
            },
            rolled_back={
                "type": "boolean",
                "description": "Whether the store was older than the last commit at a start within the last day",
            },
        ),
        stream=object_of(
            lag_seconds=nullable(NUMBER),
            gap_seconds=NUMBER,
            unobserved_tasks=COUNT,
            unnamed_failures=COUNT,
        ),
    ),
    "Report": {"type": "object", "description": "The daily report, as in the mail"},
}

OPERATIONS: Final = {
    INDEX: Operation("List of endpoints", "Index", False, ()),
    "/api/v1/summary": Operation("Overview of the fleet, by default for the last day", "Summary", False, ("since",)),
    "/api/v1/reports/{date}": Operation("Daily report; date: YYYY-MM-DD, today or yesterday", "Report", False, ()),
}
