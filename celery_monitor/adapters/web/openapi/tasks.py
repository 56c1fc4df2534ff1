"""Tasks, their runs and their failures."""

from typing import Final

from celery_monitor.adapters.web.openapi.json_schema import (
    COUNT,
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
from celery_monitor.adapters.web.openapi.operation import FILTERS, Operation
from celery_monitor.core.lookup import RunState
from celery_monitor.core.model import COUNTS, Reason, Stage

_FAILURE: Final[dict[str, Json]] = {
    "uuid": TEXT,
    "task": TEXT,
    "queue": TEXT,
    "hostname": TEXT,
    "at": nullable(TIME),
    "exception": {"type": "string", "description": "Short name of the exception class"},
    "message": TEXT,
    "group": {
        "type": "string",
        "description": "Error group: failures with the same task, exception and place have the same value",
    },
    "incident": nullable({"type": "string", "description": "Key of its incident"}),
    "reason": one_of(Reason),
}

_ESTIMATE: Final = nullable(
    {"type": "number", "description": "Estimated seconds; null: unknown, or beyond the last bucket"}
)
_PERCENTILES: Final = object_of(count=COUNT, p50=_ESTIMATE, p95=_ESTIMATE, p99=_ESTIMATE)

_TASK: Final = object_of(name=TEXT, queue=TEXT, **TOTALS)

_RUN_STATES: Final = (*RunState, *(stage.name.lower() for stage in Stage if stage >= Stage.SUCCEEDED))

_RUN: Final[dict[str, Json]] = {
    "uuid": TEXT,
    "task": nullable({"type": "string", "description": "null until an event names the task"}),
    "queue": nullable(TEXT),
    "hostname": {"type": "string", "description": 'Hostname of the worker, "" until a worker has received it'},
    "state": {
        **one_of(_RUN_STATES),
        "description": "`unseen_end`: it ended, but no event reported how or when; "
        "or its worker returned it to the queue before it started, and it was received again",
    },
    "sent_at": nullable({**TIME, "description": "null if the event was not seen; also for the other times"}),
    "eta": nullable({**TIME, "description": "Earliest start (ETA or countdown)"}),
    "received_at": nullable(TIME),
    "started_at": nullable(TIME),
    "ended_at": nullable(TIME),
    "lost_at": nullable({**TIME, "description": "When its worker was lost; no event will report its end"}),
    "waited_seconds": nullable({"type": "number", "description": "Seconds from when it was due until it started"}),
    "seconds": nullable({"type": "number", "description": "Run time in seconds, once it has ended"}),
    "retries": COUNT,
    "root": nullable({"type": "string", "description": "ID of the first task of the workflow"}),
    "parent": nullable({"type": "string", "description": "ID of the task that sent it"}),
    "args": nullable(
        {"type": "string", "description": "Only of unfinished tasks, and only with tracking.capture_arguments"}
    ),
    "kwargs": nullable(TEXT),
}

SCHEMAS: Final[dict[str, Json]] = {
    "Counts": object_of(**dict.fromkeys(COUNTS, COUNT)),
    "Task": _TASK,
    "TaskInFull": object_of(
        name=TEXT, **TOTALS, queues=array(ref("Task")), errors=array(ref("ErrorGroup")), hours=array(ref("TaskHour"))
    ),
    "TaskHour": object_of(start=nullable(TIME), runtime=_PERCENTILES, wait=_PERCENTILES),
    "ErrorGroup": object_of(
        group=TEXT,
        task=TEXT,
        exception=TEXT,
        frame={"type": "string", "description": 'Innermost application frame, "" when unknown'},
        count=COUNT,
        first_at=nullable(TIME),
        last_at=nullable(TIME),
        sample=nullable({"type": "string", "description": "ID of a task whose failure is stored"}),
    ),
    "Failure": object_of(**_FAILURE),
    "FailureInFull": object_of(**_FAILURE, traceback=TEXT, args=nullable(TEXT), kwargs=nullable(TEXT)),
    "Run": object_of(**_RUN),
    "Runs": object_of(
        uuid=TEXT,
        runs={**array(ref("Run")), "description": "Unfinished runs, then ended ones, newest first"},
        ancestors={
            **array(object_of(uuid=TEXT, task=nullable(TEXT), state=nullable(one_of(_RUN_STATES)))),
            "description": "Its ancestors in the workflow, from the root to the parent",
        },
        children=array(ref("Run")),
        failures=array(ref("Failure")),
    ),
}

OPERATIONS: Final = {
    "/api/v1/tasks": Operation(
        "Tasks by name and queue, with their counts over the retention or a time range, in steps of 15 minutes",
        "Task",
        True,
        FILTERS,
    ),
    "/api/v1/tasks/{name}": Operation(
        "A task on all queues, with error groups and hourly percentiles since `since` (default: the last day)",
        "TaskInFull",
        False,
        ("since",),
    ),
    "/api/v1/runs": Operation(
        "Unfinished tasks, oldest first; or, with a `state` of ended tasks, ended tasks, newest first",
        "Run",
        True,
        ("limit", "cursor", "task", "state", "queue", "worker"),
    ),
    "/api/v1/runs/{uuid}": Operation("A task by its ID: its unfinished and recently ended runs", "Runs", False, ()),
    "/api/v1/errors": Operation(
        "Error groups of all tasks, most failures first, in the last day or a time range, in steps of 15 minutes",
        "ErrorGroup",
        True,
        FILTERS,
    ),
    "/api/v1/failures": Operation("Stored failures, newest first", "Failure", True, FILTERS),
    "/api/v1/failures/{uuid}": Operation("Failures of a task ID, one per attempt", "FailureInFull", True, ()),
}
