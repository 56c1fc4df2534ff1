"""A publisher that knows the truth on a broker that is killed: what it published is in the queue exactly once.

A message that the broker had not confirmed when it died may be in the queue or not. To know it, each message carries
a witness: the task-received of a task that never ends, and so stays in the monitor's store under its id. After the
broker's return the publisher sends a marker, which stands behind everything older in the queue, and waits until the
monitor has committed it. What has no witness in the store by then never was in the queue, and is published again.
"""

import json
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any

from amqp.exceptions import AMQPError

from bench.publish import AmqpPublisher, body, paced
from tests.e2e.campaign import Publishing
from tests.servers import wait_until

WITNESS = "load.witness"


class ReconcilingPublisher:
    """Publishes a load on ``url``. ``committed`` gives those of some task IDs that the monitor's store holds."""

    def __init__(self, url: str, rate: float, committed: Callable[[AbstractSet[str]], AbstractSet[str]]) -> None:
        self.doubted = 0
        """Messages that were unconfirmed when the broker died."""
        self.repeated = 0
        """Those of them that had to be published again."""
        self.witnesses = 0
        self._url = url
        self._rate = rate
        self._committed = committed
        self._doubtful: list[bytes] = []

    def run(self, state: Publishing) -> None:
        """Publish until everything is in the queue, whatever happens to the broker."""
        messages = (self._witnessed(events) for events in paced(state.load.messages(), self._rate))
        while True:
            to = self._connect()
            try:
                self._reconcile(to)
                for message in messages:
                    state.sent += 1
                    to.publish(message)
                to.settle()
            except (AMQPError, OSError):
                doubtful = [message for _, message in to.unconfirmed]
                self.doubted += len(doubtful)
                self._doubtful += doubtful
            else:
                return
            finally:
                to.close()

    def _connect(self) -> AmqpPublisher:
        def attempt() -> AmqpPublisher | None:
            try:
                return AmqpPublisher(self._url)
            except (AMQPError, OSError):
                return None

        found = wait_until(attempt, 120, every=0.1, what="a connection to the broker")
        assert found is not None
        return found

    def _reconcile(self, to: AmqpPublisher) -> None:
        if not self._doubtful:
            return
        marker = self._witnessed([])
        to.publish(marker)
        to.settle()
        wait_until(lambda: self._committed({_witness(marker)}), 120, every=0.1, what="the marker in the store")
        arrived = self._committed({_witness(message) for message in self._doubtful})
        self._doubtful = [message for message in self._doubtful if _witness(message) not in arrived]
        self.repeated += len(self._doubtful)
        while self._doubtful:
            to.publish(self._doubtful.pop(0))  # from here on it is among the unconfirmed

    def _witnessed(self, events: list[dict[str, Any]]) -> bytes:
        self.witnesses += 1
        witness = {
            "type": "task-received",
            "uuid": f"witness-{self.witnesses}",
            "name": WITNESS,
            "hostname": "celery@load0",
            "timestamp": time.time(),
        }
        return body([*events, witness])


def _witness(message: bytes) -> str:
    events = json.loads(message)
    uuid: str = (events[-1] if isinstance(events, list) else events)["uuid"]
    return uuid
