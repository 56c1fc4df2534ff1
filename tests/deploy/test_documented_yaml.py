"""Every YAML example of the documentation can be copied: the monitor, or the chart, accepts it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from celery_monitor.settings import Settings, load
from tests.deploy.conftest import CHART, ROOT, Template
from tests.deploy.test_chart import configuration

PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "README.md",
    CHART / "README.md",
    *sorted((ROOT / "deploy").glob("*/README.md")),
]
SECTIONS = {field.alias or name for name, field in Settings.model_fields.items()}
VALUES = set(yaml.safe_load((CHART / "values.yaml").read_text()))
FOREIGN = {"apiVersion", "route", "scrape_configs", "rule_files"}
"""Keys by which the files of other programs are known."""
KEY = "0123456789abcdef" * 2
SECRETS = {
    "routing_key_file": KEY,
    "webhook_url_file": "https://hooks.slack.com/services/T0/B0/x",
    "bot_token_file": "xoxb-1-2",
    "secret_file": "whsec_" + KEY,
    "url_file": "json://host.example",
    "password_file": "secret",
    "client_secret_file": KEY,
}
"""What is in the file that a field names."""
URLS = {"broker": "amqp://user:password@host:5672//", "store": "postgresql://user:password@host/db"}
"""The same of the url_file of a section."""


def examples() -> Iterator[tuple[str, dict[str, Any]]]:
    """Page, number and content of each block of YAML."""
    for page in PAGES:
        blocks = re.finditer(r"^( *)```ya?ml\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL)
        for number, block in enumerate(blocks, start=1):
            lines = (line.removeprefix(block[1]) for line in block[2].splitlines())
            yield f"{page.parent.name}-{page.stem}-{number}", yaml.safe_load("\n".join(lines))


EXAMPLES = list(examples())
CONFIGURATIONS = [(name, example) for name, example in EXAMPLES if set(example) <= SECTIONS]
OF_THE_CHART = [
    (name, example) for name, example in EXAMPLES if set(example) <= VALUES and not set(example) <= SECTIONS
]


def with_secrets(value: Any, directory: Path, section: str = "") -> Any:
    """The same configuration, with existing files instead of those that it names."""
    if isinstance(value, list):
        return [with_secrets(one, directory) for one in value]
    if not isinstance(value, dict):
        return value
    given = {name: with_secrets(one, directory, name) for name, one in value.items()}
    for name in value.keys() & SECRETS.keys():
        file = directory / f"{section}-{name}"
        file.write_text(URLS.get(section, SECRETS[name]) if name == "url_file" else SECRETS[name])
        given[name] = str(file)
    return given


def with_channels(config: dict[str, Any]) -> dict[str, Any]:
    """The same with the channels that it only names, as an example of a rule does."""
    channels, alerts = config.get("channels", []), config.get("alerts", {})
    routed = [alerts, *alerts.get("rules", []), *config.get("schedules", [])]
    known = {"pagerduty", *(channel["name"] for channel in channels)}
    wanted = dict.fromkeys(name for one in routed for name in one.get("to", []) if name not in known)
    more = [{"name": name, "type": "pagerduty", "routing_key": KEY} for name in wanted]
    return config | {"channels": [*channels, *more]}


def accepted(config: dict[str, Any], directory: Path) -> Settings:
    """The configuration as the monitor reads it. Raises ConfigError."""
    file = directory / "monitor.yaml"
    text = yaml.safe_dump(with_secrets(with_channels(config), directory))
    mail = "email:" not in text and "type: email" in text
    file.write_text(text + ("email: {host: mail.example, from: monitor@shop.example}\n" if mail else ""))
    return load(file, environ={})


def test_every_block_is_of_a_known_kind() -> None:
    """A mistyped section would exempt an example from all checks."""
    of_others = [name for name, example in EXAMPLES if set(example) & FOREIGN]
    assert len(CONFIGURATIONS) + len(OF_THE_CHART) + len(of_others) == len(EXAMPLES)
    assert len(CONFIGURATIONS) >= 12


@pytest.mark.parametrize(("name", "example"), CONFIGURATIONS, ids=[name for name, _ in CONFIGURATIONS])
def test_configurations(name: str, example: dict[str, Any], tmp_path: Path) -> None:
    """``config check`` reports no problem."""
    assert accepted(example, tmp_path).fleet, name


@pytest.mark.parametrize(("name", "example"), OF_THE_CHART, ids=[name for name, _ in OF_THE_CHART])
def test_values_of_the_chart(name: str, example: dict[str, Any], template: Template, tmp_path: Path) -> None:
    """Helm renders them, with the one required value added, and the monitor accepts the configuration."""
    values = tmp_path / "values.yaml"
    secrets = {"brokerUrl": {"existingSecret": "broker"}} | example.get("secrets", {})
    values.write_text(yaml.safe_dump(example | {"secrets": secrets}))
    assert accepted(yaml.safe_load(configuration(template(values))), tmp_path).fleet, name
