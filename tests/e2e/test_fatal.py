"""A message that kills the process."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from kombu import Connection

from tests.builders import NOON, life
from tests.conftest import Start
from tests.e2e.daemon import Daemon
from tests.e2e.fatal import FATAL
from tests.servers import wait_until


class Fragile(Daemon):
    """See ``tests/e2e/fatal.py``."""

    def command(self) -> Sequence[str]:
        return [sys.executable, "-m", "tests.e2e.fatal", str(self.config)]


def test_a_message_that_kills_is_set_aside(rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """It is acknowledged and counted after two deaths; all messages before and after it are counted once."""
    daemon = start(Fragile(tmp_path / "daemon", rabbitmq_url))
    daemon.until_ready()
    fatal = json.dumps([{"type": FATAL.decode(), "timestamp": NOON, "x": "x" * 30_000}]).encode()
    bodies = [*life("before"), fatal, *life("after")]
    with Connection(rabbitmq_url) as connection:
        producer = connection.Producer(connection.default_channel)
        for body in bodies:
            producer.publish(
                body, "task.multi", exchange="celeryev", content_type="application/json", content_encoding="utf-8"
            )
    for _ in range(2):
        wait_until(lambda: not daemon.running, 60, what="its death")
        daemon.kill()  # what is left of it
        daemon.launch()
    daemon.until_ready()
    wait_until(lambda: '_discarded_total{reason="poison"} 1.0' in daemon.get("/metrics")[1], 60)
    counts = {"shop.pay": {"sent": 2, "received": 2, "started": 2, "succeeded": 2}}
    wait_until(lambda: daemon.counts() == counts, 60, what="both tasks, once")
