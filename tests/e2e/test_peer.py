"""Compared with celery-exporter on one fleet: equal counts, except for those in docs/migration.md."""

from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.e2e.daemon import Daemon
from tests.e2e.peer import CeleryExporter, Series, counts
from tests.fleet.outcomes import client, send_outcomes
from tests.servers import CeleryWorker, wait_until

CLASSES = {
    ("fleet.hard_limit", "ExceptionWithTraceback"): "TimeLimitExceeded",
    ("fleet.killed", "ExceptionWithTraceback"): "WorkerLostError",
    ("fleet.reject", "UnknownException"): "Reject",
}
"""Task and class there → class here."""
UNSENT = "celery"
"""The queue there of a task without task-sent."""


def translated(peer: Series) -> Series:
    """The peer's counts, as expected here."""
    found: Counter[tuple[str, ...]] = Counter()
    for (event, name, queue, *exception), number in peer.items():
        classes = [CLASSES.get((name, one), one) for one in exception]
        twins = event == "failed" and name == "fleet.hard_limit"
        found[event, name, "fleet" if queue == UNSENT else queue, *classes] += number // 2 if twins else number
    return found


def differences(daemon: Daemon, peer: CeleryExporter) -> list[str]:
    """A line for each number that differs."""
    ours, theirs = counts(daemon.get("/metrics")[1]), translated(peer.counts())
    keys = sorted({*ours, *theirs})
    return [f"{key}: {ours.get(key, 0)} here, {theirs.get(key, 0)} there" for key in keys
            if ours.get(key, 0) != theirs.get(key, 0)]  # fmt: skip


@pytest.mark.campaign
def test_equal_counts(broker_url: str, start: Start, tmp_path: Path) -> None:
    """Events of every outcome have the same counts and labels, with and without task-sent."""
    daemon = start(Daemon(tmp_path / "daemon", broker_url, {"metrics": {"poll_interval": "1s"}}))
    daemon.until_ready()
    peer = start(CeleryExporter(tmp_path / "peer", broker_url))
    wait_until(lambda: "celery_worker_up" in daemon.get("/metrics")[1], 10)
    start(CeleryWorker(tmp_path / "worker", broker_url, concurrency=4))
    two = start(CeleryWorker(tmp_path / "two", broker_url, hostname="two", options=["--queues", "second,third"]))
    wait_until(lambda: daemon.metric("active_worker_count", queue_name="third") == 1, 20, what="the workers' queues")
    app = client(broker_url)

    for _ in range(3):
        send_outcomes(app)
    # On a busy Redis a worker can be faster than the client's task-sent, and the peer shows the wrong queue then.
    two.pause()
    for _ in range(200):
        app.send_task("fleet.succeed", queue="second")
        app.send_task("fleet.fail", queue="third")
    two.resume()
    app.conf.task_send_sent_event = False
    for _ in range(100):
        app.send_task("fleet.note", args=[str(tmp_path / "witness")])
        app.send_task("fleet.decline")

    def ended() -> bool:
        ours = counts(daemon.get("/metrics")[1])
        declined = ("failed", "fleet.decline", "fleet", "CardDeclinedError")
        return ours.get(declined) == 103 and ours.get(("failed", "fleet.hard_limit", "fleet", "TimeLimitExceeded")) == 3

    wait_until(ended, 60, what="the end of all tasks")
    wait_until(lambda: not differences(daemon, peer), 10, every=0.5)
    assert differences(daemon, peer) == []
    ours = counts(daemon.get("/metrics")[1])
    for event in ("sent", "received", "started"):
        assert (ours[event, "fleet.succeed", "second"], ours[event, "fleet.fail", "third"]) == (200, 200)
    assert peer.counts()["failed", "fleet.hard_limit", "fleet", "ExceptionWithTraceback"] == 6
    assert peer.counts()["failed", "fleet.decline", UNSENT, "CardDeclinedError"] == 100
