"""The fleet's Celery application: one task for each outcome.

Environment: ``FLEET_BROKER_URL``; ``FLEET_QUEUE`` (default ``fleet``); ``FLEET_CA``: a PEM file, for TLS;
``FLEET_CONF``: further settings of Celery, as JSON.
The tasks are for prefork workers; with threads, those that kill their process kill the worker.
"""

import json
import os
import signal
import ssl
import time
from pathlib import Path
from typing import Any

from celery import Celery, Task, current_task
from celery.exceptions import Ignore, Reject

QUEUE = os.environ.get("FLEET_QUEUE", "fleet")
_FOR_EVER = 600.0

app = Celery("fleet", broker=os.environ.get("FLEET_BROKER_URL", "memory://"))
app.conf.update(
    task_default_queue=QUEUE,
    task_send_sent_event=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_connection_retry=True,
    broker_connection_max_retries=None,
    worker_hijack_root_logger=False,
)
if os.environ.get("FLEET_CA"):
    app.conf.broker_use_ssl = {"ca_certs": os.environ["FLEET_CA"], "cert_reqs": ssl.CERT_REQUIRED}
app.conf.update(json.loads(os.environ.get("FLEET_CONF", "{}")))


class CardDeclinedError(Exception):
    """An exception of the application."""


@app.task(name="fleet.succeed")
def succeed(value: Any = None) -> Any:
    """Succeed with ``value``."""
    return value


@app.task(name="fleet.unreported", send_events=False)
def unreported() -> None:
    """Succeed without any event of the worker."""


@app.task(name="fleet.sleep")
def sleep(seconds: float) -> None:
    """Succeed after ``seconds``."""
    time.sleep(seconds)


@app.task(name="fleet.sleep_late", bind=True, acks_late=True)
def sleep_late(self: Task) -> None:
    """Hang at the first delivery; succeed when redelivered."""
    if not self.request.delivery_info["redelivered"]:
        time.sleep(_FOR_EVER)


@app.task(name="fleet.note")
def note(path: str) -> None:
    """Append a byte to a file: its size is the number of executions."""
    with Path(path).open("ab", buffering=0) as file:
        file.write(b".")


@app.task(name="fleet.fail")
def fail(message: str = "no such order") -> None:
    """Raise a ValueError."""
    raise ValueError(message)


@app.task(name="fleet.fail_later")
def fail_later(directory: str) -> None:
    """Record its ID in ``directory``; raise a ValueError once there is a file ``release`` in it."""
    Path(directory, str(current_task.request.id)).touch()
    until = time.monotonic() + _FOR_EVER
    while not Path(directory, "release").exists() and time.monotonic() < until:
        time.sleep(0.02)
    raise ValueError("released")


@app.task(name="fleet.decline")
def decline(message: str = "card declined") -> None:
    """Raise an exception of the application."""
    raise CardDeclinedError(message)


@app.task(name="fleet.soft_limit", soft_time_limit=1)
def soft_limit() -> None:
    """Fail with SoftTimeLimitExceeded."""
    time.sleep(_FOR_EVER)


@app.task(name="fleet.hard_limit", time_limit=1)
def hard_limit() -> None:
    """Fail with TimeLimitExceeded; the child is killed."""
    time.sleep(_FOR_EVER)


@app.task(name="fleet.killed")
def killed() -> None:
    """Kill the child, like the kernel when memory is out: WorkerLostError."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="fleet.killed_once", bind=True, acks_late=True, reject_on_worker_lost=True)
def killed_once(self: Task) -> str:
    """Kill the child at the first delivery, which is rejected and requeued; then succeed."""
    if not self.request.delivery_info["redelivered"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return "second delivery"


@app.task(name="fleet.reject", acks_late=True)
def reject() -> None:
    """Reject the message."""
    raise Reject("not for us", requeue=False)


@app.task(name="fleet.reject_once", bind=True, acks_late=True)
def reject_once(self: Task) -> str:
    """Requeue the first delivery; then succeed."""
    if not self.request.delivery_info["redelivered"]:
        raise Reject("not now", requeue=True)
    return "second delivery"


@app.task(name="fleet.ignore")
def ignore() -> None:
    """End without a result and without an event."""
    raise Ignore


@app.task(name="fleet.retry_then_succeed", bind=True, max_retries=3)
def retry_then_succeed(self: Task) -> str:
    """Retry once, then succeed."""
    if self.request.retries == 0:
        raise self.retry(exc=KeyError("not yet"), countdown=0)
    return "second attempt"


@app.task(name="fleet.retry_exhausted", bind=True, max_retries=1)
def retry_exhausted(self: Task) -> None:
    """Retry once, then fail with the ConnectionError."""
    raise self.retry(exc=ConnectionError("payment gateway unreachable"), countdown=0)


@app.task(name="fleet.out_of_memory")
def out_of_memory() -> None:
    """Raise MemoryError, after which Celery ends the whole worker without an event."""
    raise MemoryError


def _fill_memory() -> None:
    """Use memory until the kernel kills this process, or 2 GB, which no test permits."""
    taken = [bytearray(b"x" * 2**22) for _ in range(512)]
    raise RuntimeError(f"{len(taken)} times 4 MB were there")


@app.task(name="fleet.fill_memory")
def fill_memory() -> None:
    """Be killed by the kernel if memory is limited."""
    _fill_memory()


@app.task(name="fleet.fill_memory_late", acks_late=True)
def fill_memory_late() -> None:
    """The same, acknowledged late: Celery considers the message done when the child is killed."""
    _fill_memory()


@app.task(name="fleet.fill_memory_again", bind=True, acks_late=True, reject_on_worker_lost=True)
def fill_memory_again(self: Task) -> str:
    """Be killed at the first delivery; succeed when redelivered."""
    if not self.request.delivery_info["redelivered"]:
        _fill_memory()
    return "second delivery"
