"""The OpenAPI description of ``/api/v1``, served as ``/openapi.json``, by resource.

To add a path, add its Operation and schemas to the module of its resource, and its route to ``api``.
"""

from functools import cache
from importlib.metadata import version
from typing import Final

from celery_monitor.adapters.web.openapi import fleet, incidents, overview, silences, tasks
from celery_monitor.adapters.web.openapi.json_schema import TEXT, Json, array, nullable, object_of, ref, response
from celery_monitor.adapters.web.openapi.operation import PARAMETERS, Operation
from celery_monitor.adapters.web.openapi.overview import INDEX

__all__ = ["INDEX", "OPERATIONS", "document"]

_RESOURCES: Final = (overview, tasks, incidents, fleet, silences)
OPERATIONS: Final[dict[str, Operation]] = {
    path: operation for resource in _RESOURCES for path, operation in resource.OPERATIONS.items()
}
"""Path → operation."""
_SCHEMAS: Final[dict[str, Json]] = {
    name: schema for resource in _RESOURCES for name, schema in resource.SCHEMAS.items()
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
    """The OpenAPI 3.1 description. ``schemes``: security schemes; empty if no sign-in is required."""
    guarded = bool(schemes)
    components: Json = {"securitySchemes": {name: _SCHEMES[name] for name in schemes}} if guarded else {}
    paths: dict[str, Json] = {path: {"get": _operation(path, guarded=guarded)} for path in OPERATIONS}
    for path, methods in silences.changes(guarded=guarded).items():
        paths[path] = paths.get(path, {}) | methods
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "celery-monitor",
            "version": version("celery-monitor"),
            "description": "Activity of a Celery fleet. Only silences can be changed; times are RFC 3339 in UTC.",
        },
        "paths": paths,
        "components": {"schemas": _SCHEMAS, **components},
        **({"security": [{name: []} for name in schemes]} if guarded else {}),
    }


def _operation(path: str, *, guarded: bool) -> Json:
    operation = OPERATIONS[path]
    schema = ref(operation.schema)
    answer = object_of(items=array(schema), next=nullable(TEXT)) if operation.many else schema
    in_path = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return {
        "summary": operation.about,
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": TEXT} for name in in_path),
            *(_in_query(path, name) for name in operation.parameters),
        ],
        "responses": {
            "200": response("The requested data", answer),
            "400": response("Invalid parameter", ref("Error")),
            **({"401": response("Not signed in", ref("Error"))} if guarded else {}),
            **({"404": response("Not found", ref("Error"))} if in_path else {}),
            "503": response("The store is unavailable", ref("Error")),
        },
    }


def _in_query(path: str, name: str) -> Json:
    schema = PARAMETERS.get(f"{path}:{name}") or PARAMETERS[name]
    return {"name": name, "in": "query", "required": False, "schema": schema}
