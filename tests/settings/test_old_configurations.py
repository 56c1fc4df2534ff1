"""Configurations of earlier releases keep their meaning. The files are unchanged copies."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from celery_monitor.core.model import Condition
from celery_monitor.policy import limits_of
from celery_monitor.settings import Settings, load, schema

DIRECTORY = Path(__file__).resolve().parents[1] / "data" / "configurations"
FILES = sorted(DIRECTORY.glob("*.yaml"))


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Dotted path → value in a file."""
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from leaves(part, (*path, str(name)))
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for number, part in enumerate(value):
            yield from leaves(part, (*path, str(number)))
    else:
        yield ".".join(path), value


def test_there_are_some() -> None:
    """The examples of the releases, and configurations that set nearly everything."""
    assert len(FILES) >= 4


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_is_accepted(file: Path) -> None:
    """Every field is read with its value; failures page only through PagerDuty, and nothing else opens incidents."""
    settings = load(file, environ={})
    found = dict(leaves(json.loads(settings.model_dump_json(by_alias=True))))
    given = dict(leaves(yaml.safe_load(file.read_text())))
    unknown = [path for path, value in given.items() if path not in found and value not in ({}, [])]
    assert unknown == []
    same = {path for path, value in given.items() if found.get(path) == value}
    assert len(same) > len(given) / 2  # the others are durations, sizes and secrets
    policy = limits_of(settings).policy
    assert {rule.on for rule in policy.rules} <= {Condition.FAILURE}
    assert {name for rule in (*policy.rules, policy.default) for name in rule.to} <= {"pagerduty"}
    keyed = settings.pagerduty.routing_key_source().get() is not None
    assert policy.default.to == (("pagerduty",) if keyed else ())


def test_defaults_are_as_they_were() -> None:
    """The defaults equal those of 0.2.0, except for those listed here; no field has disappeared."""
    old: dict[str, Any] = json.loads((DIRECTORY / "0.2.0-defaults.json").read_text())
    # Counters may be a second old instead of half a one, for 2 µs of CPU time less per event.
    old["store.flush_interval"] = "1s"
    now = {".".join(path): node.get("default", "(required)") for path, node in schema.fields()}
    assert {path: now.get(path) for path in old} == old
    assert Settings().channels == ()
