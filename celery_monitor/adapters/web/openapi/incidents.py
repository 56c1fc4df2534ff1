"""Incidents and their notifications."""

from typing import Final

from celery_monitor.adapters.web.openapi.json_schema import (
    COUNT,
    COUNT_BY_NAME,
    TEXT,
    TIME,
    Json,
    array,
    nullable,
    object_of,
    one_of,
    ref,
)
from celery_monitor.adapters.web.openapi.operation import FILTERS, Operation
from celery_monitor.core.model import Action, Condition, IncidentState, Reason, Severity

_INCIDENT: Final[dict[str, Json]] = {
    "key": TEXT,
    "condition": one_of(Condition),
    "subject": {
        "type": "string",
        "description": "The task, worker, queue or schedule that a condition other than failure is about",
    },
    "task": TEXT,
    "rule": TEXT,
    "severity": one_of(Severity),
    "state": one_of(IncidentState),
    "reason": one_of(Reason),
    "hour": TEXT,
    "opened_at": nullable(TIME),
    "first_at": nullable(TIME),
    "last_at": nullable(TIME),
    "count": COUNT,
    "threshold": COUNT,
    "exceptions": COUNT_BY_NAME,
    "workers": COUNT_BY_NAME,
    "queues": COUNT_BY_NAME,
    "tasks": COUNT_BY_NAME,
    "samples": array({"type": "string", "description": "Task IDs"}),
    "message": TEXT,
    "details": array(object_of(label=TEXT, value=TEXT)),
    "unwatched_seconds": {
        "type": "number",
        "description": "Seconds of the incident in which the event stream was not watched",
    },
    "runbook_url": nullable(TEXT),
    "deliveries": array(ref("Delivery")),
    "delivered_at": nullable({**TIME, "description": "When every channel had accepted it; null until then"}),
    "delivered_count": {**COUNT, "description": "Failures reported to every channel so far"},
    "error": nullable(
        {"type": "string", "description": "Error of the last delivery attempt, on the first channel where it failed"}
    ),
}

SCHEMAS: Final[dict[str, Json]] = {
    "Incident": object_of(**_INCIDENT),
    "IncidentInFull": object_of(
        **_INCIDENT,
        last_uuid=nullable({"type": "string", "description": "Task ID of the last failure"}),
        traceback={"type": "string", "description": "End of the last failure's traceback"},
        args=nullable(TEXT),
        kwargs=nullable(TEXT),
        errors=array(ref("ErrorGroup")),
    ),
    "Delivery": object_of(
        channel=TEXT,
        state=one_of(("pending", "delivered", "dead", "unknown")),
        attempts=COUNT,
        delivered_at=nullable({**TIME, "description": "When the receiver first accepted it"}),
        delivered_count={**COUNT, "description": "Failures reported to the receiver so far"},
        receipt=nullable({"type": "string", "description": "The receiver's identifier of it"}),
        error=nullable({"type": "string", "description": "Error of the last attempt; null if it succeeded"}),
    ),
    "OutboxItem": object_of(
        id=COUNT,
        channel=TEXT,
        key=TEXT,
        action=one_of(Action),
        route=TEXT,
        state=one_of(("pending", "delivered", "dead", "unknown")),
        attempts=COUNT,
        created_at=nullable(TIME),
        due_at=nullable(TIME),
        error=nullable(TEXT),
    ),
}

OPERATIONS: Final = {
    "/api/v1/incidents": Operation(
        "Incidents, newest first", "Incident", True, (*FILTERS, "state", "key", "condition")
    ),
    "/api/v1/incidents/{key}": Operation(
        "An incident by its dedup key, with the error groups of its tasks during the incident",
        "IncidentInFull",
        False,
        (),
    ),
    "/api/v1/outbox": Operation(
        "Pending and failed notifications, oldest first; since and until apply to their creation time",
        "OutboxItem",
        True,
        ("limit", "cursor", "since", "until", "dead"),
    ),
}
