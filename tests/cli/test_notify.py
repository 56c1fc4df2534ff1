"""``celery-monitor notify``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from celery_monitor.cli import main
from tests.adapters.channels.email.mail_server import MailServer, serving
from tests.servers.pagerduty import Behaviour, PagerDutyServer
from tests.servers.ports import free_port

KEY = "0123456789abcdef0123456789abcdef"
OWN = "fedcba9876543210fedcba9876543210"


@pytest.fixture
def server() -> Iterator[PagerDutyServer]:
    """A simulated PagerDuty with two services."""
    with PagerDutyServer(keys={KEY, OWN}) as running:
        yield running


def invoke(tmp_path: Path, *arguments: str, **settings: Any) -> Result:
    """The command with this configuration."""
    file = tmp_path / "monitor.yaml"
    file.write_text(yaml.safe_dump({"fleet": "shop"} | settings))
    return CliRunner().invoke(main, ["notify", "test", *arguments, "--config", str(file)])


def test_opens_and_resolves_one_marked_incident(server: PagerDutyServer, tmp_path: Path) -> None:
    """The test incident is marked as a test, is resolved immediately, and the answers are printed."""
    result = invoke(tmp_path, "pagerduty", pagerduty={"routing_key": KEY, "url": server.url})
    assert result.exit_code == 0
    assert [request.action for request in server.received] == ["trigger", "resolve"]
    assert server.violations == []
    (alert,) = server.alerts.values()
    assert (alert.opened, alert.open) == (1, False)
    payload = server.received[0].event["payload"]
    assert (payload["summary"], payload["severity"]) == ("[shop] Test from celery-monitor: nothing failed", "info")
    lines = result.output.splitlines()
    assert lines[0].startswith(f"{server.url} accepted the test incident {server.received[0].key}")
    assert lines[1] == f"{server.url} accepted its resolution"
    assert KEY not in result.output


def test_each_test_is_an_incident_of_its_own(server: PagerDutyServer, tmp_path: Path) -> None:
    """Two tests open two incidents."""
    for _ in range(2):
        invoke(tmp_path, "pagerduty", pagerduty={"routing_key": KEY, "url": server.url})
    assert len(server.opened()) == 2


def test_a_rule_with_a_key_of_its_own(server: PagerDutyServer, tmp_path: Path) -> None:
    """--rule tests the service of that rule."""
    rules = [{"name": "billing", "routing_key": OWN}, {"name": "rest"}]
    settings = {"pagerduty": {"routing_key": KEY, "url": server.url}, "alerts": {"rules": rules}}
    assert invoke(tmp_path, "pagerduty", "--rule", "billing", **settings).exit_code == 0
    assert {request.event["routing_key"] for request in server.received} == {OWN}
    refused = invoke(tmp_path, "pagerduty", "--rule", "rest", **settings)
    assert refused.exit_code == 2
    assert "no rule 'rest' has a routing key of its own (rules with one: billing)" in refused.output


def test_a_refusal_is_printed_and_exits_with_1(server: PagerDutyServer, tmp_path: Path) -> None:
    """When the key is wrong the answer is shown, without the key."""
    wrong = "w" * 32
    result = invoke(tmp_path, "pagerduty", pagerduty={"routing_key": wrong, "url": server.url})
    assert result.exit_code == 1
    assert "PagerDuty responded with 400" in result.output
    assert "Invalid routing key" in result.output
    assert wrong not in result.output


def test_a_resolve_that_fails_is_told(server: PagerDutyServer, tmp_path: Path) -> None:
    """If the incident was opened and not resolved, the output names it and the remedy."""
    server.script(Behaviour(), Behaviour.status(503))
    result = invoke(tmp_path, "pagerduty", pagerduty={"routing_key": KEY, "url": server.url})
    assert result.exit_code == 1
    assert f"{server.received[0].key} (severity info), but did not resolve it: resolve it by hand" in result.output


@pytest.mark.parametrize("channel", ["pagerduty", "email"])
def test_a_server_that_is_not_there(tmp_path: Path, channel: str) -> None:
    """A refused connection is reported with host and port, without errno, and with what to check."""
    port = free_port()
    email = {"host": "127.0.0.1", "port": port, "security": "none", "from": "m@shop.example", "to": ["a@shop.example"]}
    settings = {"pagerduty": {"routing_key": KEY, "url": f"http://127.0.0.1:{port}"}, "email": email}
    result = invoke(tmp_path, channel, **settings)
    assert result.exit_code == 1
    assert f"127.0.0.1:{port}" in result.output
    assert (
        "Connection refused: nothing is listening there, or a firewall rejects the connection: check that the "
        "server is running, and " in result.output
    )
    assert {"pagerduty": "HTTPS_PROXY or pagerduty.url", "email": "email.host"}[channel] in result.output
    assert "Errno" not in result.output


def test_a_mail_that_some_recipients_refuse(tmp_path: Path) -> None:
    """Exit code 1, each refusal with the server's answer, and the others have the mail."""
    people = [f"p{number}@shop.example" for number in range(8)]
    with serving(MailServer()) as mail:
        mail.refusals = {who: f"550 5.1.1 no mailbox of {who}" for who in people[:5]}
        email = {"host": "127.0.0.1", "port": mail.port, "security": "none", "from": "m@shop.example", "to": people}
        result = invoke(tmp_path, "email", email=email)
        assert [recipients for recipients, _ in mail.mails] == [people[5:]]
        assert result.exit_code == 1
        assert all(f"refused {who}: 550 5.1.1 no mailbox of {who}" in result.output for who in people[:5])
        mail.refusals = {}
        assert invoke(tmp_path, "email", email=email).exit_code == 0


def test_without_a_routing_key(tmp_path: Path) -> None:
    """Without a routing key there is nothing to test: exit code 2, and the setting to change."""
    result = invoke(tmp_path, "pagerduty")
    assert result.exit_code == 2
    assert "pagerduty.routing_key: is not set" in result.output


def test_usage(tmp_path: Path) -> None:
    """Unknown channels, and --rule for mail, are usage errors."""
    assert invoke(tmp_path, "pager").exit_code == 2
    assert invoke(tmp_path, "email", "--rule", "billing").exit_code == 2


def test_mail_without_recipients(tmp_path: Path) -> None:
    """The error names the setting."""
    result = invoke(tmp_path, "email")
    assert result.exit_code == 2
    assert "email.to: must be set, together with email.from" in result.output
