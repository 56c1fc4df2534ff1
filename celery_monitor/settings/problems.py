"""Translates pydantic's errors into readable problems that never contain a value."""

import difflib
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from celery_monitor.errors import Problem
from celery_monitor.settings import schema
from celery_monitor.settings.channels import entry_types
from celery_monitor.settings.section import FieldError

Location = tuple[int | str, ...]

_MESSAGES: Final = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number",
    "int_type": "must be a whole number",
    "literal_error": "must be {expected}",
    "missing": "is required",
    "model_attributes_type": "must be a mapping",
    "model_type": "must be a mapping",
    "path_type": "must be the path of a file",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "string_too_long": "must not be longer than {max_length} characters",
    "string_too_short": "must not be empty",
    "string_type": "must be a string; put it in quotes",
    "too_long": "must not have more than {max_length} entries",
    "too_short": "must list at least {min_length}",
    "tuple_type": "must be a list",
}
_NO_VALUE: Final = "has no value; write one, or remove the line to use the default"


def problems_of(error: ValidationError, origins: Mapping[schema.Path, str]) -> list[Problem]:
    """One problem for each error; ``origins`` names the fields that were set by the environment."""
    return [Problem(_written(_place(detail), origins), _message(detail)) for detail in error.errors(include_url=False)]


def _place(detail: ErrorDetails) -> Location:
    location, error = detail["loc"], detail.get("ctx", {}).get("error")
    if detail["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        return (*location, "", "type")  # pydantic leaves the type out of the location
    if not isinstance(error, FieldError):
        return location
    section = location if schema.is_section(_node(location)) else location[:-1]
    return (*section, error.field)


def _written(location: Location, origins: Mapping[schema.Path, str]) -> str:
    """Like ``_path``, but without the channel type that pydantic adds to the location: ``channels[0].url``."""
    if location[0] == "channels":
        location = (*location[:2], *location[3:])
    return _path(location, origins)


def _path(location: Location, origins: Mapping[schema.Path, str]) -> str:
    """A path such as ``alerts.rules[0].severity``; a part that a variable set is replaced by its name."""
    text = ""
    for count, part in enumerate(location, start=1):
        if part == "[key]":  # Pydantic's mark for an invalid key of a mapping.
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
        text = origins.get(tuple(map(str, location[:count])), text)
    return text


def _message(detail: ErrorDetails) -> str:
    context: dict[str, Any] = detail.get("ctx", {})
    match detail["type"]:
        case "value_error":
            return str(context["error"])
        case "union_tag_invalid" | "union_tag_not_found" as kind:
            problem = "is required" if kind.endswith("found") else "is not a channel type"
            return f"{problem}; known: {', '.join(entry_types())}"
        case "extra_forbidden":
            return _unknown_key(detail["loc"])
        case "greater_than_equal" | "less_than_equal":
            return _range(detail["loc"])
        case kind if kind in _MESSAGES:
            return _NO_VALUE if detail["input"] is None else _MESSAGES[kind].format_map(context)
    return detail["msg"].lower()


def _node(location: Location) -> schema.Node:
    node = schema.schema()
    for part in location:
        if isinstance(part, int):
            node = node["items"]
        elif "oneOf" in node:  # the channel type selects the alternative
            node = next(branch for branch in node["oneOf"] if branch["properties"]["type"]["const"] == part)
        else:
            node = node["properties"][part]
    return node


def _range(location: Location) -> str:
    node = _node(location)
    node = next((kind for kind in node.get("anyOf", ()) if "minimum" in kind or "maximum" in kind), node)
    low, high = node.get("minimum"), node.get("maximum")
    return f"must be from {low} to {high}" if high is not None else f"must be at least {low}"


def _unknown_key(location: Location) -> str:
    key = str(location[-1])
    siblings = _node(location[:-1])["properties"]
    # The exact name of a field in another section is a better suggestion than a similar name in this one.
    elsewhere = [path for path in _all_paths() if path[-1] == key]
    if len(elsewhere) == 1:
        return _misplaced(elsewhere[0], location[:-1])
    if near := difflib.get_close_matches(key, siblings, n=1, cutoff=0.6):
        return f"unknown key; did you mean `{near[0]}`?"
    return f"unknown key; known keys: {', '.join(siblings)}"


def _misplaced(path: schema.Path, section: Location) -> str:
    if path == section:
        return f"unknown key; this is already inside `{path[-1]}`: write its fields here"
    if len(path) == 1:
        return f"unknown key; `{path[0]}` belongs at the top level, not in `{'.'.join(map(str, section))}`"
    return f"unknown key; did you mean `{'.'.join(path)}`?"


def _all_paths() -> list[schema.Path]:
    return [path for path, _ in schema.sections() if path] + [path for path, _ in schema.fields()]
