"""The schema, the reference and the example match the loader."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from celery_monitor.errors import ConfigError
from celery_monitor.settings import Settings, load, yaml_file
from celery_monitor.settings.reference import markdown
from celery_monitor.settings.schema import entries, fields, kinds, schema, sections
from tests.settings.test_validation import ACCEPTED, REFUSED

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "celery-monitor.example.yaml"


def keys(values: dict[str, Any], path: tuple[str, ...] = ()) -> set[str]:
    """The dotted paths of all fields in a document; the first item represents a list."""
    found = set()
    for key, value in values.items():
        here = (*path, key)
        inner = value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else value
        found |= keys(inner, here) if isinstance(inner, dict) and inner else {".".join(here)}
    return found


def lists() -> dict[str, dict[str, Any]]:
    """Path → the entries of lists of sections."""
    whole = schema()["properties"]
    alerts = whole["alerts"]["properties"]
    return {f"alerts.{name}": alerts[name]["items"] for name in ("rules", "mute")} | {
        "schedules": whole["schedules"]["items"]
    }


@pytest.mark.parametrize("draft", [jsonschema.Draft202012Validator, jsonschema.Draft7Validator])
def test_schema_is_a_schema(draft: type[jsonschema.Draft202012Validator]) -> None:
    """The schema is valid in 2020-12 and in draft 7, which Helm reads."""
    draft.check_schema({key: value for key, value in schema().items() if key != "$schema"})
    json.dumps(schema())


def test_schema_is_plain_text() -> None:
    """Editors show descriptions unchanged: names are in single backticks."""
    assert "``" not in json.dumps(schema())


def test_schema_stands_alone() -> None:
    """It has no references, so that it can be embedded in another schema, and forbids unknown keys everywhere."""
    assert "$ref" not in json.dumps(schema())
    nodes = [node for _, node in sections()] + [*lists().values()]
    nodes += [node for _, node in entries()]
    assert all(node["additionalProperties"] is False for node in nodes)


def test_every_field_is_described() -> None:
    """Every field and section has a description, and every field except a rule's name has a default."""
    for path, node in [*fields(), *sections()]:
        assert node.get("description"), path
        assert '" "' not in node["description"], path  # a text in two parts belongs into one
    for path, node in fields():
        assert "default" in node, path


def test_every_field_of_a_channel_is_described() -> None:
    """Every channel type and its fields have a description; defaults have the user's notation."""
    for name, node in entries():
        assert node.get("description"), name
        for key, child in node["properties"].items():
            assert child.get("description"), (name, key)
            assert key in node["required"] or "default" in child
            assert not isinstance(child.get("default"), float), (name, key)


def test_no_default_of_an_item_is_in_bare_seconds() -> None:
    """Durations in lists, such as ``schedules``, also have a unit."""
    items = [node["items"] for _, node in fields() if "properties" in node.get("items", {})]
    assert any("grace" in node["properties"] for node in items)
    wrong = [
        key for node in items for key, child in node["properties"].items() if isinstance(child.get("default"), float)
    ]
    assert wrong == []


def test_defaults_are_in_their_own_notation() -> None:
    """The schema's defaults have the user's notation, and loading them gives the defaults."""
    defaults = {".".join(path): node["default"] for path, node in fields()}
    assert defaults["broker.heartbeat"] == "10s"
    assert defaults["broker.url"] == "amqp://guest:guest@localhost:5672//"
    assert load(overrides=defaults, environ={}) == Settings()
    validator = jsonschema.Draft202012Validator(schema())
    for dotted, value in defaults.items():
        instance: Any = value
        for key in reversed(dotted.split(".")):
            instance = {key: instance}
        validator.validate(instance)


@pytest.mark.parametrize("text", ACCEPTED)
def test_schema_accepts_what_is_accepted(text: str) -> None:
    """The schema accepts everything that the loader accepts; otherwise editors would mark valid files."""
    jsonschema.Draft202012Validator(schema()).validate(yaml.safe_load(text))


@given(st.data())
def test_schema_is_no_stricter_than_the_loader(data: st.DataObject) -> None:
    """If the schema refuses a text, the loader refuses it too."""
    path, node = data.draw(st.sampled_from([item for item in fields() if not item[0][-1].endswith("_file")]))
    value = data.draw(st.text() | st.sampled_from(["10s", "1MiB", "0"]))
    if "string" in kinds(node) and not jsonschema.Draft202012Validator(node).is_valid(value):
        with pytest.raises(ConfigError):
            load(overrides={".".join(path): value}, environ={})


def test_schema_refuses_unknown_keys() -> None:
    """The schema also refuses misspelt keys."""
    misspelt = [text for text, _, message in REFUSED if "did you mean" in message]
    assert misspelt
    for text in misspelt:
        assert not jsonschema.Draft202012Validator(schema()).is_valid(yaml.safe_load(text))


def test_reference_is_up_to_date() -> None:
    """docs/configuration.md equals the output of `celery-monitor config reference`."""
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == markdown()


def test_reference_names_every_field() -> None:
    """Every field has a row in the reference, including those in lists."""
    rows = set(re.findall(r"^\| `([^`]+)` \|", markdown(), re.MULTILINE))
    of_channels = {f"channels[].{key}" for _, node in entries() for key in node["properties"]}
    of_lists = {f"{path}[].{key}" for path, node in lists().items() for key in node["properties"]}
    assert rows == {".".join(path) for path, _ in fields()} | of_lists | of_channels


def test_example_is_complete_and_right() -> None:
    """The example has every field, is valid, and equals the defaults except for its lists."""
    settings = load(EXAMPLE, environ={})
    document = yaml_file.read(EXAMPLE)
    of_lists = {f"{path}.{key}" for path, node in lists().items() for key in node["properties"]}
    assert keys(document) == {".".join(path) for path, _ in fields()} - lists().keys() | of_lists
    defaults = Settings()
    assert settings.model_copy(update={"alerts": defaults.alerts, "schedules": ()}) == defaults
    assert settings.alerts.model_copy(update={"rules": (), "mute": ()}) == defaults.alerts
