"""Helpers that build JSON Schemas for the resources."""

from typing import Any, Final

Json = dict[str, Any]

TEXT: Final[Json] = {"type": "string"}
COUNT: Final[Json] = {"type": "integer", "minimum": 0}
NUMBER: Final[Json] = {"type": "number"}
TIME: Final[Json] = {"type": "string", "format": "date-time", "description": "RFC 3339, in UTC"}
COUNT_BY_NAME: Final[Json] = {"type": "object", "additionalProperties": COUNT}


def nullable(schema: Json) -> Json:
    """The schema, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def object_of(**properties: Json) -> Json:
    """An object with exactly these properties."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def array(item: Json) -> Json:
    """A list of items with this schema."""
    return {"type": "array", "items": item}


def ref(name: str) -> Json:
    """A reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def one_of(values: Any) -> Json:  # noqa: ANN401 - any enumeration of strings
    """An enumeration of strings."""
    return {"type": "string", "enum": [str(value) for value in values]}


def response(text: str, schema: Json) -> Json:
    """A JSON response."""
    return {"description": text, "content": {"application/json": {"schema": schema}}}


TOTALS: Final[dict[str, Json]] = {
    "counts": ref("Counts"),
    "runtime": object_of(count=COUNT, seconds=NUMBER),
    "last_failure_at": nullable(TIME),
}
"""Totals of one or several tasks."""
