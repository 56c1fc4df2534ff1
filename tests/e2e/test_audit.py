"""Tasks that workers started and the stream never showed are reported, and no others."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.publish import Publisher, publisher
from tests import outcomes
from tests.conftest import Start
from tests.e2e.daemon import Daemon
from tests.e2e.pods import Pod, say
from tests.fleet.outcomes import client
from tests.servers import CeleryWorker, Redis, wait_until

_SMALL_BUFFER = ("--client-output-buffer-limit", "pubsub 256kb 0 0")
"""Redis cuts off a subscriber that is so far behind, and what the sockets hold."""
_UNHEARD = 1_000
"""Tasks that are run while nobody listens."""
_MAX_ROUNDS = 100
"""Of 500 tasks: 80 MB of events, more than sockets hold."""


def started(daemon: Daemon) -> int:
    """The executions whose start it has seen."""
    return int(daemon.metric("monitor_events_total", type="task-started"))


def unobserved(daemon: Daemon) -> int:
    """The executions that it reports as unobserved."""
    return int(daemon.metric("monitor_unobserved_tasks_total"))


def begun(witness: Path) -> int:
    """The actual executions of ``fleet.note``."""
    return witness.stat().st_size if witness.exists() else 0


def say_until_told(to: Publisher, pods: Sequence[Pod], daemon: Daemon, lost: int) -> None:
    """Send heartbeats until the loss is reported exactly."""

    def reported() -> bool:
        say(to, pods)
        return unobserved(daemon) == lost

    wait_until(reported, 60, every=0.2, what=f"{lost} unobserved tasks")


def test_loss_on_redis_is_reported(start: Start, tmp_path: Path) -> None:
    """A suspended daemon is disconnected: each missed execution is reported once, and no other."""
    redis = start(Redis(tmp_path / "redis", options=_SMALL_BUFFER))
    daemon = start(Daemon(tmp_path / "daemon", redis.url()))
    daemon.until_ready()
    pods = [Pod(f"pod-{number}") for number in range(4)]
    to = publisher(redis.url())
    say(to, pods, "worker-online")
    _run(to, pods, 100)
    say_until_told(to, pods, daemon, 0)

    daemon.pause()
    for _ in range(_MAX_ROUNDS):  # how much the sockets hold is the kernel's business
        if not listens(redis):
            break
        _run(to, pods, 500)
    assert not listens(redis)
    _run(to, pods, _UNHEARD)
    say(to, pods)
    daemon.resume()

    wait_until(lambda: daemon.metric("monitor_reconnects_total") > 0, 60, what="the cut")
    daemon.until_ready()
    _run(to, pods, 100)
    say(to, pods)
    total = sum(pod.processed for pod in pods)
    wait_until(lambda: daemon.metric("worker_processed_total") == total, 60, what="the last heartbeats")
    lost = total - started(daemon)
    outcomes.figures("Redis", tasks=total, lost=lost)
    assert lost >= _UNHEARD
    say_until_told(to, pods, daemon, lost)
    for _ in range(5):
        say(to, pods)
    to.close()
    assert daemon.metric("monitor_stream_gap_seconds_total") >= 0
    assert unobserved(daemon) == lost


def listens(redis: Redis) -> bool:
    """Whether somebody has subscribed."""
    return b"sub=" in redis.execute("CLIENT", "LIST", "TYPE", "pubsub")


def _run(to: Publisher, pods: Sequence[Pod], tasks: int) -> None:
    for number in range(tasks):
        to.publish(pods[number % len(pods)].run("shop.pack"))
    to.settle()


@contextmanager
def tasks_to_do(url: str, witness: Path, rate: float) -> Iterator[None]:
    """Send ``fleet.note`` at a rate."""
    ended = threading.Event()

    def send() -> None:
        app = client(url)
        began, sent = time.monotonic(), 0
        while not ended.wait(max(0.0, began + sent / rate - time.monotonic())):
            app.send_task("fleet.note", args=[str(witness)], ignore_result=True)
            sent += 1

    sender = threading.Thread(target=send, name="client", daemon=True)
    sender.start()
    try:
        yield
    finally:
        ended.set()
        sender.join()


@pytest.mark.parametrize(
    ("broker_url", "kills"),
    [
        pytest.param("rabbitmq", 1, id="short"),
        pytest.param("rabbitmq", 15, id="long-rabbitmq", marks=pytest.mark.campaign),
        pytest.param("redis", 15, id="long-redis", marks=pytest.mark.campaign),
    ],
    indirect=["broker_url"],
)
def test_killed_workers_are_no_false_alarm(kills: int, broker_url: str, start: Start, tmp_path: Path) -> None:
    """Kill -9 of a worker's main process under load: only announced and unsent tasks are reported."""
    daemon = start(Daemon(tmp_path / "daemon", broker_url))
    worker = start(CeleryWorker(tmp_path / "worker", broker_url))
    daemon.until_ready()
    witness = tmp_path / "witness"

    with tasks_to_do(broker_url, witness, 200):
        for _ in range(kills):
            before = started(daemon)
            wait_until(lambda: started(daemon) > before + 300, 90, every=0.1, what="tasks")  # noqa: B023
            worker.signal(signal.SIGKILL)
            wait_until(lambda: not worker.running, 60)
            worker.kill()  # and its children
            if kills > 1:
                worker.start()
    quiet(daemon, witness)

    truth, measured = begun(witness) - started(daemon), unobserved(daemon)
    outcomes.figures("workers", kills=kills, begun=begun(witness), not_seen=truth, reported=measured)
    assert 0 <= measured <= truth
    assert truth - measured <= 30 * kills


def quiet(daemon: Daemon, witness: Path) -> None:
    """Wait until no more tasks start and all are reported: three heartbeats of two seconds each."""
    last, since = (-1, -1, -1), 0.0

    def settled() -> bool:
        nonlocal last, since
        found = (begun(witness), started(daemon), unobserved(daemon))
        if found != last:
            last, since = found, time.monotonic()
        return time.monotonic() - since > 7

    wait_until(settled, 120, every=0.1, what="quiet")


@pytest.mark.campaign
def test_a_stop_of_ninety_seconds_on_redis(start: Start, tmp_path: Path) -> None:
    """SIGSTOP under load with Redis's own limits: the reported loss is correct to five percent."""
    redis = start(Redis(tmp_path / "redis"))
    daemon = start(
        Daemon(tmp_path / "daemon", redis.url(), {"metrics": {"worker_timeout": "60s", "worker_purge": "60s"}})
    )
    daemon.until_ready()
    witness = tmp_path / "witness"
    for number in range(2):
        start(CeleryWorker(tmp_path / f"worker{number}", redis.url(), hostname=f"pod{number}", concurrency=2))

    with tasks_to_do(redis.url(), witness, 400):
        wait_until(lambda: started(daemon) > 2_000, 60, every=0.5, what="tasks")
        os.kill(daemon.pid, signal.SIGSTOP)
        threading.Event().wait(90)
        os.kill(daemon.pid, signal.SIGCONT)
        before = started(daemon)
        wait_until(lambda: started(daemon) > before + 2_000, 60, every=0.5, what="tasks")
    quiet(daemon, witness)

    truth, measured = begun(witness) - started(daemon), unobserved(daemon)
    outcomes.figures("Redis", begun=begun(witness), not_seen=truth, reported=measured)
    assert truth > 1_000
    assert measured == pytest.approx(truth, rel=0.05)
