"""The documentation of installation and operation: everything that it names exists."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import click
import pytest
import yaml

from celery_monitor.adapters.prometheus.families import FAMILIES
from celery_monitor.adapters.web.audience import OPEN_PATHS
from celery_monitor.adapters.web.openapi import document
from celery_monitor.cli import main
from celery_monitor.settings import Settings
from tests.deploy.conftest import CHART, ROOT

PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
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
    named = [name for name in named if name.split(".")[0] in heads and not name.endswith((".yaml", ".py"))]
    wrong = [name for name in named if not (is_setting(name) or is_value(name))]
    assert wrong == []


@each_page
def test_switches_of_the_chart_exist(page: Path) -> None:
    """Each ``NAME.enabled`` in code style is a value of the chart."""
    named = re.findall(r"`([a-zA-Z]+(?:\.[a-zA-Z]+)*\.enabled)(?:[:=][^`]*)?`", page.read_text())
    assert [name for name in named if not is_value(name)] == []


@each_page
def test_metrics_exist(page: Path) -> None:
    """Each named metric is exported by the program."""
    bases = {f"celery_{name}" for family in FAMILIES for name in (family.name, family.sample)}
    schema = {"celery_monitor_shop", "celery_monitor_billing", "celery_monitor_session"}  # and the cookie
    named = re.findall(r"\bcelery_(?:monitor|task|worker|queue|active)_\w+", page.read_text())
    named = [re.sub(r"_(bucket|sum|count)$", "", name) for name in named if name not in bases | schema]
    assert [name for name in named if name not in bases] == []


CODE = re.compile(r"^ *```\w*$\n(.*?)^ *```$|`([^`\n]+)`", re.MULTILINE | re.DOTALL)


COMMAND = re.compile(r"(?:^|\$ |-- |\bexec \S+ |/bin/|`)celery-monitor +([a-z][^`|&;#\n]*)")
# What stands for something in a command line, and an example of it.
PLACEHOLDERS = {"YYYY-MM-DD": "2026-11-26", "ID": "1", "URL": "sqlite://"}


def commands(page: Path) -> list[list[str]]:
    """The command lines of the program on the page, without the program's name."""
    code = CODE.findall(page.read_text().replace("\\\n", " "))
    lines = [line.strip() for block, inline in code for line in (block or inline).splitlines()]
    found = [shlex.split(match[1]) for line in lines for match in COMMAND.finditer(line)]
    return [[PLACEHOLDERS.get(word, word) for word in words if word != "…"] for words in found]


@each_page
def test_commands_are_understood(page: Path) -> None:
    """Each shown command line has an existing command and options."""
    for name, *arguments in commands(page):
        parse(main, name, arguments)


def test_commands_are_found() -> None:
    """The pages show nearly every command, so the search for them works."""
    shown = {name for page in PAGES for name, *_ in commands(page)}
    assert {"config", "doctor", "notify", "outbox", "report", "run", "schedules", "silence", "store"} <= shown


ARGUMENT_OF_CURL = {"-u", "-H", "-d", "-X", "-o"}


def requests_of(page: Path) -> list[tuple[str, str]]:
    """Method and URL of each curl request on the page."""
    found = []
    for block, inline in CODE.findall(page.read_text().replace("\\\n", " ")):
        for line in re.findall(r"^(?:\$ )?(curl .*)$", block or inline, re.MULTILINE):
            _, *words = shlex.split(line)
            options = {word: words[at + 1] for at, word in enumerate(words[:-1]) if word in ARGUMENT_OF_CURL}
            urls = [word for word in words if not word.startswith("-") and word not in options.values()]
            assert len(urls) == 1, line
            found.append((options.get("-X", "POST" if "-d" in options else "GET"), urls[0]))
    return found


@each_page
def test_requests_are_answered(page: Path) -> None:
    """Each shown request has an existing path and parameters."""
    paths = document()["paths"]
    for method, url in requests_of(page):
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.path in OPEN_PATHS:
            continue
        pattern = {path: re.sub(r"\{\w+\}", "[^/]+", path) for path in paths}
        known = [path for path, regex in pattern.items() if re.fullmatch(regex, parts.path)]
        assert known, url
        operation = paths[known[0]].get(method.lower())
        assert operation is not None, (method, url)
        parameters = {parameter["name"] for parameter in operation.get("parameters", ())}
        assert set(parse_qs(parts.query, strict_parsing=bool(parts.query))) <= parameters, url


def test_requests_are_found() -> None:
    """The pages read, add and end something by curl, so the search for requests works."""
    assert {method for page in PAGES for method, _ in requests_of(page)} == {"GET", "POST", "DELETE"}


def parse(group: click.Group, name: str, arguments: list[str]) -> None:
    """Fails if the command does not accept the arguments."""
    command = group.get_command(click.Context(group), name)
    assert command is not None, name
    if isinstance(command, click.Group):
        if arguments:
            parse(command, arguments[0], arguments[1:])
        return
    # As below the program's own context: a command keeps the help option of its first one.
    with contextlib.suppress(click.MissingParameter):  # a text may name a command without what it needs
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
    assert re.search(r"fleet +shop\n +broker +memory://", done.stdout)


def test_readme_leads_to_every_page() -> None:
    """Its table of documents has each page."""
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)\)", (ROOT / "README.md").read_text()))
    assert linked == {page.name for page in (ROOT / "docs").glob("*.md")}


def test_runbook_links_get_an_address(tmp_path: Path) -> None:
    """The documented line makes the links of all alerts absolute, and the rules stay valid."""
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
    """Each named path below deploy/, helm/ or docs/ exists."""
    named = re.findall(r"(?<![\w/.])((?:deploy|helm|docs)/[\w./-]*\w)", page.read_text())
    named = [path for path in named if path != "deploy/celery-monitor"]  # kubectl's name of a Deployment
    assert [path for path in named if not (ROOT / path).exists()] == []
