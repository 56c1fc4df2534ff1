"""An application whose task IDs are run more than once, and that writes down what it did.

Environment: ``FLEET_BROKER_URL``; ``FLEET_TRUTH``: the file that each process appends a line to for all that it does,
``kind name id``, beside Celery's events; ``FLEET_VISIBILITY``: seconds, for Redis.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Celery, Task, signals
from kombu import Queue
from kombu.common import Broadcast

_TRUTH = Path(os.environ.get("FLEET_TRUTH", os.devnull))
_FOR_EVER = 600.0
WORKERS = ("w1", "w2", "w3")

app = Celery("reruns", broker=os.environ.get("FLEET_BROKER_URL", "memory://"))
app.conf.update(
    task_default_queue="work",
    task_queues=[
        Queue("work"),
        Queue("green"),
        Queue("lost"),
        Broadcast("everywhere", routing_key="everywhere"),
        *map(Queue, WORKERS),
    ],
    task_send_sent_event=True,
    task_ignore_result=True,
    task_create_missing_queues=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)
if os.environ.get("FLEET_VISIBILITY"):
    app.conf.broker_transport_options = {"visibility_timeout": int(os.environ["FLEET_VISIBILITY"])}


def tell(kind: str, name: str, task_id: str) -> None:
    """Append a line; one write, so that processes do not mix theirs."""
    with _TRUTH.open("ab", buffering=0) as file:
        file.write(f"{kind} {name} {task_id}\n".encode())


@signals.after_task_publish.connect
def _sent(headers: dict[str, Any] | None = None, **_: Any) -> None:
    if headers:
        tell("sent", headers["task"], headers["id"])


@signals.task_received.connect
def _received(request: Any = None, **_: Any) -> None:
    tell("received", request.name, request.id)


class Told(Task):  # type: ignore[misc]  # celery has no types
    """A task that records its start."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it."""
        tell("started", self.name, self.request.id)
        return self.run(*args, **kwargs)

    def end(self, kind: str) -> None:
        """Record the coming end."""
        tell(kind, self.name, self.request.id)

    def is_first(self) -> bool:
        """Whether this is the first run of the ID."""
        try:
            (_TRUTH.parent / f"first-{self.request.id}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


@app.task(name="reruns.succeed", base=Told, bind=True)
def succeed(self: Told, seconds: float = 0.0) -> None:
    """Succeed."""
    time.sleep(seconds)
    self.end("succeeded")


@app.task(name="reruns.fail", base=Told, bind=True)
def fail(self: Told, seconds: float = 0.0) -> None:
    """Fail."""
    time.sleep(seconds)
    self.end("failed")
    raise ValueError(self.request.id)


@app.task(name="reruns.hard_limit", base=Told, bind=True, time_limit=1)
def hard_limit(self: Told) -> None:
    """Fail with TimeLimitExceeded, on Celery 5.7 with two events."""
    self.end("failed")
    time.sleep(_FOR_EVER)


@app.task(name="reruns.hard_limit_late", base=Told, bind=True, time_limit=1, acks_late=True,
          acks_on_failure_or_timeout=False)  # fmt: skip
def hard_limit_late(self: Told) -> None:
    """The same at first, with the message returned; then succeed."""
    if self.is_first():
        self.end("failed")
        self.end("rejected")
        time.sleep(_FOR_EVER)
    self.end("succeeded")


@app.task(name="reruns.lost", base=Told, bind=True, acks_late=True)
def lost(self: Told) -> None:
    """At first, wait to be killed with the whole worker; then fail."""
    if self.is_first():
        time.sleep(_FOR_EVER)
    self.end("failed")
    raise ValueError(self.request.id)


@app.task(name="reruns.lost_child", base=Told, bind=True, acks_late=True, reject_on_worker_lost=True)
def lost_child(self: Told) -> None:
    """At first, kill the child; then succeed."""
    if self.is_first():
        self.end("rejected")
        os.kill(os.getpid(), signal.SIGKILL)
    self.end("succeeded")


@app.task(name="reruns.late", base=Told, bind=True, acks_late=True)
def late(self: Told, seconds: float) -> None:
    """Run for longer than the visibility timeout; the first run fails, others succeed."""
    first = self.is_first()
    time.sleep(seconds if first else 0.0)
    self.end("failed" if first else "succeeded")
    if first:
        raise ValueError(self.request.id)


@app.task(name="reruns.replaced", base=Told, bind=True)
def replaced(self: Told, name: str, queue: str) -> None:
    """Continue as another task with the same ID. Sends no end."""
    self.replace(app.signature(name, queue=queue))


@app.task(name="reruns.wander", base=Told, bind=True, max_retries=3)
def wander(self: Told) -> None:
    """Be retried on another worker each time, and fail on the last one."""
    if self.request.retries < len(WORKERS):
        self.end("retried")
        raise self.retry(exc=KeyError("not here"), countdown=0, queue=WORKERS[self.request.retries])
    self.end("failed")
    raise ValueError(self.request.id)
