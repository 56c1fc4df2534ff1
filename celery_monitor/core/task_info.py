"""What task-sent and task-received tell of a run: its name, its queue, and when it is due."""

from collections.abc import MutableMapping
from datetime import UTC, datetime

from celery_monitor.core.model import RECEIVED, SENT, Event, TaskRef
from celery_monitor.core.names import Names
from celery_monitor.core.text import shared


def update_task_info(
    ref: TaskRef, event: Event, kind: int, names: Names, queue_of: MutableMapping[str, str]
) -> TaskRef:
    """Take it over. ``queue_of``: task name → the queue that it was last sent to, kept here.

    A task-sent names only what has no name, and gives its queue only to its own task: under another name it announces
    what the task is to be replaced by. Returns what the event is to be counted under.
    """
    name = event.name and names[event.name]
    if name and (kind == RECEIVED or ref.name is None):
        ref.name = name
    counted = ref
    if kind == SENT:
        if name and name != ref.name:
            counted = TaskRef(name=name)
        if event.queue:
            counted.queue = shared(names[event.queue])
            if name:
                queue_of[name] = counted.queue
        if event.timestamp <= ref.started_at:
            return counted  # it comes late, the wait is over
        ref.due_at = max(ref.due_at, event.timestamp)
    if event.eta is not None:
        eta = _unix_time(event.eta)
        if eta is not None and eta > ref.due_at:
            ref.due_at = eta
    return counted


def _unix_time(iso: str) -> float | None:
    """Unix time of Celery's ISO 8601 eta; one without an offset is UTC (Celery's default)."""
    try:
        moment = datetime.fromisoformat(iso)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
