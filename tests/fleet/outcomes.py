"""Sends one task for each outcome, and defines the expected counts."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from celery import Celery

from tests.servers.waiting import wait_until


@dataclass(frozen=True, slots=True)
class Outcome:
    """The expected counts of one task: ``counts`` by event type, without the prefix, if not 0."""

    task: str
    counts: Mapping[str, int]
    exception: str | None = None
    """The short name of the class, for the failures."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """For ``send_task``."""
    revoke: bool = False
    """Revoke it before it is sent."""
    terminate: bool = False
    """Terminate it when it has started."""


_RUN = {"sent": 1, "received": 1, "started": 1}
_FAILED = {**_RUN, "failed": 1}

OUTCOMES: Mapping[str, Outcome] = {
    "success": Outcome("fleet.succeed", {**_RUN, "succeeded": 1}),
    "exception": Outcome("fleet.fail", _FAILED, "ValueError"),
    "own exception": Outcome("fleet.decline", _FAILED, "CardDeclinedError"),
    "soft limit": Outcome("fleet.soft_limit", _FAILED, "SoftTimeLimitExceeded"),
    "hard limit": Outcome("fleet.hard_limit", _FAILED, "TimeLimitExceeded"),
    "killed": Outcome("fleet.killed", _FAILED, "WorkerLostError"),
    "killed, late ack": Outcome(
        "fleet.killed_once", {"sent": 1, "received": 2, "started": 2, "rejected": 1, "succeeded": 1}
    ),
    "ignore": Outcome("fleet.ignore", _RUN),
    "retry": Outcome(
        "fleet.retry_then_succeed", {"sent": 2, "received": 2, "started": 2, "retried": 1, "succeeded": 1}
    ),
    "retry exhausted": Outcome(
        "fleet.retry_exhausted",
        {"sent": 2, "received": 2, "started": 2, "retried": 1, "failed": 1},
        "ConnectionError",
    ),
    "reject": Outcome("fleet.reject", {**_RUN, "failed": 1, "rejected": 1}, "Reject"),
    "expired": Outcome(
        "fleet.succeed",
        {"sent": 1, "revoked": 1},
        # By the header alone: the option would also set the message's TTL, and RabbitMQ would drop it.
        options={"headers": {"expires": (datetime.now(tz=UTC) - timedelta(hours=1)).isoformat()}},
    ),
    "revoked": Outcome("fleet.succeed", {"sent": 1, "revoked": 1}, revoke=True),
    "terminated": Outcome("fleet.sleep", {**_RUN, "revoked": 1}, options={"args": [600]}, terminate=True),
    "unregistered": Outcome("fleet.unregistered", {"sent": 1, "failed": 1}, "NotRegistered"),
}
"""Every way a task can end, on Celery 5.7."""


def send_outcomes(app: Celery, *names: str) -> dict[str, str]:
    """Send the named outcomes' tasks (default: all); return the uuid of each. A worker must be online."""
    sent = {}
    for name in names or OUTCOMES:
        outcome = OUTCOMES[name]
        task_id = str(uuid.uuid4())
        if outcome.revoke:
            app.control.broadcast("revoke", arguments={"task_id": task_id}, reply=True, timeout=60, limit=1)
        app.send_task(outcome.task, task_id=task_id, **outcome.options)
        sent[name] = task_id
    for name, task_id in sent.items():
        if OUTCOMES[name].terminate:
            wait_until(partial(_active, app, task_id), 60, what=f"the start of {name}")
            app.control.revoke(task_id, terminate=True)
    return sent


def _active(app: Celery, task_id: str) -> bool:
    workers = app.control.inspect(timeout=1, limit=1).active() or {}
    return any(task["id"] == task_id for tasks in workers.values() for task in tasks)


def client(broker_url: str) -> Celery:
    """Return an application that sends tasks to the fleet on ``broker_url``."""
    app = Celery("client", broker=broker_url, set_as_current=False)
    app.conf.update(task_default_queue="fleet", task_send_sent_event=True, task_ignore_result=True)
    return app
