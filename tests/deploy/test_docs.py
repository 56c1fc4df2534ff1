"""The pages on installing and operating: what they name exists."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from celery_monitor.settings import Settings
from tests.deploy.conftest import CHART, ROOT
from tests.deploy.test_dashboards import METRICS

PAGES = [
    *(ROOT / "docs" / f"{name}.md" for name in ("install", "upgrade", "security", "migration", "sizing")),
    *(ROOT / "deploy").glob("*/README.md"),
    CHART / "README.md",
]
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = Settings.model_json_schema()

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: f"{path.parent.name}-{path.stem}")


def is_setting(dotted: str) -> bool:
    """Whether the configuration has this field or section."""
    node = SCHEMA
    for name in dotted.replace("[]", "").split("."):
        properties = node.get("properties", {})
        if name not in properties:
            return False
        node = properties[name]
        node = node.get("items", node)
        if reference := node.get("$ref"):
            node = SCHEMA["$defs"][reference.rpartition("/")[2]]
    return True


def is_value(dotted: str) -> bool:
    """Whether the chart has this value."""
    first, _, rest = dotted.partition(".")
    if first == "config" and rest:
        return is_setting(rest)
    node: Any = VALUES
    for name in dotted.split("."):
        if name == "*":
            return isinstance(node, dict)
        if not isinstance(node, dict) or name not in node:
            return False
        node = node[name]
    return True


@each_page
def test_links_lead_to_files(page: Path) -> None:
    """Each relative link leads to a file of the project."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@each_page
def test_settings_and_values_exist(page: Path) -> None:
    """Each dotted name in code style that begins like a setting or a value is one."""
    named = re.findall(r"`([a-zA-Z_]+(?:\.[a-zA-Z_*\[\]]+)+)(?:[:=][^`]*)?`", page.read_text())
    heads = SCHEMA["properties"].keys() | VALUES.keys()
    named = [name for name in named if name.split(".")[0] in heads and not name.endswith(".yaml")]
    wrong = [name for name in named if not (is_setting(name) or is_value(name))]
    assert wrong == []


@each_page
def test_metrics_exist(page: Path) -> None:
    """Each metric that is named is one that the program exports."""
    bases = METRICS | {re.sub(r"_(bucket|sum|count)$", "", name) for name in METRICS}
    named = re.findall(r"\bcelery_(?:monitor|task|worker|queue|active)_\w+", page.read_text())
    assert [name for name in named if name not in bases] == []


@each_page
def test_paths_exist(page: Path) -> None:
    """Each path below deploy/, helm/ or docs/ that is named is there."""
    named = re.findall(r"(?<![\w/.])((?:deploy|helm|docs)/[\w./-]*\w)", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []
