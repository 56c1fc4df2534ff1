"""What the monitor does to a fleet: nothing that any worker or client trips over, and nothing that stays."""

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Connection

from tests.conftest import Start
from tests.servers import CeleryWorker, wait_until

_STEPS = list(range(10))
_OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "priorities": {"sep": ":", "priority_steps": _STEPS, "queue_order_strategy": "priority"},
    "prefix": {"global_keyprefix": "shop:"},
    "plain": {"fanout_prefix": False, "fanout_patterns": False, "visibility_timeout": 43_200},
}
_KILLED = """
import sys, json
from celery_monitor.adapters.clock import SystemClock
from celery_monitor.runtime.prober import Prober
from celery_monitor.adapters.broker import BrokerFleet, BrokerProbe
from celery_monitor.settings.broker import BrokerSettings
settings = BrokerSettings.model_validate(json.loads(sys.argv[1]))
fleet = BrokerFleet(settings, ["fleet"])
prober = Prober(BrokerProbe(settings), SystemClock(), 0.1)
while True:
    prober.probe()
    fleet.enable_events(0.05)
    fleet.tasks(0.05)
    fleet.queues(0.05, 1.0)
    print("round", flush=True)
"""


def killed(url: str, *each: dict[str, Any]) -> None:
    """Monitors, one with each of these settings, ask their questions, and die in the middle of them."""
    command = [sys.executable, "-c", _KILLED]
    with ExitStack() as running:
        processes = [
            running.enter_context(
                subprocess.Popen([*command, json.dumps({"url": url} | fields)], stdout=subprocess.PIPE, text=True)
            )
            for fields in each
        ]
        for process in processes:
            assert process.stdout is not None
            for _ in range(3):
                assert process.stdout.readline() == "round\n"
            os.kill(process.pid, signal.SIGKILL)


def trouble(directory: Path) -> list[str]:
    """Lines of the workers' logs that somebody would be woken up for."""
    lines = [line for log in directory.rglob("*.log") for line in log.read_text().splitlines()]
    return [line for line in lines if any(word in line for word in ("ERROR", "CRITICAL", "Traceback"))]


def worker(directory: Path, url: str, hostname: str, *, events: bool = True, **conf: Any) -> CeleryWorker:
    """One with this configuration."""
    return CeleryWorker(
        directory / hostname,
        url,
        hostname=hostname,
        events=events,
        pool="solo",
        settings={"FLEET_CONF": json.dumps(conf)},
    )


def pinged(url: str, options: dict[str, Any]) -> set[str]:
    """Who answers ``celery inspect ping``."""
    with Celery(broker=url) as app:
        app.conf.update(broker_transport_options=options)
        return set(app.control.inspect(timeout=1.0).ping() or ())


@pytest.mark.parametrize("theirs", _OPTIONS)
def test_fleets_with_options_on_redis(redis_url: str, theirs: str, start: Start, tmp_path: Path) -> None:
    """Monitors with the same options and with others leave remote control as it was, and nothing behind when killed."""
    options = _OPTIONS[theirs]
    start(worker(tmp_path, redis_url, "one", broker_transport_options=options))
    wait_until(lambda: pinged(redis_url, options), 60)
    with Connection(redis_url) as connection:
        client = connection.default_channel.client
        before = {key for key in client.keys("*") if b"pidbox" not in key or b"binding" in key}
        bindings = {key: client.smembers(key) for key in before if client.type(key) == b"set"}
        other = _OPTIONS["none" if options else "priorities"]
        killed(redis_url, {"transport_options": options}, {"transport_options": other})
        after = set(client.keys("*"))
        left = {key for key in after - before if client.pttl(key) < 0}
        assert [key for key in left if not key.endswith(b".pidbox")] == []
        assert {key: client.smembers(key) for key in bindings} == bindings
    wait_until(lambda: pinged(redis_url, options) == {"celery@one"}, 60)
    assert trouble(tmp_path) == []
