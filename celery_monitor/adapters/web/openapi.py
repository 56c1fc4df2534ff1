"""``/openapi.json``: what ``/api/v1`` takes and gives."""

from functools import cache
from importlib.metadata import version
from typing import Any, Final

from celery_monitor.adapters.web.parameters import DEFAULT_LIMIT, MAX_LIMIT
from celery_monitor.core.lookup import LISTED, RunState
from celery_monitor.core.model import (
    COUNTS,
    MAX_REASON,
    Action,
    Condition,
    IncidentState,
    Outcome,
    Reason,
    Severity,
    Stage,
)

Json = dict[str, Any]

_TEXT: Final[Json] = {"type": "string"}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_NUMBER: Final[Json] = {"type": "number"}
_TIME: Final[Json] = {"type": "string", "format": "date-time", "description": "RFC 3339, in UTC"}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _list(item: Json) -> Json:
    return {"type": "array", "items": item}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _one_of(values: Any) -> Json:  # noqa: ANN401 - any enumeration of texts
    return {"type": "string", "enum": [str(value) for value in values]}


_BY_NAME: Final[Json] = {"type": "object", "additionalProperties": _COUNT}
_TOTALS: Final[dict[str, Json]] = {
    "counts": _ref("Counts"),
    "runtime": _object(count=_COUNT, seconds=_NUMBER),
    "last_failure_at": _or_null(_TIME),
}
_FAILURE: Final[dict[str, Json]] = {
    "uuid": _TEXT,
    "task": _TEXT,
    "queue": _TEXT,
    "hostname": _TEXT,
    "at": _or_null(_TIME),
    "exception": {"type": "string", "description": "Short name of the class"},
    "message": _TEXT,
    "group": {"type": "string", "description": "Shared by failures with the same exception at the same place"},
    "incident": _or_null({"type": "string", "description": "Key of its incident"}),
    "reason": _one_of(Reason),
}
_TASK: Final = _object(name=_TEXT, queue=_TEXT, **_TOTALS)

_RUN_STATES: Final = (*RunState, *(stage.name.lower() for stage in Stage if stage >= Stage.SUCCEEDED))
_RUN: Final[dict[str, Json]] = {
    "uuid": _TEXT,
    "task": _or_null({"type": "string", "description": "null while no event has told it"}),
    "queue": _or_null(_TEXT),
    "hostname": {"type": "string", "description": 'Of the worker, "" while none has received it'},
    "state": {**_one_of(_RUN_STATES), "description": "`unseen_end`: it ended, and no event reported how or when"},
    "sent_at": _or_null({**_TIME, "description": "null for each time that was not seen"}),
    "eta": _or_null({**_TIME, "description": "The time before which it must not begin"}),
    "received_at": _or_null(_TIME),
    "started_at": _or_null(_TIME),
    "ended_at": _or_null(_TIME),
    "lost_at": _or_null({**_TIME, "description": "When its worker was gone; no event will report its end"}),
    "waited_seconds": _or_null({"type": "number", "description": "From when it was due to its start"}),
    "seconds": _or_null({"type": "number", "description": "Of work, of one that has ended"}),
    "retries": _COUNT,
    "root": _or_null({"type": "string", "description": "Id of the task that the workflow began with"}),
    "parent": _or_null({"type": "string", "description": "Id of the task that sent it"}),
    "args": _or_null({"type": "string", "description": "Of a task under way, with tracking.capture_arguments"}),
    "kwargs": _or_null(_TEXT),
}

_WORKER: Final = {
    "hostname": _TEXT,
    "up": {"type": "boolean"},
    "last_heartbeat_at": _or_null(_TIME),
    "active": _COUNT,
    "processed": _COUNT,
    "unobserved": _COUNT,
    "heartbeats": {"type": "boolean", "description": "false: the worker sends none (--without-heartbeat)"},
    "clock_offset_seconds": {
        "type": "number",
        "description": "Seconds that the monitor adds to the worker's timestamps: how far its clock is behind "
        "(negative: ahead)",
    },
    "pid": _COUNT,
    "software": _TEXT,
    "queues": _list({"type": "string", "description": "Names of those that it consumes"}),
    "pool": _or_null({"type": "string", "description": "Kind of its pool: `prefork`"}),
    "processes": _or_null({**_COUNT, "description": "Size of its pool"}),
    "prefetch": _or_null({**_COUNT, "description": "Messages that it may have fetched and not acknowledged"}),
    "load_average": _or_null({**_list(_NUMBER), "description": "Of its machine, over 1, 5 and 15 minutes"}),
    "uptime_seconds": _or_null({"type": "number", "description": "At `answered_at`"}),
    "peak_memory_bytes": _or_null({**_COUNT, "description": "Of its main process"}),
    "answered_at": _or_null({**_TIME, "description": "When it last answered a question; null: not yet"}),
}

_INCIDENT: Final[dict[str, Json]] = {
    "key": _TEXT,
    "condition": _one_of(Condition),
    "subject": {"type": "string", "description": "What another condition than failure is about, such as a queue"},
    "task": _TEXT,
    "rule": _TEXT,
    "severity": _one_of(Severity),
    "state": _one_of(IncidentState),
    "reason": _one_of(Reason),
    "hour": _TEXT,
    "opened_at": _or_null(_TIME),
    "first_at": _or_null(_TIME),
    "last_at": _or_null(_TIME),
    "count": _COUNT,
    "threshold": _COUNT,
    "exceptions": _BY_NAME,
    "workers": _BY_NAME,
    "queues": _BY_NAME,
    "tasks": _BY_NAME,
    "samples": _list({"type": "string", "description": "Task ids"}),
    "message": _TEXT,
    "details": _list(_object(label=_TEXT, value=_TEXT)),
    "unwatched_seconds": {"type": "number", "description": "Time in which the event stream was not watched"},
    "runbook_url": _or_null(_TEXT),
    "deliveries": _list(_ref("Delivery")),
    "delivered_at": _or_null({**_TIME, "description": "When the last of its channels had taken it"}),
    "delivered_count": {**_COUNT, "description": "How many failures each of its channels knows of"},
    "error": _or_null({"type": "string", "description": "Of the last attempt, on the first channel where it failed"}),
}

SCHEMAS: Final[dict[str, Json]] = {
    "Index": _object(resources=_list(_object(href=_TEXT, about=_TEXT)), description=_TEXT),
    "Error": _object(error={"type": "string", "description": "What is wrong, with the name of an invalid parameter"}),
    "Counts": _object(**dict.fromkeys(COUNTS, _COUNT)),
    "Task": _TASK,
    "TaskInFull": _object(name=_TEXT, **_TOTALS, queues=_list(_ref("Task")), errors=_list(_ref("ErrorGroup"))),
    "ErrorGroup": _object(
        group=_TEXT,
        task=_TEXT,
        exception=_TEXT,
        frame={"type": "string", "description": 'Innermost application frame, "" when unknown'},
        count=_COUNT,
        first_at=_or_null(_TIME),
        last_at=_or_null(_TIME),
        sample=_or_null({"type": "string", "description": "Id of a task with a stored failure"}),
    ),
    "Failure": _object(**_FAILURE),
    "FailureInFull": _object(**_FAILURE, traceback=_TEXT, args=_or_null(_TEXT), kwargs=_or_null(_TEXT)),
    "Incident": _object(**_INCIDENT),
    "IncidentInFull": _object(
        **_INCIDENT,
        last_uuid=_or_null({"type": "string", "description": "Task id of the last failure"}),
        traceback={"type": "string", "description": "The end of that of the last failure"},
        args=_or_null(_TEXT),
        kwargs=_or_null(_TEXT),
        errors=_list(_ref("ErrorGroup")),
    ),
    "Delivery": _object(
        channel=_TEXT,
        state=_one_of(("pending", "delivered", "dead", "unknown")),
        attempts=_COUNT,
        delivered_at=_or_null({**_TIME, "description": "When the receiver first took it"}),
        delivered_count={**_COUNT, "description": "How many failures the receiver knows of"},
        receipt=_or_null({"type": "string", "description": "By what the receiver knows it"}),
        error=_or_null({"type": "string", "description": "Of the last attempt, when it failed"}),
    ),
    "Run": _object(**_RUN),
    "Runs": _object(
        uuid=_TEXT,
        runs={**_list(_ref("Run")), "description": "Those under way, then those that ended, the newest first"},
        ancestors={
            **_list(_object(uuid=_TEXT, task=_or_null(_TEXT), state=_or_null(_one_of(_RUN_STATES)))),
            "description": "The tasks that it comes from, from the root to the parent",
        },
        children=_list(_ref("Run")),
        failures=_list(_ref("Failure")),
    ),
    "Silence": _object(
        id=_TEXT,
        match=_list({"type": "string", "description": "Glob on the task name"}),
        queues=_list({"type": "string", "description": "Glob on the queue; none: all queues"}),
        reason=_TEXT,
        created_by={"type": "string", "description": 'User who added it, "" when unknown'},
        starts_at=_or_null(_TIME),
        ends_at=_or_null(_TIME),
        active={"type": "boolean"},
    ),
    "Schedule": _object(
        name=_TEXT,
        task=_TEXT,
        schedule={"type": "string", "description": "As configured: `0 3 * * * Europe/Berlin`, `every 5m`"},
        expected_at=_or_null({**_TIME, "description": "The next start that is expected"}),
        missing={**_COUNT, "description": "Starts missed since it last ran"},
        missing_since=_or_null({**_TIME, "description": "The first of these"}),
        missed_total=_COUNT,
        not_judged_total={**_COUNT, "description": "Starts not judged, because events of that time are lost"},
        not_judged_at=_or_null({**_TIME, "description": "The last of these"}),
        runs=_list(
            _object(
                uuid=_TEXT,
                hostname=_TEXT,
                started_at=_or_null(_TIME),
                ended_at=_or_null(_TIME),
                seconds=_or_null(_NUMBER),
                outcome=_one_of(Outcome),
            )
        ),
    ),
    "NewSilence": {
        "type": "object",
        "properties": {
            "match": {"type": "array", "items": _TEXT, "minItems": 1, "description": "Globs on the task name"},
            "queues": {"type": "array", "items": _TEXT, "description": "Globs on the queue; default: all"},
            "for": {"type": "string", "description": "How long it lasts, from 1s to 30d: `2h`"},
            "reason": {"type": "string", "minLength": 1, "maxLength": MAX_REASON},
        },
        "required": ["match", "for", "reason"],
        "additionalProperties": False,
    },
    "Worker": _object(**_WORKER),
    "WorkerInFull": _object(**_WORKER, tasks=_object(**dict.fromkeys(map(str, LISTED), _COUNT))),
    "Queue": _object(name=_TEXT, length=_or_null(_COUNT), consumers=_or_null(_COUNT), workers=_COUNT, processes=_COUNT),
    "OutboxItem": _object(
        id=_COUNT,
        channel=_TEXT,
        key=_TEXT,
        action=_one_of(Action),
        route=_TEXT,
        state=_one_of(("pending", "delivered", "dead", "unknown")),
        attempts=_COUNT,
        created_at=_or_null(_TIME),
        due_at=_or_null(_TIME),
        error=_or_null(_TEXT),
    ),
    "Health": _object(
        status=_one_of(("ok", "failing")),
        checks={"type": "object", "additionalProperties": _TEXT},
        notes={"type": "object", "additionalProperties": _TEXT},
        about={"type": "object", "additionalProperties": _TEXT},
    ),
    "Summary": _object(
        fleet=_TEXT,
        at=_TIME,
        since=_or_null(_TIME),
        health=_ref("Health"),
        counts=_ref("Counts"),
        tasks=_object(seen=_COUNT, failing=_COUNT),
        worst=_list(_object(name=_TEXT, failure_rate=_or_null(_NUMBER), **_TOTALS)),
        incidents=_object(open=_or_null(_COUNT)),
        workers=_object(up=_COUNT, down=_COUNT),
        outbox=_list(
            _object(
                channel=_TEXT,
                configured={"type": "boolean", "description": "Whether the channel has a receiver"},
                pending=_COUNT,
                oldest_at=_or_null({**_TIME, "description": "Creation time of the oldest pending notification"}),
                dead={**_COUNT, "description": "Failed: retried on request only"},
                unknown={**_COUNT, "description": "May have been delivered: the receiver never confirmed it"},
            )
        ),
        limits=_list(
            _object(
                name=_TEXT,
                setting=_or_null({**_TEXT, "description": "Setting that raises the limit"}),
                limit=_or_null(_COUNT),
                used=_or_null(_COUNT),
                exceeded={**_COUNT, "description": "How often something was counted as other or dropped"},
            )
        ),
        queues=_list(_ref("Queue")),
        store=_object(
            bytes=_COUNT,
            max_bytes=_or_null(_COUNT),
            room_bytes=_or_null({**_COUNT, "description": "Bytes left before the limit or the end of the disk"}),
            short_of_space={"type": "boolean"},
            given_up={
                "type": "object",
                "additionalProperties": _COUNT,
                "description": "Rows dropped for lack of space since the process started: samples, groups, buckets",
            },
            rolled_back={
                "type": "boolean",
                "description": "Whether it was older than the last commit at a start within the last day",
            },
        ),
        stream=_object(
            lag_seconds=_or_null(_NUMBER),
            gap_seconds=_NUMBER,
            unobserved_tasks=_COUNT,
            unnamed_failures=_COUNT,
        ),
    ),
    "Report": {"type": "object", "description": "A day, as in the daily mail"},
}

_ago: Final = "an RFC 3339 time, a date (midnight UTC), or an age: 1h, 30m, 7d"
# By name; with a path, for that list only.
PARAMETERS: Final[dict[str, Json]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    "cursor": {"type": "string", "description": "`next` of the previous page"},
    "task": {"type": "string", "description": "Only this task, by its full name"},
    "exception": {
        "type": "string",
        "description": "Only this exception class, by its short name; for tasks: those that failed with it in the "
        "time range",
    },
    "condition": {**_one_of(Condition), "description": "Only incidents of this condition"},
    "state": {**_one_of(IncidentState), "description": "Only incidents in this state"},
    "/api/v1/runs:state": {**_one_of(LISTED), "description": "Only tasks in this state"},
    "queue": {"type": "string", "description": "Only of this queue"},
    "worker": {"type": "string", "description": "Only on the worker of this hostname"},
    "key": {"type": "string", "description": "Only the incident with this key"},
    "since": {"type": "string", "description": f"Not before {_ago}"},
    "until": {"type": "string", "description": f"Before {_ago}"},
    "ended": {"type": "boolean", "default": False, "description": "Those that have ended instead, the last one first"},
    "dead": {"type": "boolean", "default": False, "description": "Only failed notifications"},
}
_FILTERS: Final = ("limit", "cursor", "task", "exception", "since", "until")

INDEX: Final = "/api/v1"
OPERATIONS: Final[dict[str, tuple[str, str, bool, tuple[str, ...]]]] = {
    INDEX: ("The list of endpoints", "Index", False, ()),
    "/api/v1/summary": ("Overview of the fleet, by default for the last day", "Summary", False, ("since",)),
    "/api/v1/tasks": (
        "Tasks by name and queue, with their counts over the retention or a time range, in steps of 15 minutes",
        "Task",
        True,
        _FILTERS,
    ),
    "/api/v1/tasks/{name}": (
        "A task on all of its queues, with its error groups",
        "TaskInFull",
        False,
        ("since",),
    ),
    "/api/v1/runs": (
        "Tasks that have not ended, the oldest first",
        "Run",
        True,
        ("limit", "cursor", "task", "state", "queue", "worker"),
    ),
    "/api/v1/runs/{uuid}": ("A task by its id: its runs under way and those that ended lately", "Runs", False, ()),
    "/api/v1/failures": ("Stored failures, newest first", "Failure", True, _FILTERS),
    "/api/v1/failures/{uuid}": ("The failures of a task id, one per attempt", "FailureInFull", True, ()),
    "/api/v1/incidents": ("Incidents, newest first", "Incident", True, (*_FILTERS, "state", "key", "condition")),
    "/api/v1/incidents/{key}": (
        "The incident of a dedup key, with the error groups of its tasks in its time",
        "IncidentInFull",
        False,
        (),
    ),
    "/api/v1/workers": ("Current workers by hostname", "Worker", True, ("limit", "cursor")),
    "/api/v1/workers/{hostname}": ("A worker, with the number of its tasks by state", "WorkerInFull", False, ()),
    "/api/v1/outbox": (
        "Pending and failed notifications, oldest first; since and until apply to their creation time",
        "OutboxItem",
        True,
        ("limit", "cursor", "since", "until", "dead"),
    ),
    "/api/v1/silences": ("Silences that have not ended, the first to end first", "Silence", True, ("ended",)),
    "/api/v1/schedules": ("Configured schedules: when each is expected, and its newest runs", "Schedule", True, ()),
    "/api/v1/reports/{date}": ("A day: YYYY-MM-DD, today or yesterday", "Report", False, ()),
}
"""Path → what it gives, the schema, whether it is a list of it, and the query parameters."""


_MAY_NOT: Final = "Not an operator, no sign-in is configured, or the request comes from another site"


def _changes(*, guarded: bool) -> dict[str, Json]:
    """What changes something, by path and method."""
    refused = {
        **({"401": _response("Not signed in", _ref("Error"))} if guarded else {}),
        "403": _response(
            _MAY_NOT,
            _ref("Error"),
        ),
        "503": _response("The store is unavailable", _ref("Error")),
    }
    body = {"required": True, "content": {"application/json": {"schema": _ref("NewSilence")}}}
    added = {
        "201": _response("The new silence", _ref("Silence")),
        "400": _response("Invalid silence", _ref("Error")),
        "413": _response("The body is too long", _ref("Error")),
        "415": _response("The body is not JSON", _ref("Error")),
    }
    ended = {"200": _response("The silence, ended", _ref("Silence")), "404": _response("Not found", _ref("Error"))}
    in_path = {"name": "id", "in": "path", "required": True, "schema": _TEXT}
    return {
        "/api/v1/silences": {
            "post": {"summary": "Add a silence", "requestBody": body, "responses": added | refused},
        },
        "/api/v1/silences/{id}": {
            "delete": {"summary": "End a silence now", "parameters": [in_path], "responses": ended | refused},
        },
    }


_SCHEMES: Final[dict[str, Json]] = {
    "password": {"type": "http", "scheme": "basic"},
    "session": {
        "type": "apiKey", "in": "cookie", "name": "celery_monitor_session",
        "description": "The session of a browser; with HTTPS its name begins with __Host- or __Secure-",
    },
    "proxy": {"type": "apiKey", "in": "header", "name": "X-Forwarded-User", "description": "Set by the proxy in front"},
}  # fmt: skip


@cache
def document(*, schemes: tuple[str, ...] = ()) -> Json:
    """The description in OpenAPI 3.1. ``schemes``: how one can sign in; none where nobody has to."""
    guarded = bool(schemes)
    known: Json = {"securitySchemes": {name: _SCHEMES[name] for name in schemes}} if guarded else {}
    paths: dict[str, Json] = {path: {"get": _operation(path, guarded=guarded)} for path in OPERATIONS}
    for path, methods in _changes(guarded=guarded).items():
        paths[path] = paths.get(path, {}) | methods
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "celery-monitor",
            "version": version("celery-monitor"),
            "description": "Activity of a Celery fleet. Only silences can be changed; times are RFC 3339 in UTC.",
        },
        "paths": paths,
        "components": {"schemas": SCHEMAS, **known},
        **({"security": [{name: []} for name in schemes]} if guarded else {}),
    }


def _operation(path: str, *, guarded: bool) -> Json:
    text, schema, many, names = OPERATIONS[path]
    answer = _object(items=_list(_ref(schema)), next=_or_null(_TEXT)) if many else _ref(schema)
    in_path = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return {
        "summary": text,
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": _TEXT} for name in in_path),
            *(_in_query(path, name) for name in names),
        ],
        "responses": {
            "200": _response("The requested data", answer),
            "400": _response("Invalid parameter", _ref("Error")),
            **({"401": _response("Not signed in", _ref("Error"))} if guarded else {}),
            **({"404": _response("Not found", _ref("Error"))} if in_path else {}),
            "503": _response("The store is unavailable", _ref("Error")),
        },
    }


def _in_query(path: str, name: str) -> Json:
    schema = PARAMETERS.get(f"{path}:{name}") or PARAMETERS[name]
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _response(text: str, schema: Json) -> Json:
    return {"description": text, "content": {"application/json": {"schema": schema}}}
