"""``celery-monitor config``."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from celery_monitor.cli import main
from celery_monitor.settings import Settings, load

KEY = "0123456789abcdef0123456789abcdef"


def invoke(*arguments: str, **environ: str | None) -> Result:
    """Run the command with these arguments and variables only."""
    cleared: dict[str, str | None] = {"CELERY_MONITOR_CONFIG": None}
    return CliRunner().invoke(main, ["config", *arguments], env={**cleared, **environ})


def test_check_of_a_valid_configuration(tmp_path: Path) -> None:
    """It exits with 0 and reports the broker, and whether it pages and mails."""
    file = tmp_path / "monitor.yaml"
    file.write_text(f"broker: {{url: 'redis://:p@h:1/0'}}\npagerduty: {{routing_key: {KEY!r}}}")
    result = invoke("check", "--config", str(file))
    assert result.exit_code == 0
    lines = [line.split(maxsplit=1) for line in result.output.splitlines()]
    assert lines[0] == ["configuration", "is valid"]
    lines_by_name = {line[0]: line[1] for line in lines[1:]}
    assert lines_by_name["file"] == str(file)
    assert lines_by_name["broker"] == "redis://:**@h:1/0"
    assert lines_by_name["pagerduty"] == "on, 1 routing key"
    assert lines_by_name["email"] == "off: email.to is empty"


def test_check_tells_of_mail() -> None:
    """With recipients it shows when and to whom the mail is sent; without routing keys, that nobody is paged."""
    result = invoke("check", CELERY_MONITOR_EMAIL__TO="a@example.com", CELERY_MONITOR_EMAIL__FROM="m@example.com")
    assert "on, to a@example.com at 0 8 * * * (UTC)" in result.output
    assert "off: no routing key is set" in result.output


def test_check_prints_every_problem(tmp_path: Path) -> None:
    """An invalid configuration exits with 2, with each problem on a separate line."""
    file = tmp_path / "monitor.yaml"
    file.write_text("web: {port: 70000}\nfoo: 1")
    result = invoke("check", "--config", str(file), CELERY_MONITOR_LOG__LEVEL="loud")
    assert result.exit_code == 2
    assert sorted(line.partition(":")[0] for line in result.output.splitlines()) == [
        "CELERY_MONITOR_LOG__LEVEL",
        "foo",
        "web.port",
    ]


@pytest.mark.parametrize("url", ["postgresql://u@h/d?no_such=1", "postgres://u:p%@h/d"])
def test_check_refuses_what_the_daemon_refuses_at_its_start(url: str) -> None:
    """Including errors that only the database driver detects, without connecting."""
    result = invoke("check", CELERY_MONITOR_STORE__URL=url)
    assert result.exit_code == 2
    assert result.output.startswith("store.url cannot be read")
    assert "p%" not in result.output


def test_check_warns_of_what_is_hardly_meant(tmp_path: Path) -> None:
    """A shadowed rule and a password in clear text are warnings; the configuration is valid."""
    file = tmp_path / "monitor.yaml"
    file.write_text(
        "alerts: {rules: [{name: rest}, {name: billing, match: ['shop.billing.*']}]}\n"
        "email: {security: none, username: u, password: hunter22}"
    )
    result = invoke("check", "--config", str(file))
    assert result.exit_code == 0
    warnings = [line for line in result.output.splitlines() if line.startswith("warning: ")]
    assert [warning.split(": ")[1] for warning in warnings] == ["alerts.rules[1]", "email.security"]
    assert "hunter22" not in result.output


@pytest.mark.parametrize("command", ["check", "show"])
def test_missing_file_exits_with_2(tmp_path: Path, command: str) -> None:
    """A missing configuration file is an error that names it."""
    result = invoke(command, "--config", str(tmp_path / "no.yaml"))
    assert result.exit_code == 2
    assert f"{tmp_path / 'no.yaml'}: cannot read the configuration: No such file" in result.output


def test_show_prints_what_is_in_effect() -> None:
    """YAML and JSON show the same effective values in the user's notation."""
    shown = yaml.safe_load(invoke("show", CELERY_MONITOR_BROKER__HEARTBEAT="120s").output)
    assert shown == json.loads(invoke("show", "--format", "json", CELERY_MONITOR_BROKER__HEARTBEAT="2m").output)
    assert shown["broker"]["heartbeat"] == "2m"
    assert shown["broker"]["queue"]["max_bytes"] == "256MiB"
    assert shown["email"]["from"] is None


def test_what_show_prints_can_be_loaded(tmp_path: Path) -> None:
    """The output is a configuration: without secrets it gives the same settings."""
    file = tmp_path / "monitor.yaml"
    file.write_text(invoke("show", CELERY_MONITOR_BROKER__URL="memory://").output)
    assert load(file, environ={}) == load(overrides={"broker.url": "memory://"}, environ={})
    assert load(file, environ={}) != Settings()


def test_schema_is_json() -> None:
    """The schema is printed as JSON and names its dialect."""
    assert json.loads(invoke("schema").output)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
