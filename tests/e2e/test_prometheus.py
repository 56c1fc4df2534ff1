"""A real Prometheus with the daemon and a real fleet: the queries of celery-exporter's users have answers."""

import math
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery import Celery

from bench.publish import Load, publish, publisher
from tests.conftest import Start
from tests.e2e.campaign import Size, publishing, seeded
from tests.e2e.daemon import Daemon
from tests.e2e.peer_queries import ALERTS, DASHBOARDS, JOB
from tests.e2e.pods import Pod, say
from tests.fleet.outcomes import OUTCOMES, client, send_outcomes
from tests.servers import CeleryWorker, Prometheus, wait_until
from tests.servers.process import require

_QUICK = [name for name in OUTCOMES if name not in {"soft limit", "hard limit"}]
OF_THE_PROCESS = ("celery_monitor_commit_", "celery_monitor_notifications_")
_IDLE = "idle"
"""A queue without workers."""


def on_brokers(short: object, long: object) -> pytest.MarkDecorator:
    """Run a test in its short form on RabbitMQ with ``make test``, in the long one on both with ``make campaign``."""
    campaign = pytest.mark.campaign
    forms = [
        pytest.param("rabbitmq", short, id="short"),
        pytest.param("rabbitmq", long, id="long-rabbitmq", marks=campaign),
        pytest.param("redis", long, id="long-redis", marks=campaign),
    ]
    return pytest.mark.parametrize(("broker_url", "size"), forms, indirect=["broker_url"])


@contextmanager
def meanwhile(do: Callable[[], object], every: float = 0.3) -> Iterator[None]:
    """Call something repeatedly in the background."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(every):
            do()

    sender = threading.Thread(target=go_on, name="meanwhile", daemon=True)
    sender.start()
    try:
        yield
    finally:
        ended.set()
        sender.join()


def check_with_promtool(daemon: Daemon) -> str:
    """Promtool's output for a scrape."""
    _, text = daemon.get("/metrics")
    checked = subprocess.run([require("promtool"), "check", "metrics"], input=text, capture_output=True, text=True,
                          check=False)  # fmt: skip
    return f"{checked.stdout}{checked.stderr}" + (f"exit code {checked.returncode}" if checked.returncode else "")


def rounds(app: Celery, prometheus: Prometheus, seconds: float) -> None:
    """Two or more rounds of every outcome, so that each counter is seen before and after an increase."""
    send_outcomes(app)
    prometheus.wait_for('celery_task_failed_total{exception="TimeLimitExceeded"} == 1', 60)
    until = time.monotonic() + seconds
    while True:
        send_outcomes(app, *_QUICK)
        if time.monotonic() > until:
            return
        threading.Event().wait(10)


@on_brokers(0, 300)
def test_what_the_peers_users_ask(size: int, broker_url: str, start: Start, tmp_path: Path) -> None:
    """Promtool has nothing to say about a scrape, and every expression of their dashboards and alerts has data.

    The first failure of a task that never ran before is an increase.
    ``size``: seconds of it.
    """
    metrics = {"poll_interval": "1s", "queues": [_IDLE]}
    daemon = start(Daemon(tmp_path / "daemon", broker_url, {"metrics": metrics}))
    leaver = start(CeleryWorker(tmp_path / "leaver", broker_url, hostname="leaver", concurrency=1))
    start(CeleryWorker(tmp_path / "worker", broker_url, concurrency=4))
    prometheus = start(Prometheus(tmp_path / "prometheus", {JOB: [f"127.0.0.1:{daemon.port}"]}))
    daemon.until_ready()
    leaver.stop()
    app = client(broker_url)
    for _ in range(101):
        app.send_task("fleet.succeed", queue=_IDLE)

    first = 'celery_monitor_task_failures_total{name="fleet.fail",queue_name="fleet"}'
    prometheus.wait_for(f"{first} == 0", 60)
    app.send_task("fleet.fail")
    prometheus.wait_for(f"increase({first}[5m]) > 0", 60)
    with meanwhile(lambda: app.send_task("fleet.sleep", args=[0.02])):
        rounds(app, prometheus, size)
        for name, expression in {**DASHBOARDS, **ALERTS}.items():
            if name == "consumers" and broker_url.startswith("redis"):
                continue  # Redis does not know them, and neither does celery-exporter there
            answer = prometheus.wait_for(expression, 60)
            assert not any(math.isnan(value) for _, value in answer), name

    assert check_with_promtool(daemon) == ""
    ((_, never_down),) = prometheus.query(f'min_over_time(up{{job="{JOB}"}}[1h])')
    assert never_down == 1


def falling(prometheus: Prometheus) -> list[str]:
    """Counters that Prometheus has seen decreasing, except those since the process's start."""
    names = [name for name in prometheus.api("label/__name__/values") if name.startswith("celery_")]
    counters = [name for name in names if name.endswith(("_total", "_bucket", "_sum", "_count"))]
    assert len(counters) > 20
    lasting = [name for name in counters if not name.startswith(OF_THE_PROCESS)]
    return [f"{name}{labels}" for name in lasting for labels, _ in prometheus.query(f"resets({name}[1h]) > 0")]


@on_brokers(Size(tasks=6_000, faults=3, rate=4_000), Size(tasks=120_000, faults=20, rate=4_000))
def test_restarts_are_no_resets(size: Size, broker_url: str, start: Start, tmp_path: Path) -> None:
    """SIGTERM and kill -9 under load: no counter decreases, and increase() equals the failures since."""
    daemon = start(Daemon(tmp_path / "daemon", broker_url))
    daemon.until_ready()
    prometheus = start(Prometheus(tmp_path / "prometheus", {JOB: [f"127.0.0.1:{daemon.port}"]}, interval="100ms"))
    randomly, load = seeded(), Load(size.tasks)
    pod, to = Pod("pod"), publisher(broker_url)

    def work_unseen() -> None:
        pod.processed += 3
        say(to, [pod])

    with meanwhile(work_unseen, 0.1), publishing(broker_url, load, size.rate) as state:
        for number, _ in enumerate(state.moments(randomly, size.faults)):
            daemon.until_ready()
            if number % 2:
                daemon.kill()
            else:
                daemon.signal(signal.SIGTERM)
                wait_until(lambda: not daemon.running, 60, what="the end of the daemon")
                daemon.stop()
            daemon.start()
    daemon.until_ready()

    total = daemon.metric("monitor_task_failures_total")
    prometheus.wait_for(f"sum(celery_monitor_task_failures_total) >= {total}", 60)
    to.close()
    assert falling(prometheus) == []
    wait_until(lambda: daemon.metric("monitor_unobserved_tasks_total") > pod.processed / 2, 60, what="the unobserved")


def test_what_was_shown_is_not_taken_back(redis_url: str, start: Start, tmp_path: Path) -> None:
    """A scraped number survives kill -9, even if the broker does not redeliver."""
    daemon = start(Daemon(tmp_path / "daemon", redis_url, {"store": {"flush_interval": "2s"}}))
    daemon.until_ready()
    load = Load(1_000, lag=20)
    to = publisher(redis_url)
    publish(to, load, 20_000)
    to.close()
    wait_until(lambda: daemon.metric("monitor_events_total", type="task-failed") > 0, 60)
    shown = counters(daemon)
    daemon.kill()

    daemon.start()
    wait_until(lambda: "celery_monitor_events_total" in daemon.metrics(), 60)
    found = counters(daemon)
    assert [f"{key}: {found.get(key)} after {value}" for key, value in shown.items() if found.get(key, 0) < value] == []


def counters(daemon: Daemon) -> dict[tuple[str, str], float]:
    """All counters that must not decrease, by name and labels."""
    return {
        (name, str(labels)): value
        for name, samples in daemon.metrics().items()
        if name.startswith("celery_")
        and name.endswith(("_total", "_bucket", "_sum", "_count"))
        and not name.startswith(OF_THE_PROCESS)
        and not name.startswith("celery_active_")
        for labels, value in samples
    }
