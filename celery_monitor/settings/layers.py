"""The values of each source before validation: command line, environment and file."""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from celery_monitor.errors import Problem
from celery_monitor.settings import schema, yaml_file

PREFIX: Final = "CELERY_MONITOR_"
CONFIG_VARIABLE: Final = f"{PREFIX}CONFIG"

# Kubernetes sets variables with the addresses of a namespace's services in every pod; a service named celery-monitor
# results in CELERY_MONITOR_PORT=tcp://10.0.0.1:9808 and more. They never contain the double underscore of a section.
_SERVICE_LINK: Final = re.compile(
    r"(?!.*__).*(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class Layer:
    """The values of one source, nested as in the file, and the names by which the user set them."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[schema.Path, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def put(self, path: schema.Path, value: object) -> None:
        """Set one field."""
        section = self.values
        for key in path[:-1]:
            section = section.setdefault(key, {})
        section[path[-1]] = value

    def section(self, path: schema.Path) -> dict[str, Any]:
        """The values of a section; an empty dict if there are none. Changes to a nonempty dict change the layer."""
        section = self.values
        for key in path:
            section = section.get(key, {})
        return section


def from_arguments(overrides: Mapping[str, object]) -> Layer:
    """A layer from dotted paths and values (``{"web.port": 9000}``); None: the option was not given."""
    layer = Layer()
    for dotted, value in overrides.items():
        if value is not None:
            layer.put(tuple(dotted.split(".")), value)
    return layer


def from_environment(environ: Mapping[str, str]) -> Layer:
    """A layer from variables such as ``CELERY_MONITOR_BROKER__URL``. Empty ones, common in compose files, are unset.

    A trailing newline is ignored, as in files: ``echo KEY | base64`` adds one to a Kubernetes Secret.
    """
    layer = Layer()
    variables = {variable(path): (path, node) for path, node in schema.fields()}
    for name, value in sorted(environ.items()):
        text = value.rstrip("\r\n")
        if not name.startswith(PREFIX) or name == CONFIG_VARIABLE or not text:
            if (
                text
                and name.upper() in {*variables, CONFIG_VARIABLE}
                and name not in variables
                and name != CONFIG_VARIABLE
            ):
                layer.problems.append(Problem(name, f"is ignored; write it in upper case: {name.upper()}"))
            continue
        if name not in variables:
            if not _is_service_link(name, text):
                layer.problems.append(Problem(name, _unknown_variable(name, variables)))
            continue
        path, node = variables[name]
        try:
            layer.put(path, _decode(text, node))
        except ValueError as exc:
            layer.problems.append(Problem(name, str(exc)))
        layer.origins[path] = name
    return layer


def from_file(path: Path) -> Layer:
    """A layer from a YAML file. Empty sections are ignored."""
    layer = Layer()
    document = yaml_file.read(path)
    if isinstance(document, Problem):
        layer.problems.append(document)
    elif isinstance(document, dict):
        layer.values.update(_sections_only(document, schema.schema(), (), layer.problems))
    elif document is not None:
        layer.problems.append(Problem(str(path), "must be a mapping of sections, such as broker: and store:"))
    return layer


def variable(path: schema.Path) -> str:
    """The environment variable of a field."""
    return PREFIX + "__".join(path).upper()


def _is_service_link(name: str, text: str) -> bool:
    return bool(_SERVICE_LINK.fullmatch(name)) or (
        "__" not in name and name.endswith("_PORT") and bool(_SERVICE_ADDRESS.match(text))
    )


def _unknown_variable(name: str, variables: Mapping[str, object]) -> str:
    for field_name in variables:
        if name.startswith(f"{field_name}__"):
            return f"unknown variable; set all of it in {field_name} as JSON"
    if inside := [field_name for field_name in variables if field_name.startswith(f"{name}__")]:
        return f"is a section; set its fields, for example {inside[0]}"
    near = difflib.get_close_matches(name.upper(), variables, n=1, cutoff=0.8)
    return f"unknown variable; did you mean `{near[0]}`?" if near else "unknown variable; see config schema"


def _decode(text: str, node: schema.Node) -> object:
    """Decode lists and mappings from JSON, and lists of plain values also from a,b,c. Other fields take the text.

    Raises:
        ValueError: Without any part of the text, which may be a secret.
    """
    kinds = schema.kinds(node)
    if "array" in kinds and not text.lstrip().startswith("[") and not schema.is_section(node["items"]):
        return [item.strip() for item in text.split(",") if item.strip()]
    if kinds & {"array", "object"} and (not kinds - {"array", "object"} or text.lstrip().startswith("{")):
        try:
            return json.loads(text)
        except RecursionError:
            raise ValueError("must be JSON; it is nested too deep") from None
        except ValueError as exc:
            position = f" at character {exc.pos + 1}" if isinstance(exc, json.JSONDecodeError) else ""
            raise ValueError(f"must be JSON; syntax error{position}") from None
    return None if text == "null" and node["default"] is None else text


def _sections_only(
    values: Mapping[Any, Any], node: schema.Node, path: schema.Path, problems: list[Problem]
) -> dict[str, Any]:
    """The values without empty sections and without values that cannot be merged with other layers."""
    sections = {}
    for key, value in values.items():
        child = node["properties"].get(key)
        dotted_path = ".".join((*path, str(key)))
        if not isinstance(key, str):
            problems.append(Problem(dotted_path, "unknown key; keys must be strings"))
        elif child is None or not schema.is_section(child):
            sections[key] = value
        elif isinstance(value, Mapping):
            sections[key] = _sections_only(value, child, (*path, key), problems)
        elif value is not None:
            problems.append(Problem(dotted_path, f"must be a section with the keys {', '.join(child['properties'])}"))
    return sections
