"""Incidents, and the notifications of them."""

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
    "subject": {"type": "string", "description": "What another condition than failure is about, such as a queue"},
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
    "samples": array({"type": "string", "description": "Task ids"}),
    "message": TEXT,
    "details": array(object_of(label=TEXT, value=TEXT)),
    "unwatched_seconds": {"type": "number", "description": "Time in which the event stream was not watched"},
    "runbook_url": nullable(TEXT),
    "deliveries": array(ref("Delivery")),
    "delivered_at": nullable({**TIME, "description": "When the last of its channels had taken it"}),
    "delivered_count": {**COUNT, "description": "How many failures each of its channels knows of"},
    "error": nullable({"type": "string", "description": "Of the last attempt, on the first channel where it failed"}),
}

SCHEMAS: Final[dict[str, Json]] = {
    "Incident": object_of(**_INCIDENT),
    "IncidentInFull": object_of(
        **_INCIDENT,
        last_uuid=nullable({"type": "string", "description": "Task id of the last failure"}),
        traceback={"type": "string", "description": "The end of that of the last failure"},
        args=nullable(TEXT),
        kwargs=nullable(TEXT),
        errors=array(ref("ErrorGroup")),
    ),
    "Delivery": object_of(
        channel=TEXT,
        state=one_of(("pending", "delivered", "dead", "unknown")),
        attempts=COUNT,
        delivered_at=nullable({**TIME, "description": "When the receiver first took it"}),
        delivered_count={**COUNT, "description": "How many failures the receiver knows of"},
        receipt=nullable({"type": "string", "description": "By what the receiver knows it"}),
        error=nullable({"type": "string", "description": "Of the last attempt, when it failed"}),
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
        "The incident of a dedup key, with the error groups of its tasks in its time",
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
