"""Side by side with celery-exporter on one fleet: equal counts, but for what docs/migration.md says."""

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
    """What is there, as it must be here, but for the queue."""
    found: Counter[tuple[str, ...]] = Counter()
    for (event, name, queue, *exception), number in peer.items():
        classes = [CLASSES.get((name, one), one) for one in exception]
        twins = event == "failed" and name == "fleet.hard_limit"
        found[event, name, queue, *classes] += number // 2 if twins else number
    return found


def differences(daemon: Daemon, peer: CeleryExporter) -> list[str]:
    """A line for each number that is not the same.

    What the peer shows for a task without task-sent, or before it (as it comes on a busy Redis), is what it lacks on
    the task's queues.
    """
    ours, theirs = counts(daemon.get("/metrics")[1]), translated(peer.counts())
    without = {key for key in theirs if key[2] == UNSENT}
    lacking = Counter({(event, name, *exception): 0 for event, name, _, *exception in without})
    found = []
    for event, name, queue, *exception in sorted({*ours, *theirs} - without):
        here, there = (told.get((event, name, queue, *exception), 0) for told in (ours, theirs))
        lacking[event, name, *exception] += here - there
        if there > here:
            found.append(f"{event} {name} {queue} {exception}: {here} here, {there} there")
    for (event, name, *exception), number in lacking.items():
        unsent = theirs.get((event, name, UNSENT, *exception), 0)
        if number != unsent:
            found.append(f"{event} {name} {exception}: {number} more here, {unsent} without a queue there")
    return found


@pytest.mark.campaign
def test_equal_counts(broker_url: str, start: Start, tmp_path: Path) -> None:
    """Each event of every way to end is the same number under the same labels, with task-sent and without."""
    daemon = start(Daemon(tmp_path / "daemon", broker_url, {"metrics": {"poll_interval": "1s"}}))
    daemon.until_ready()
    peer = start(CeleryExporter(tmp_path / "peer", broker_url))
    wait_until(lambda: "celery_worker_up" in daemon.get("/metrics")[1], 10)
    start(CeleryWorker(tmp_path / "worker", broker_url, concurrency=4))
    start(CeleryWorker(tmp_path / "two", broker_url, hostname="two", options=["--queues", "second,third"]))
    wait_until(lambda: daemon.metric("active_worker_count", queue_name="third") == 1, 20, what="the workers' queues")
    app = client(broker_url)

    for _ in range(3):
        send_outcomes(app)
    for _ in range(200):
        app.send_task("fleet.succeed", queue="second")
        app.send_task("fleet.fail", queue="third")
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
    assert {queue for _, name, queue, *_ in ours if name == "fleet.note"} == {"fleet"}
    if broker_url.startswith("amqp"):  # task-sent comes first here, and nothing is on the wrong queue
        assert peer.counts()["received", "fleet.fail", "third"] == 200
    assert peer.counts()["failed", "fleet.hard_limit", "fleet", "ExceptionWithTraceback"] == 6
    assert peer.counts()["failed", "fleet.decline", UNSENT, "CardDeclinedError"] == 100
