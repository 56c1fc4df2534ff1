"""The alert rules, checked with Prometheus's own tool; and each alert has a section in the runbook."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers.process import require

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus"
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()


def alerts() -> list[dict[str, Any]]:
    """All alerts of all files."""
    files = [yaml.safe_load(path.read_text()) for path in sorted(RULES.glob("*.rules.yml"))]
    return [rule for file in files for group in file["groups"] for rule in group["rules"] if "alert" in rule]


def promtool(*arguments: str) -> None:
    """Run promtool; fails with its output."""
    # Go's collector would be a quarter of its work: it makes much garbage on a small heap.
    environment = os.environ | {"GOGC": "1000"}
    command = [require("promtool"), *arguments]
    done = subprocess.run(command, cwd=RULES, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_valid() -> None:
    """Prometheus accepts them, also with its lint."""
    promtool("check", "rules", "--lint=all", "--lint-fatal", *(path.name for path in sorted(RULES.glob("*.rules.yml"))))


@pytest.mark.timeout(600)  # it computes for 10 s already on a good machine
def test_the_alerts_fire_when_they_should() -> None:
    """According to the cases of alerts.test.yml."""
    promtool("test", "rules", "alerts.test.yml")


def test_every_alert_is_tested() -> None:
    """There is a case in which it fires."""
    text = yaml.safe_load((RULES / "alerts.test.yml").read_text())
    cases = [case for test in text["tests"] for case in test.get("alert_rule_test", ())]
    firing = {case["alertname"] for case in cases if case["exp_alerts"]}
    assert firing == {alert["alert"] for alert in alerts()}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_every_alert_says_what_to_do(alert: dict[str, Any]) -> None:
    """Summary, description, severity, and a section of the runbook with meaning, checks and remedy."""
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert {"summary", "description", "runbook_url"} <= alert["annotations"].keys()
    anchor = alert["annotations"]["runbook_url"].removeprefix("docs/runbook.md#")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))
    assert anchor == alert["alert"].lower()
    for part in ("**Meaning.**", "**Checks.**", "**Remedy.**"):
        assert part in sections[alert["alert"]]
