"""The JSON Schema of the configuration, which the loader also uses to find fields and sections.

It contains no references, so that it can be embedded in another schema (the values of a Helm chart), and only keywords
with the same meaning in draft 7 and 2020-12.
"""

from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any

from pydantic import TypeAdapter

from celery_monitor.channels import package
from celery_monitor.settings.model import Settings
from celery_monitor.settings.schedules import ScheduleSettings
from celery_monitor.settings.section import Section

Node = dict[str, Any]
Path = tuple[str, ...]


@cache
def schema() -> Node:
    """The schema of the whole configuration. It is shared, so the caller must not change it."""
    raw = Settings.model_json_schema(by_alias=True)
    tree = _inline(raw, raw.pop("$defs"))
    _as_written(tree, Settings().model_dump(mode="json", by_alias=True))
    for name, entry in entries(tree):
        _entry_as_written(entry, package(name).ENTRY)
    _entry_as_written(tree["properties"]["schedules"]["items"], ScheduleSettings)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "celery-monitor", **tree}


def fields(node: Node | None = None, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """All fields that are not sections, in order, each with its schema. Items of lists are not included."""
    for key, child in (schema() if node is None else node)["properties"].items():
        if is_section(child):
            yield from fields(child, (*path, key))
        else:
            yield (*path, key), child


def sections(node: Node | None = None, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """The root, then all sections in it, outer before inner."""
    node = schema() if node is None else node
    yield path, node
    for key, child in node["properties"].items():
        if is_section(child):
            yield from sections(child, (*path, key))


def entries(tree: Node | None = None) -> Iterator[tuple[str, Node]]:
    """The types of entries of ``channels``, each with its schema."""
    for node in (schema() if tree is None else tree)["properties"]["channels"]["items"]["oneOf"]:
        yield node["properties"]["type"]["const"], node


def is_section(node: Node) -> bool:
    """Whether its keys are fields; otherwise its keys are chosen by the user, or it has none."""
    return "properties" in node


def kinds(node: Node) -> set[str]:
    """The JSON types that a field accepts; values of an enumeration are strings."""
    alternatives = [kind.get("type", "string") for kind in node.get("anyOf", [node])]
    return {name for kind in alternatives for name in ([kind] if isinstance(kind, str) else kind)}


def _inline(node: Any, definitions: dict[str, Node]) -> Any:  # noqa: ANN401 - JSON
    if isinstance(node, list):
        return [_inline(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = definitions[node["$ref"].rpartition("/")[2]]
        node = {**target, **{key: value for key, value in node.items() if key not in {"$ref", "default"}}}
    return {
        key: {name: _inline(child, definitions) for name, child in value.items()}
        if key == "properties"
        else " ".join(value.split()).replace("``", "`")
        if key == "description"
        else _inline(value, definitions)
        for key, value in node.items()
        if key not in {"title", "discriminator"}
    }


def _entry_as_written(node: Node, model: type[Section]) -> None:
    for key, field in model.model_fields.items():
        child = node["properties"].get(field.alias or key, {})
        if isinstance(child.get("default"), float | int) and child.get("type") == "string":
            annotated: Any = Annotated[field.annotation, *field.metadata]
            child["default"] = TypeAdapter(annotated).dump_python(field.default, mode="json")
        if {"type": "null"} in child.get("anyOf", []):
            child["anyOf"][-1] = {"enum": [None, ""]}


def _as_written(node: Node, defaults: dict[str, Any]) -> None:
    """Convert pydantic's values to what a user writes: 10.0 to 10s, null to empty."""
    for key, child in node["properties"].items():
        if is_section(child):
            _as_written(child, defaults[key])
        elif isinstance(child.get("default"), float | int) and isinstance(defaults[key], str):
            child["default"] = defaults[key]
        elif {"type": "null"} in child.get("anyOf", []):
            child["anyOf"][-1] = {"enum": [None, ""]}
