"""`celery-monitor events` as users run it, on real brokers with a real fleet."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from celery_monitor.adapters.broker import BrokerSource
from celery_monitor.adapters.broker.listener import Listener
from celery_monitor.errors import SourceLostError
from celery_monitor.settings.broker import BrokerSettings
from tests.adapters.broker.publisher import numbered, publish
from tests.conftest import Start
from tests.fleet.outcomes import client
from tests.servers import CeleryWorker, RabbitMQ, wait_until

# A test run in the background of a shell ignores SIGINT, and so would its children.
PROGRAM = ["env", "--default-signal=INT", sys.executable, "-m", "celery_monitor", "events"]


def settings(url: str) -> BrokerSettings:
    """Validated like those of a file."""
    return BrokerSettings.model_validate({"url": url})


def declare(url: str) -> None:
    """Declare the exchange, as the first event of a fleet does."""
    publish(url, numbered(1))


class Running:
    """The command with its output."""

    def __init__(self, directory: Path, url: str, options: Sequence[str]) -> None:
        self.out = directory / "events.out"
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [*PROGRAM, "--broker", url, *options], stdout=out, stderr=subprocess.PIPE, text=True
            )

    def lines(self, kind: str) -> list[str]:
        whole = self.out.read_text().rpartition("\n")[0]
        return [line for line in whole.splitlines() if f"  {kind} " in line]

    def end(self) -> tuple[int, str]:
        """The exit code and standard error."""
        _, err = self.process.communicate(timeout=120)
        return self.process.returncode, err


@pytest.fixture
def following(tmp_path: Path, broker_url: str) -> Iterator[Running]:
    """The command with --follow, ended after the test."""
    declare(broker_url)
    running = Running(tmp_path, broker_url, ["--follow"])
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.communicate()


def test_live_stream_of_a_fleet(following: Running, broker_url: str, start: Start, tmp_path: Path) -> None:
    """A failure is shown with task, worker and exception; Ctrl-C ends it with 0 and without output."""
    start(CeleryWorker(tmp_path / "worker", broker_url, pool="solo", concurrency=1))
    wait_until(lambda: following.lines("worker-heartbeat"), timeout=60, what="a heartbeat")
    app = client(broker_url)
    app.send_task("fleet.fail", ["no such order"])
    wait_until(lambda: following.lines("task-failed"), timeout=60, what="the failure")
    (line,) = following.lines("task-failed")
    assert "  fleet.fail " in line
    assert line.endswith("celery@worker  ValueError: no such order")
    assert "\x1b" not in following.out.read_text()
    following.process.send_signal(signal.SIGINT)
    assert following.end() == (0, "")
    app.close()


@contextmanager
def publishing(url: str) -> Iterator[None]:
    """Publish an event of the fleet repeatedly."""
    stop = threading.Event()

    def publish_all() -> None:
        while not stop.wait(0.1):
            publish(url, [b'{"type": "order-placed", "timestamp": 1795402000.0}'])

    thread = threading.Thread(target=publish_all)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_it_ends_after_a_time(broker_url: str, tmp_path: Path) -> None:
    """Without events it exits with 0 after --seconds, with a hint."""
    declare(broker_url)
    silent = Running(tmp_path, broker_url, ["--seconds", "2"])
    assert silent.end() == (0, "no task events received: run `celery-monitor doctor`\n")
    assert silent.out.read_text() == ""


def test_it_ends_after_a_number_of_events(broker_url: str, tmp_path: Path) -> None:
    """--limit counts lines."""
    declare(broker_url)
    with publishing(broker_url):
        limited = Running(tmp_path, broker_url, ["--limit", "3", "--follow"])
        assert limited.end() == (0, "")
    assert len(limited.out.read_text().splitlines()) == len(limited.lines("order-placed")) == 3


def test_a_reader_that_goes_away_is_an_end(broker_url: str) -> None:
    """`events --follow | head -n 1` exits with 0 and without a traceback."""
    declare(broker_url)
    command = [*PROGRAM, "--broker", broker_url, "--follow"]
    with (
        publishing(broker_url),
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        assert "order-placed" in process.stdout.readline()
        process.stdout.close()
        assert process.wait(120) == 0
        assert process.stderr.read() == ""


def test_a_running_monitor_loses_nothing_to_it(rabbitmq_url: str, rabbitmq: RabbitMQ) -> None:
    """Both receive every message, and the command's queue ends with its connection."""
    monitor, listener = BrokerSource(settings(rabbitmq_url)), Listener(settings(rabbitmq_url))
    monitor.connect()
    listener.connect()
    publish(rabbitmq_url, numbered(1500))
    seen = {"monitor": 0, "listener": 0}

    def poll() -> bool:
        batch = monitor.poll(0.1)
        if batch is not None:
            seen["monitor"] += len(batch.deliveries)
            monitor.ack(batch.tag)
        seen["listener"] += len(listener.poll(0.1))
        return min(seen.values()) >= 1500

    wait_until(poll, timeout=60, what="all messages")
    assert seen == {"monitor": 1500, "listener": 1500}
    listener.close()
    monitor.close()
    vhost = rabbitmq_url.rpartition("/")[2]
    wait_until(lambda: list(rabbitmq.queues(vhost)) == ["celery-monitor"], what="the end of the listener's queue")


def test_a_broker_without_events_is_told(rabbitmq_url: str) -> None:
    """If no event was ever sent, the error says what is missing, and nothing is declared."""
    listener = Listener(settings(rabbitmq_url))
    for _ in range(2):
        with pytest.raises(SourceLostError, match="the event exchange celeryev does not exist: the first worker"):
            listener.connect()
    with pytest.raises(SourceLostError, match="not connected"):
        listener.poll(0)
    listener.close()
