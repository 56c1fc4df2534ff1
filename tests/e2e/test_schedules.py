"""Schedules with a real celery beat, and silences with a real pager."""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Start
from tests.e2e.daemon import Daemon
from tests.e2e.paging import KEY, Failing, command, pager, publish, publish_events, reported_failures, succeeding
from tests.servers import CeleryWorker
from tests.servers.pagerduty import PagerDutyServer
from tests.servers.process import ServerProcess
from tests.servers.waiting import wait_until

_ROOT = Path(__file__).resolve().parents[2]


class Beat(ServerProcess):
    """celery beat with these entries: task → seconds."""

    ready_timeout = 120.0

    def __init__(self, directory: Path, broker_url: str, entries: Mapping[str, float]) -> None:
        super().__init__("beat", directory)
        self._broker_url = broker_url
        self._schedule = directory / "beat.db"
        self._conf = {
            "beat_schedule": {task: {"task": task, "schedule": every, "args": [0]} for task, every in entries.items()},
            "beat_max_loop_interval": 1,
        }

    def command(self) -> Sequence[str]:
        options = ["beat", "--loglevel", "INFO", "--schedule", str(self._schedule), "--pidfile", ""]
        return [sys.executable, "-m", "celery", "--app", "tests.fleet.app", *options]

    def environment(self) -> Mapping[str, str]:
        own = {"FLEET_BROKER_URL": self._broker_url, "FLEET_CONF": json.dumps(self._conf)}
        return {**os.environ, "PYTHONPATH": str(_ROOT), **own}

    def ready(self) -> bool:
        return b"beat: Starting" in self.log.read_bytes()


@pytest.fixture
def server() -> Iterator[PagerDutyServer]:
    """A simulated PagerDuty that knows one key."""
    with PagerDutyServer(keys={KEY}) as running:
        yield running


def incidents(daemon: Daemon) -> list[tuple[str, str]]:
    """Subject and state of each incident of a schedule, oldest first."""
    status, text = daemon.get("/api/v1/incidents?condition=missed")
    assert status == 200, text
    found: list[dict[str, Any]] = json.loads(text)["items"]
    return [(one["subject"], one["state"]) for one in sorted(found, key=lambda one: one["opened_at"])]


def runs(daemon: Daemon) -> list[int]:
    """The number of known runs of each schedule."""
    return [len(one["runs"]) for one in json.loads(daemon.get("/api/v1/schedules")[1])["items"]]


@pytest.mark.campaign
def test_beat_is_stopped_and_an_entry_is_removed(
    broker_url: str, server: PagerDutyServer, start: Start, tmp_path: Path
) -> None:
    """One incident for the entry that is gone; one for the scheduler when nothing runs; both resolve.

    The monitor is killed while a task is missing and while all run: nothing opens twice, and nothing opens falsely.
    """
    daemon = pager(tmp_path, broker_url, server, {"broker": {"probe_interval": "1s"}})
    schedules = [{"task": task, "every": "2s", "grace": "6s"} for task in ("fleet.succeed", "fleet.sleep")]
    daemon.settings["schedules"] = schedules  # type: ignore[assignment]
    start(daemon)
    start(CeleryWorker(tmp_path, broker_url, concurrency=1))
    daemon.until_ready()
    both = {"fleet.succeed": 2.0, "fleet.sleep": 2.0}
    beat = start(Beat(tmp_path, broker_url, both))
    wait_until(lambda: min(runs(daemon)) > 2, 60, what="runs of both")
    before = len(incidents(daemon))
    beat.stop()
    silent = ("scheduler", "open")
    wait_until(lambda: incidents(daemon)[before:] == [silent], 60, what="the scheduler is silent")
    daemon.kill()
    daemon.start()
    daemon.until_ready()
    beat = start(Beat(tmp_path / "less", broker_url, {"fleet.sleep": 2.0}))
    missing = [("scheduler", "resolved"), ("fleet.succeed", "open")]
    wait_until(lambda: incidents(daemon)[before:] == missing, 60, what="one entry is missing")
    beat.stop()
    start(Beat(tmp_path / "again", broker_url, both))
    over = [("scheduler", "resolved"), ("fleet.succeed", "resolved")]
    wait_until(lambda: incidents(daemon)[before:] == over, 60, what="both run again")
    assert daemon.metric("schedule_missed_total", schedule="fleet.succeed") >= 2
    assert time.time() - daemon.metric("schedule_last_run_timestamp_seconds", schedule="fleet.sleep") < 60


def test_a_silence_ends_while_the_condition_holds(
    rabbitmq_url: str, server: PagerDutyServer, start: Start, tmp_path: Path
) -> None:
    """It pages then, once, also across a kill of the daemon; a task that has recovered does not."""
    daemon = start(pager(tmp_path, rabbitmq_url, server, {"broker": {"probe_interval": "1s"}}))
    daemon.until_ready()
    added = command(daemon, "silence", "add", "shop.*", "--for", "1h", "--reason", "deploy 4711")
    silence = added.output.split()[1]
    wait_until(lambda: daemon.metric("monitor_silences_active", kind="silence") == 1, 30, what="the silence")
    now = time.time()
    publish(rabbitmq_url, [Failing("shop.broken", now), Failing("shop.well", now), Failing("other.task", now)])
    publish_events(rabbitmq_url, succeeding("shop.well", now + 0.5))
    wait_until(lambda: daemon.metric("monitor_silenced_failures_total") == 2, 30, what="two silenced failures")
    wait_until(
        lambda: [key.split("/")[0] for key in reported_failures(server)] == ["other.task"],
        30,
        what="the other task pages",
    )
    daemon.kill()
    daemon.start()
    daemon.until_ready()
    assert daemon.metric("monitor_silences_active", kind="silence") == 1
    assert command(daemon, "silence", "end", silence).exit_code == 0
    wait_until(lambda: len(reported_failures(server)) == 2, 60, what="the page of the task that still fails")
    assert sorted(key.split("/")[0] for key in reported_failures(server)) == ["other.task", "shop.broken"]
    assert set(server.opened().values()) == {1}
    assert daemon.metric("monitor_incidents_total", reason="silenced") == 1
