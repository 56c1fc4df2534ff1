"""A real Celery fleet whose tasks end in every way is counted according to the table of outcomes."""

from collections import Counter
from functools import partial
from pathlib import Path

from celery_monitor.core.model import UNKNOWN_TASK
from tests.conftest import Start
from tests.e2e.daemon import Daemon
from tests.fleet.outcomes import OUTCOMES, client, send_outcomes
from tests.servers.celery_worker import CeleryWorker
from tests.servers.waiting import wait_until


def expected(*outcomes: str) -> tuple[dict[str, Counter[str]], dict[str, Counter[str]]]:
    """Counts and exceptions' classes by task."""
    counts: dict[str, Counter[str]] = {}
    classes: dict[str, Counter[str]] = {}
    for name in outcomes:
        outcome = OUTCOMES[name]
        counts.setdefault(outcome.task, Counter()).update(outcome.counts)
        if outcome.exception is not None:
            classes.setdefault(outcome.task, Counter())[outcome.exception] += outcome.counts["failed"]
    return counts, classes


def sends_events(worker: CeleryWorker) -> bool:
    """Whether its task events were enabled, according to its log."""
    return "enabled by remote" in worker.log.read_text()


def test_every_outcome_is_counted_as_documented(broker_url: str, start: Start, tmp_path: Path) -> None:
    """OOM-killed children, hard limits, revokes, retries, rejections and unregistered tasks are counted correctly."""
    daemon = start(Daemon(tmp_path / "daemon", broker_url))
    daemon.until_ready()
    start(CeleryWorker(tmp_path / "worker", broker_url, concurrency=4))

    send_outcomes(client(broker_url))

    counts, classes = expected(*OUTCOMES)
    daemon.until_counts(counts)
    assert daemon.exceptions() == classes
    assert UNKNOWN_TASK not in daemon.counts()
    assert daemon.metric("monitor_unnamed_failures_total") == 0
    assert daemon.metric("monitor_unobserved_tasks_total") == 0


def consumed(daemon: Daemon, queue: str) -> bool:
    """Whether the daemon knows of a worker that consumes the queue."""
    return daemon.metric("active_worker_count", queue_name=queue) == 1


def test_a_fleet_without_task_events_is_asked_for_them(broker_url: str, start: Start, tmp_path: Path) -> None:
    """Workers started without -E are counted, whether they or the monitor started first."""

    def worker(queue: str) -> CeleryWorker:
        settings = {"FLEET_QUEUE": queue}
        return start(
            CeleryWorker(tmp_path / queue, broker_url, hostname=queue, concurrency=1, events=False, settings=settings)
        )

    workers = [worker("early")]
    daemon = start(Daemon(tmp_path / "daemon", broker_url, {"metrics": {"poll_interval": "1s"}}))
    daemon.until_ready()
    workers.append(worker("late"))

    app = client(broker_url)
    for each, queue in zip(workers, ("early", "late"), strict=True):
        wait_until(partial(sends_events, each), 90, what=f"events of {each.name}")
        # Until the monitor knows what this worker consumes, a failure that overtakes its task-sent has another queue.
        wait_until(partial(consumed, daemon, queue), 90, what=f"the queue {queue}")
        app.send_task("fleet.fail", queue=queue)

    counts, classes = expected("exception", "exception")
    daemon.until_counts(counts)
    assert daemon.exceptions() == classes
    assert daemon.metric("task_failed_total", queue_name="early") == 1
    assert daemon.metric("task_failed_total", queue_name="late") == 1
