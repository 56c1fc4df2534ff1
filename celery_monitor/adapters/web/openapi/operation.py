"""The GET operation of an API path, and its parameters."""

from typing import Final, NamedTuple

from celery_monitor.adapters.web.openapi.json_schema import Json, one_of
from celery_monitor.adapters.web.parameters import DEFAULT_LIMIT, MAX_LIMIT
from celery_monitor.core.lookup import LISTED, OUTCOMES
from celery_monitor.core.model import Condition, IncidentState


class Operation(NamedTuple):
    """The GET operation of a path."""

    about: str
    schema: str
    many: bool
    """Whether the answer is a list of the schema."""
    parameters: tuple[str, ...]
    """Names of its query parameters."""


FILTERS: Final = ("limit", "cursor", "task", "exception", "since", "until")

_ago: Final = "an RFC 3339 time, a date (midnight UTC), or an age: 1h, 30m, 7d"
# Name → schema; a name with a path applies only to that list.
PARAMETERS: Final[dict[str, Json]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    "cursor": {"type": "string", "description": "`next` of the previous page"},
    "task": {"type": "string", "description": "Only this task, by its full name"},
    "exception": {
        "type": "string",
        "description": "Only this exception class, by its short name; for tasks: only those that failed with it in the "
        "time range",
    },
    "condition": {**one_of(Condition), "description": "Only incidents of this condition"},
    "state": {**one_of(IncidentState), "description": "Only incidents in this state"},
    "/api/v1/runs:state": {
        **one_of((*LISTED, *OUTCOMES)),
        "description": "Only tasks in this state; `ended`: tasks that have ended in any state",
    },
    "queue": {"type": "string", "description": "Only this queue"},
    "worker": {"type": "string", "description": "Only the worker with this hostname"},
    "key": {"type": "string", "description": "Only the incident with this key"},
    "since": {"type": "string", "description": f"Not before {_ago}"},
    "until": {"type": "string", "description": f"Before {_ago}"},
    "ended": {"type": "boolean", "default": False, "description": "true: list ended silences instead, newest first"},
    "dead": {"type": "boolean", "default": False, "description": "Only failed notifications"},
}
