"""The monitor's effect on a fleet: no worker or client fails, and nothing remains."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import Celery
from kombu import Connection

from celery_monitor.adapters.broker import BrokerFleet
from celery_monitor.core.model import Delivery, Restored
from celery_monitor.core.monitor import Limits, Monitor
from celery_monitor.runtime import fleet as module
from celery_monitor.runtime.fleet import FleetPoller
from tests.adapters.fleet.conftest import settings
from tests.builders import NOON, body
from tests.conftest import Start
from tests.fakes import ManualClock
from tests.servers import CeleryWorker, RabbitMQ, wait_until

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
    """Monitors with each of these settings, killed during their queries."""
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
    """Lines of the workers' logs that would alarm somebody."""
    lines = [line for log in directory.rglob("*.log") for line in log.read_text().splitlines()]
    return [line for line in lines if any(word in line for word in ("ERROR", "CRITICAL", "Traceback"))]


def worker(directory: Path, url: str, hostname: str, *, events: bool = True, **conf: Any) -> CeleryWorker:
    """A worker with this configuration."""
    return CeleryWorker(
        directory / hostname,
        url,
        hostname=hostname,
        events=events,
        pool="solo",
        settings={"FLEET_CONF": json.dumps(conf), "C_FORCE_ROOT": "1"},
    )


def pinged(url: str, options: dict[str, Any]) -> set[str]:
    """The workers that answer ``celery inspect ping``."""
    with Celery(broker=url) as app:
        app.conf.update(broker_transport_options=options)
        return set(app.control.inspect(timeout=1.0).ping() or ())


@pytest.mark.parametrize("theirs", _OPTIONS)
def test_fleets_with_options_on_redis(redis_url: str, theirs: str, start: Start, tmp_path: Path) -> None:
    """Monitors with the same or other options do not affect remote control, and leave nothing behind when killed."""
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


def test_replies_after_the_end_do_not_stay_on_redis(redis_url: str) -> None:
    """After a short-lived client like ``doctor``, late answers of a busy worker expire."""
    fleet = BrokerFleet(settings(redis_url))
    fleet.ping(0.01)
    with Connection(redis_url) as connection:
        client = connection.default_channel.client
        [key] = client.keys("*.reply.celery.pidbox")
        fleet.close()
        client.lpush(key, "an answer")
        assert client.pttl(key) > 0


def test_the_monitor_is_killed_on_rabbitmq(rabbitmq: RabbitMQ, rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """Its reply queue is deleted, and remote control is not affected."""
    vhost = urlsplit(rabbitmq_url).path.removeprefix("/")
    start(worker(tmp_path, rabbitmq_url, "one"))
    wait_until(lambda: pinged(rabbitmq_url, {}), 60)

    def ours() -> set[str]:
        return {name for name in rabbitmq.queues(vhost) if name.endswith(".reply.celery.pidbox")}

    wait_until(lambda: not ours(), 60)
    killed(rabbitmq_url, {})
    wait_until(lambda: not ours(), 60)
    wait_until(lambda: pinged(rabbitmq_url, {}) == {"celery@one"}, 60)
    assert trouble(tmp_path) == []


def test_workers_that_take_pickle_only(broker_url: str, start: Start, tmp_path: Path) -> None:
    """Each query is an error in their log: only one kind is sent, and soon rarely."""
    start(worker(tmp_path, broker_url, "one", accept_content=["pickle"], task_serializer="pickle"))
    clock = ManualClock(time=NOON)
    monitor = Monitor(Limits(), Restored(), NOON)
    events = [{"type": "worker-heartbeat", "hostname": "celery@one", "timestamp": NOON}]
    monitor.receive([Delivery(body(*events))], NOON)
    fleet = BrokerFleet(settings(broker_url), ["fleet"])
    watch = FleetPoller(fleet, monitor, threading.Lock(), clock, poll_interval=15.0, enable_events=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "INSPECT_TIMEOUT", 0.3)
        for _ in range(120):
            watch.run_once(threading.Event())
            clock.advance(5.0)
    fleet.close()
    assert watch.finding is not None
    assert "accept_content" in watch.finding
    assert [queue.length for queue in watch.queues()] == [0]
    wait_until(lambda: len(refused(tmp_path)) >= 4)
    assert len(refused(tmp_path)) <= 7


def refused(directory: Path) -> list[str]:
    """Queries that workers could not read."""
    lines = [line for log in directory.rglob("*.log") for line in log.read_text().splitlines()]
    return [line for line in lines if ("ContentDisallowed" in line and "CRITICAL" in line) or "Can't decode" in line]


def test_a_control_exchange_of_another_name(broker_url: str, start: Start, tmp_path: Path) -> None:
    """Workers answer only on the configured one."""
    start(worker(tmp_path, broker_url, "one", events=False, control_exchange="shop"))
    with closing(BrokerFleet(settings(broker_url, control_exchange="shop"))) as fleet:
        wait_until(lambda: fleet.enable_events(0.5) == {"celery@one": True}, 60)
    with closing(BrokerFleet(settings(broker_url))) as fleet:
        assert fleet.ping(0.5) == set()


def test_priorities_as_the_workers_have_them(redis_url: str, start: Start, tmp_path: Path) -> None:
    """Waiting tasks of all priorities are counted with the workers' options, not with the monitor's."""
    options = _OPTIONS["priorities"]
    start(worker(tmp_path, redis_url, "one", broker_transport_options=options, task_default_queue="busy"))
    with Celery(broker=redis_url) as app:
        app.conf.update(broker_transport_options=options)
        for priority in (0, 1, 4, 4, 9):
            app.send_task("fleet.succeed", queue="waiting", priority=priority)
    with Connection(redis_url) as connection:
        connection.default_channel.client.sadd("odd", "x")
    with closing(BrokerFleet(settings(redis_url), ["waiting", "odd"])) as fleet:
        found = wait_until(
            lambda: [one for one in fleet.queues(0.5, 1e6) if one.workers] and fleet.queues(0.5, 1e6), 60
        )
    assert {one.name: one.length for one in found} == {"waiting": 5, "odd": None, "busy": 0}
