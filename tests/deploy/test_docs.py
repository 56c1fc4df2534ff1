"""The pages on installing and operating: what they name exists."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from celery_monitor.cli import main
from celery_monitor.settings import Settings
from tests.deploy.conftest import CHART, ROOT
from tests.deploy.test_dashboards import METRICS

NAMED = ("install", "upgrade", "security", "migration", "sizing", "runbook", "mail", "pagerduty", "conditions")
PAGES = [
    *(ROOT / "docs" / f"{name}.md" for name in NAMED),
    ROOT / "README.md",
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


NAMES = "run|config|report|notify|outbox|doctor|events|healthcheck"
COMMAND_LINES = re.compile(rf"(?:^|[ `/])celery-monitor ((?:{NAMES})\b[^`|&;#\n]*)", re.MULTILINE)


@each_page
def test_commands_are_understood(page: Path) -> None:
    """Each command line that is shown has a command and options that the program knows."""
    text = page.read_text().replace("\\\n", " ")
    for line in COMMAND_LINES.findall(text):
        name, *arguments = shlex.split(line)
        parse(main, name, arguments)


def parse(group: click.Group, name: str, arguments: list[str]) -> None:
    """Fails for what the command does not take."""
    command = group.get_command(click.Context(group), name)
    assert command is not None, name
    if isinstance(command, click.Group):
        if arguments:
            parse(command, arguments[0], arguments[1:])
        return
    # As below the program's own context: a command keeps the help option of its first one.
    command.make_context(name, arguments, parent=click.Context(main, **main.context_settings))


def test_systemd_s_environment_is_the_command_s(tmp_path: Path) -> None:
    """The documented line gives a command the unit's environment and the daemon's directory."""
    page = (ROOT / "docs" / "install.md").read_text()
    line = re.search(r"^sudo (env --chdir=.*?systemctl.*?)$", page.replace("\\\n", " "), re.MULTILINE)
    assert line is not None
    systemctl = tmp_path / "systemctl"
    systemctl.write_text("#!/bin/sh\necho CELERY_MONITOR_FLEET=shop CELERY_MONITOR_BROKER__URL=memory://\n")
    systemctl.chmod(0o755)
    command = line[1].replace("/var/lib/celery-monitor", str(tmp_path)).replace("doctor", "config check")
    command = command.replace("/opt/celery-monitor/bin/celery-monitor", f"{sys.executable} -m celery_monitor")
    environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", command], env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"fleet +shop\n +reads +memory://", done.stdout)


def test_readme_leads_to_every_page() -> None:
    """The table of documents has each of them."""
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)\)", (ROOT / "README.md").read_text()))
    assert linked == {page.name for page in (ROOT / "docs").glob("*.md")}


def test_runbook_links_get_an_address(tmp_path: Path) -> None:
    """The documented line makes the links of all alerts absolute, and leaves valid rules."""
    copy = tmp_path / "alerts.rules.yml"
    copy.write_text((ROOT / "deploy" / "prometheus" / copy.name).read_text())
    line = re.search(r"^sed -i .*$", (ROOT / "docs" / "install.md").read_text(), re.MULTILINE)
    assert line is not None
    subprocess.run(shlex.split(line[0]), cwd=tmp_path, check=True)
    rules = [rule for group in yaml.safe_load(copy.read_text())["groups"] for rule in group["rules"]]
    links = {rule["annotations"]["runbook_url"].partition("#")[0] for rule in rules}
    assert links == {"https://git.example.com/ops/celery-monitor/blob/main/docs/runbook.md"}


@each_page
def test_paths_exist(page: Path) -> None:
    """Each path below deploy/, helm/ or docs/ that is named is there."""
    named = re.findall(r"(?<![\w/.])((?:deploy|helm|docs)/[\w./-]*\w)", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []
