"""Silences: the only resource that can be changed."""

from typing import Final

from celery_monitor.adapters.web.openapi.json_schema import TEXT, TIME, Json, array, nullable, object_of, ref, response
from celery_monitor.adapters.web.openapi.operation import Operation
from celery_monitor.core.model import MAX_REASON

SCHEMAS: Final[dict[str, Json]] = {
    "Silence": object_of(
        id=TEXT,
        match=array({"type": "string", "description": "Glob on the task name"}),
        queues=array({"type": "string", "description": "Glob on the queue's name; an empty list matches all queues"}),
        reason=TEXT,
        created_by={"type": "string", "description": 'User who added it, "" when unknown'},
        starts_at=nullable(TIME),
        ends_at=nullable(TIME),
        active={"type": "boolean"},
    ),
    "NewSilence": {
        "type": "object",
        "properties": {
            "match": {"type": "array", "items": TEXT, "minItems": 1, "description": "Globs on the task name"},
            "queues": {"type": "array", "items": TEXT, "description": "Globs on the queue; default: all"},
            "for": {"type": "string", "description": "Duration from 1s to 30d, such as `2h`"},
            "reason": {"type": "string", "minLength": 1, "maxLength": MAX_REASON},
        },
        "required": ["match", "for", "reason"],
        "additionalProperties": False,
    },
}

OPERATIONS: Final = {
    "/api/v1/silences": Operation("Silences that have not ended, ordered by their end", "Silence", True, ("ended",)),
}

_MAY_NOT: Final = "Not an operator, no sign-in is configured, or the request comes from another site"


def changes(*, guarded: bool) -> dict[str, Json]:
    """The operations that change something, by path and method."""
    refused = {
        **({"401": response("Not signed in", ref("Error"))} if guarded else {}),
        "403": response(_MAY_NOT, ref("Error")),
        "503": response("The store is unavailable", ref("Error")),
    }
    body = {"required": True, "content": {"application/json": {"schema": ref("NewSilence")}}}
    added = {
        "201": response("The new silence", ref("Silence")),
        "400": response("Invalid silence", ref("Error")),
        "413": response("The body is too long", ref("Error")),
        "415": response("The body is not JSON", ref("Error")),
    }
    ended = {"200": response("The ended silence", ref("Silence")), "404": response("Not found", ref("Error"))}
    in_path = {"name": "id", "in": "path", "required": True, "schema": TEXT}
    return {
        "/api/v1/silences": {
            "post": {"summary": "Add a silence", "requestBody": body, "responses": added | refused},
        },
        "/api/v1/silences/{id}": {
            "delete": {"summary": "End a silence now", "parameters": [in_path], "responses": ended | refused},
        },
    }
