"""`celery-monitor doctor` on real brokers with a real fleet and a running daemon."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from celery_monitor.adapters.broker import BrokerSource
from celery_monitor.adapters.broker.diagnostics import BrokerDiagnostics
from celery_monitor.cli.doctor import fleet
from celery_monitor.cli.doctor.finding import State
from celery_monitor.settings.broker import BrokerSettings
from tests.conftest import Start
from tests.fleet.outcomes import client
from tests.servers import CeleryWorker, RabbitMQ, Redis, wait_until
from tests.servers.ports import free_port
from tests.servers.unencrypted import NO_TLS

PROGRAM = [sys.executable, "-m", "celery_monitor"]
PATIENT = """
from celery_monitor.cli import main
from celery_monitor.cli.doctor import fleet
fleet._ANSWER_WITHIN = 6.0
main()
"""
"""The program, for workers on a machine that stalls."""
Lines = dict[str, tuple[str, str]]
"""subject → (state, text)"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The configuration of doctor and daemon."""
    return {
        **os.environ,
        "CELERY_MONITOR_WEB__PORT": str(free_port()),
        "CELERY_MONITOR_WEB__HOST": "127.0.0.1",
        "CELERY_MONITOR_STORE__URL": f"sqlite:///{tmp_path}/store.db",
    }


def doctor(url: str, environ: dict[str, str], *, patient: bool = False) -> tuple[int, Lines]:
    """The exit code and the lines; standard error is always empty."""
    program, seconds = ([sys.executable, "-c", PATIENT], "12") if patient else (PROGRAM, "4")
    done = subprocess.run(
        [*program, "doctor", "--broker", url, "--seconds", seconds],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environ,
    )
    assert done.stderr == ""
    found: Lines = {}
    for line in done.stdout.splitlines():
        found[line[6:20].strip()] = line[:5].strip(), line[21:]
    return done.returncode, found


@contextmanager
def daemon(url: str, environ: dict[str, str], directory: Path) -> Iterator[str]:
    """The address of a running daemon that is ready."""
    with (directory / "daemon.log").open("wb") as log:
        process = subprocess.Popen([*PROGRAM, "run", "--broker", url], stderr=log, env=environ)
    address = f"http://127.0.0.1:{environ['CELERY_MONITOR_WEB__PORT']}"

    def ready() -> bool:
        try:
            return httpx.get(f"{address}/readyz", timeout=30, trust_env=False, verify=NO_TLS).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(ready, 90, what="a ready daemon")
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_a_fleet_that_is_well(broker_url: str, environ: dict[str, str], start: Start, tmp_path: Path) -> None:
    """With a daemon and a worker, all checks pass with 0, and the daemon keeps its connection and counts."""
    start(CeleryWorker(tmp_path / "worker", broker_url, pool="solo", concurrency=1, events=False))
    app = client(broker_url)
    with daemon(broker_url, environ, tmp_path) as address:
        code, lines = doctor(broker_url, environ, patient=True)
        assert {state for state, _ in lines.values()} - {"note"} == {"ok", "off"}, lines
        assert (lines["queue"][0] == "note") == broker_url.startswith("redis")
        assert code == 0
        assert lines["workers"][1] == "1 answered: celery@worker"
        assert "from 1 worker" in lines["events"][1]
        assert "last written" in lines["store"][1]
        assert lines["web"][1].startswith("a monitor is running")
        assert "a monitor is consuming it" in lines["queue"][1] or broker_url.startswith("redis")
        app.send_task("fleet.succeed")

        def counts() -> dict[str, int]:
            items = httpx.get(f"{address}/api/v1/tasks", timeout=30, trust_env=False, verify=NO_TLS).json()["items"]
            return {name: count for item in items for name, count in item["counts"].items() if count}

        wait_until(lambda: counts().get("succeeded") == 1, timeout=60, what="the count")
        metrics = httpx.get(f"{address}/metrics", timeout=30, trust_env=False).text
        assert "\ncelery_monitor_reconnects_total 0.0\n" in metrics
    app.close()


def test_a_broker_with_nobody(rabbitmq_url: str, environ: dict[str, str], rabbitmq: RabbitMQ) -> None:
    """Without workers it fails with a remedy, and leaves neither an exchange nor a queue on the broker."""
    code, lines = doctor(rabbitmq_url, environ)
    assert code == 1
    assert {subject for subject, (state, _) in lines.items() if state == "FAIL"} == {"workers", "events"}
    assert lines["exchange"][0] == "warn"
    assert "the event exchange celeryev does not exist" in lines["events"][1]
    assert lines["queue"] == (
        "ok",
        (
            "celery-monitor does not exist yet: the monitor creates it on its first start and misses no events from "
            "then on"
        ),
    )
    wait_until(lambda: rabbitmq.queues(rabbitmq_url.rpartition("/")[2]) == {}, what="an empty broker")


def test_a_queue_of_an_earlier_configuration(rabbitmq_url: str, environ: dict[str, str], rabbitmq: RabbitMQ) -> None:
    """An unused queue is a warning; a queue with other arguments fails with the remedy, and is kept."""
    source = BrokerSource(BrokerSettings.model_validate({"url": rabbitmq_url}))
    source.connect()
    source.close()
    vhost = rabbitmq_url.rpartition("/")[2]
    assert doctor(rabbitmq_url, environ)[1]["queue"][0] == "warn"
    code, lines = doctor(rabbitmq_url, environ | {"CELERY_MONITOR_BROKER__QUEUE__TYPE": "quorum"})
    assert code == 1
    assert lines["queue"][0] == "FAIL"
    assert f"rabbitmqctl delete_queue -p {vhost} celery-monitor" in lines["queue"][1]
    # The doctor's own end with its connections, which the broker may notice after we do.
    wait_until(lambda: list(rabbitmq.queues(vhost)) == ["celery-monitor"], what="the monitor's queue alone")


def test_a_user_with_the_documented_permissions(rabbitmq_url: str, environ: dict[str, str], rabbitmq: RabbitMQ) -> None:
    """The monitor's permissions are enough for the doctor; missing ones are reported."""
    vhost = rabbitmq_url.rpartition("/")[2]
    pattern = r"^(celery-monitor|celeryev|celery\.pidbox|reply\.celery\.pidbox|.*\.reply\.celery\.pidbox)$"
    url = rabbitmq.add_user("watcher", "pass", vhost, configure=pattern, write=pattern, read=pattern)
    source = BrokerSource(BrokerSettings.model_validate({"url": url}))
    source.connect()
    source.close()
    _, lines = doctor(url, environ)
    assert (lines["exchange"][0], lines["queue"][0]) == ("ok", "warn")
    assert lines["workers"] == ("FAIL", "none answered: is a worker running on this broker, virtual host and database?")
    assert lines["events"][1].startswith("none received in 4 s")
    nobody = rabbitmq.add_user("nobody", "pass", vhost, configure="^$", write="^$", read="^$")
    code, lines = doctor(nobody, environ)
    assert code == 1
    assert "rabbitmqctl set_permissions" in lines["workers"][1]
    assert "rabbitmqctl set_permissions" in lines["events"][1]


def test_wrong_credentials(rabbitmq_url: str, environ: dict[str, str]) -> None:
    """A refused login is reported without the password; checks that need the broker are skipped with that reason."""
    code, lines = doctor(rabbitmq_url.replace("guest:guest", "guest:hunter22"), environ)
    assert code == 1
    assert lines["broker"][0] == "FAIL"
    assert "check the user and password" in lines["broker"][1]
    assert "hunter22" not in str(lines)
    for subject in ("workers", "events", "clocks"):
        assert lines[subject] == ("skip", "not checked: the broker is not reachable")


@pytest.mark.parametrize(
    ("policy", "maxmemory", "unsafe"),
    [
        ("allkeys-lru", "100mb", True),
        ("allkeys-random", "100mb", True),
        ("allkeys-lru", "0", False),
        ("volatile-lru", "100mb", False),
        ("noeviction", "100mb", False),
    ],
)
def test_a_redis_that_may_delete_queued_tasks(
    start: Start, tmp_path: Path, policy: str, maxmemory: str, *, unsafe: bool
) -> None:
    """Only one that has a limit, and takes any key; a user that may not ask is told nothing."""
    server = start(Redis(tmp_path / "redis", options=("--maxmemory", maxmemory, "--maxmemory-policy", policy)))
    server.execute("ACL", "SETUSER", "u", "on", ">pw", "~*", "&*", "+@all", "-info")
    for url, expected in ((server.url(), unsafe), (server.url().replace("redis://", "redis://u:pw@"), False)):
        with closing(BrokerDiagnostics(BrokerSettings.model_validate({"url": url}))) as diagnostics:
            diagnostics.connect()
            assert diagnostics.evicts() == (policy if expected else None)
            assert [finding.state for finding in fleet.eviction(diagnostics)] == ([State.WARN] if expected else [])
