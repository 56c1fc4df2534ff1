"""The systemd unit: valid and hardened."""

import subprocess
import sys
from pathlib import Path

from celery_monitor.settings import load
from tests.deploy.conftest import ROOT
from tests.servers.process import require

UNIT = ROOT / "deploy" / "systemd" / "celery-monitor.service"
PROGRAM = "/opt/celery-monitor/bin/celery-monitor"


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, which works without a running systemd."""
    command = [require("systemd-analyze"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def settings_of_unit(name: str) -> list[str]:
    """The values of a key of the unit."""
    lines = UNIT.read_text().splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")]


def test_unit_is_understood(tmp_path: Path) -> None:
    """Systemd accepts every key and value of the unit."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(PROGRAM, sys.executable))
    done = analyze("verify", "--man=no", str(copy))
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if UNIT.name in line]
    assert not complaints


def test_unit_is_hardened() -> None:
    """Systemd rates its exposure at most 1.5 of 10."""
    done = analyze("security", "--offline=true", "--threshold=15", str(UNIT))
    assert done.returncode == 0, done.stdout[-300:]


def test_environment_is_of_settings(tmp_path: Path) -> None:
    """The unit's environment variables are existing settings."""
    pairs = dict(text.split("=", 1) for text in settings_of_unit("Environment"))
    secret = tmp_path / "broker-url"
    secret.write_text("redis://:password@host/0")
    environ = {name: value.replace("%d", str(tmp_path)) for name, value in pairs.items()}
    del environ["CELERY_MONITOR_CONFIG"]
    assert load(environ=environ).broker.url_file == secret


def test_a_wrong_configuration_is_not_tried_again() -> None:
    """Exit code 2, a configuration error, stops the service; every other exit restarts it."""
    assert settings_of_unit("Restart") == ["always"]
    assert settings_of_unit("StartLimitIntervalSec") == ["0"]
    assert settings_of_unit("RestartPreventExitStatus") == ["2"]
