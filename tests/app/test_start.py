"""The daemon's log at its start, and its exit if the port is not available."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from celery_monitor.cli.run import stop_signals
from tests.servers.waiting import wait_until

KEY = "0123456789abcdef0123456789abcdef"


def environ(directory: Path, **settings: str) -> dict[str, str]:
    """A daemon without dependencies, on a free port of the loopback interface."""
    defaults = {"BROKER__URL": "memory://", "STORE__URL": f"sqlite:///{directory}/store.db", "WEB__HOST": "127.0.0.1"}
    given = {f"CELERY_MONITOR_{name}": text for name, text in ({**defaults, "WEB__PORT": "0"} | settings).items()}
    return os.environ | given


@contextmanager
def started(
    directory: Path, stop_signal: signal.Signals = signal.SIGTERM, **settings: str
) -> Iterator[dict[str, dict[str, Any]]]:
    """The log of a started daemon, by event; ``stop_signal`` ends it in order."""
    log = directory / "log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "celery_monitor", "run"]
        with hangups(signal.SIG_DFL):  # a test run in the background may ignore them, and its children with it
            process = subprocess.Popen(command, stderr=out, env=environ(directory, **settings))

    def lines() -> dict[str, dict[str, Any]]:
        whole = log.read_text().rpartition("\n")[0]
        return {line["event"]: line for line in map(json.loads, whole.splitlines())}

    try:
        wait_until(lambda: "Started" in lines(), 90, what="the start")
        yield lines()
    finally:
        process.send_signal(stop_signal)
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()


@contextmanager
def hangups(handler: signal.Handlers) -> Iterator[None]:
    """Ignore SIGHUP, or let it end this process and its children."""
    before = signal.signal(signal.SIGHUP, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_hangup_ends_the_daemon_unless_it_is_ignored() -> None:
    """As with nohup."""
    with hangups(signal.SIG_DFL):
        assert signal.SIGHUP in stop_signals()
    with hangups(signal.SIG_IGN):
        assert signal.SIGHUP not in stop_signals()


def test_the_log_says_what_runs_where(tmp_path: Path) -> None:
    """Version and address are logged when the port is open, and later the channels: here none."""
    with started(tmp_path) as lines:
        for event in ("Listening", "Started"):
            assert lines[event]["version"] == version("celery-monitor")
            assert httpx.get(f"http://{lines[event]['listen']}/livez", timeout=60, trust_env=False).status_code == 200
        assert list(lines).index("Listening") < list(lines).index("Started")
        assert lines["Started"]["channels"]["pagerduty"] == "off: no routing key is set"
        assert lines["Started"]["channels"]["email"] == "off: email.to is empty"


def test_the_log_says_whom_it_tells(tmp_path: Path) -> None:
    """Enabled PagerDuty and mail are logged without the key."""
    email = {"EMAIL__TO": "ops@example.com", "EMAIL__FROM": "m@example.com"}
    with started(tmp_path, signal.SIGHUP, PAGERDUTY__ROUTING_KEY=KEY, **email) as lines:
        assert lines["Started"]["channels"]["pagerduty"] == "on, 1 routing key"
        assert lines["Started"]["channels"]["email"] == "on, to ops@example.com at 0 8 * * * (UTC)"
        assert KEY not in json.dumps(lines)


def ended(directory: Path, **settings: str) -> tuple[int, str]:
    """The exit code and standard error of a daemon that does not start."""
    command = [sys.executable, "-m", "celery_monitor", "run"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=environ(directory, **settings)
    )
    return done.returncode, done.stderr


def test_a_taken_port_is_worth_another_try(tmp_path: Path) -> None:
    """It exits with 1, so service managers restart it, and says how to find out who uses the port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        code, output = ended(tmp_path, WEB__PORT=str(port))
    assert code == 1
    assert f"ss -ltnp 'sport = :{port}'" in output
    assert "configuration" not in output


def test_an_unknown_host_is_a_wrong_configuration(tmp_path: Path) -> None:
    """It exits with 2 and names web.host."""
    code, output = ended(tmp_path, WEB__HOST="192.0.2.1")
    assert code == 2
    assert "  web.host: cannot listen on 192.0.2.1" in output
