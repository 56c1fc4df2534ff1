"""Simulated worker pods: heartbeats and task events like those of real workers, with exact counts, by the thousand."""

import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bench.publish import Publisher, body

_numbers = itertools.count(1)


@dataclass
class Pod:
    """A worker on its own host. ``processed`` is the count in its heartbeats."""

    host: str
    pid: int = 7
    processed: int = 0

    @property
    def hostname(self) -> str:
        """As Celery writes it."""
        return f"celery@{self.host}"

    def event(self, kind: str, **fields: Any) -> dict[str, Any]:
        """An event with the current time."""
        head = {"type": kind, "hostname": self.hostname, "timestamp": time.time(), "pid": self.pid, "utcoffset": 0}
        return {**head, "clock": 1, **fields}

    def state(self, kind: str) -> bytes:
        """``worker-online``, ``worker-heartbeat`` or ``worker-offline``."""
        software = {"sw_ident": "py-celery", "sw_ver": "5.7.0", "sw_sys": "Linux"}
        return body([self.event(kind, freq=2.0, active=0, processed=self.processed, loadavg=[0, 0, 0], **software)])

    def run(self, name: str, end: str = "succeeded") -> bytes:
        """A task from task-received to its end, in one message; it counts as processed."""
        self.processed += 1
        uuid = f"pod-task-{next(_numbers):012}"
        fields = {"runtime": 0.01, "result": "None"} if end == "succeeded" else {"exception": "ValueError('no')"}
        return body([
            self.event("task-received", uuid=uuid, name=name, args="()", kwargs="{}", retries=0, eta=None),
            self.event("task-started", uuid=uuid),
            self.event(f"task-{end}", uuid=uuid, **fields),
        ])  # fmt: skip


def say(to: Publisher, pods: Iterable[Pod], kind: str = "worker-heartbeat") -> None:
    """Send one worker event for each pod."""
    for pod in pods:
        to.publish(pod.state(kind))
    to.settle()
