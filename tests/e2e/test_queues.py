"""Queues whose workers have died, in the metrics."""

from pathlib import Path

from tests.conftest import Start
from tests.e2e.daemon import Daemon
from tests.fleet.outcomes import client
from tests.servers import CeleryWorker
from tests.servers.waiting import wait_until

WAITING = 5


def test_a_restart_while_all_workers_are_dead(broker_url: str, start: Start, tmp_path: Path) -> None:
    """The length of a queue without workers is exported again, because it was counted before."""
    daemon = start(Daemon(tmp_path / "daemon", broker_url, {"metrics": {"poll_interval": "1s"}}))
    daemon.until_ready()
    worker = start(CeleryWorker(tmp_path / "worker", broker_url, concurrency=1, settings={"FLEET_QUEUE": "pay"}))
    app = client(broker_url)
    app.send_task("fleet.succeed", queue="pay")
    daemon.until_counts({"fleet.succeed": {"sent": 1, "received": 1, "started": 1, "succeeded": 1}})

    daemon.kill()
    worker.kill()
    for _ in range(WAITING):
        app.send_task("fleet.succeed", queue="pay")
    daemon.start()
    daemon.until_ready()  # it answers before it has opened its store, without this metric

    wait_until(lambda: daemon.metric("queue_length", queue_name="pay") == WAITING, 90, what="the queue's length")
    assert daemon.metric("active_worker_count", queue_name="pay") == 0
