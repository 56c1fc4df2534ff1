"""The reported queues when their workers do not answer, on real brokers with real workers."""

from pathlib import Path
from urllib.parse import urlsplit

from celery import Celery

from celery_monitor.adapters.broker import BrokerFleet
from celery_monitor.adapters.broker.queue_registry import IDLE_RETENTION, MAX_MISSED_ROUNDS
from celery_monitor.core.model import QueueStats
from tests.adapters.fleet.conftest import Controlling
from tests.conftest import Start
from tests.servers import CeleryWorker, RabbitMQ, wait_until

NOW = 1000.0
"""A monotonic time."""


def polled(fleet: BrokerFleet, now: float = NOW, timeout: float = 0.1) -> dict[str, QueueStats]:
    """The result of a round of queries."""
    return {one.name: one for one in fleet.queues(timeout, now)}


def test_the_length_of_a_queue_whose_workers_died(
    broker_url: str, app: Celery, controlling: Controlling, start: Start, tmp_path: Path
) -> None:
    """It is still reported, with no workers and no processes."""
    worker = CeleryWorker(tmp_path / "worker", broker_url, options=("-Q", "fleet,other"))
    start(worker)
    fleet = controlling(broker_url)
    wait_until(lambda: polled(fleet, timeout=0.5).keys() == {"fleet", "other"}, 60)
    worker.kill()
    for _ in range(3):
        app.send_task("fleet.succeed")
    for _ in range(MAX_MISSED_ROUNDS):
        polled(fleet)
    consumers = 0 if broker_url.startswith("amqp") else None
    expected = {
        "fleet": QueueStats("fleet", 3, consumers, 0, 0),
        "other": QueueStats("other", 0, consumers, 0, 0),
    }
    # RabbitMQ sees that the worker has gone for each queue by itself.
    wait_until(lambda: polled(fleet) == expected, 60)
    assert fleet.worker_queues() == {}
    later = NOW + 2 * IDLE_RETENTION
    assert polled(fleet, later).keys() == {"fleet"}
    assert polled(controlling(broker_url)) == {}


def test_a_worker_that_does_not_answer_for_a_while(
    broker_url: str, app: Celery, controlling: Controlling, start: Start, tmp_path: Path
) -> None:
    """It counts as before."""
    worker = CeleryWorker(tmp_path / "worker", broker_url, concurrency=3)
    start(worker)
    fleet = controlling(broker_url)
    # The answer to the one question may come without that to the other.
    wait_until(lambda: [(one.workers, one.processes) for one in polled(fleet, timeout=0.5).values()] == [(1, 3)], 60)
    found = polled(fleet)["fleet"]
    worker.pause()
    assert [polled(fleet)["fleet"] for _ in range(MAX_MISSED_ROUNDS - 1)] == [found] * (MAX_MISSED_ROUNDS - 1)
    worker.resume()
    wait_until(lambda: "celery@worker" in fleet.registered(["celery@worker"], 0.5), 60)
    assert polled(fleet, timeout=5.0)["fleet"] == found


def test_a_queue_that_was_deleted(
    rabbitmq: RabbitMQ, rabbitmq_url: str, controlling: Controlling, start: Start, tmp_path: Path
) -> None:
    """It is forgotten as soon as nobody consumes it; others are still reported."""
    worker = CeleryWorker(tmp_path / "worker", rabbitmq_url, options=("-Q", "fleet,other"))
    start(worker)
    fleet = controlling(rabbitmq_url)
    wait_until(lambda: polled(fleet, timeout=0.5).keys() == {"fleet", "other"}, 60)
    worker.kill()
    for _ in range(MAX_MISSED_ROUNDS):
        polled(fleet)
    rabbitmq.delete_queue("other", urlsplit(rabbitmq_url).path.removeprefix("/"))
    assert polled(fleet).keys() == {"fleet"}
