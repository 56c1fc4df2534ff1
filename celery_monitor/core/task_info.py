"""Applies the contents of task-sent and task-received to a run: name, queue, due time and related tasks.

A task whose ``expires`` has passed is never started. RabbitMQ drops its message without any event (Celery sets the
message's TTL); on Redis a worker revokes it when it fetches it.
"""

from collections.abc import MutableMapping
from datetime import UTC, datetime

from msgspec.structs import replace

from celery_monitor.core.model import NO_DETAILS, Event, TaskDetails, TaskRef
from celery_monitor.core.names import SHORT, Names, shortened_name


def announce(ref: TaskRef, event: Event, names: Names, queues: Names, queue_of: MutableMapping[str, str]) -> TaskRef:
    """Apply a task-sent. ``queue_of``: task name → the queue to which it was last sent, updated here.

    It names only a run without a name, and sets the queue only of a run with the same name: a task-sent with another
    name announces the replacement of the task. Returns the run under which to count the event.
    """
    counted = ref
    ref.sent_at = event.timestamp
    if event.root_id != event.uuid or event.parent_id is not None or event.retries:
        relate(ref, event)
    name = event.name and names[event.name]
    if name:
        if ref.name is None:
            ref.name = name
        elif name != ref.name:
            counted = TaskRef(name=name)
    if event.queue:
        counted.queue = queues[event.queue]
        if name:
            queue_of[name] = counted.queue
    if event.expires is not None:
        limit(ref, event.expires)
    at = event.timestamp
    if at > ref.started_at and ref.due_at >= 0:  # otherwise it is late: the wait is over, or the run is lost
        ref.due_at = max(ref.due_at, at)
        if event.eta is not None:
            delay(ref, event.eta)
    return counted


def relate(ref: TaskRef, event: Event) -> None:
    """Record the number of retries and the root and parent IDs. Equal IDs share one object."""
    current = ref.details or NO_DETAILS
    root, parent, retries = current.root, current.parent, event.retries
    root_id, parent_id = event.root_id, event.parent_id
    if parent is None and parent_id is not None:
        parent = parent_id if len(parent_id) <= SHORT else shortened_name(parent_id)
    if root is None and root_id is not None and root_id != event.uuid:
        root = root_id if len(root_id) <= SHORT else shortened_name(root_id)
    if root is current.root and parent is current.parent and (not retries or retries == current.retries):
        return  # usually the task-received repeats its task-sent
    ref.details = TaskDetails(
        current.eta, retries or current.retries, parent if root == parent else root, parent, current.expires
    )


def delay(ref: TaskRef, eta: str) -> None:
    """Record that the run is not due before its ETA."""
    due_at = _unix_time(eta)
    if due_at is not None:
        ref.details = replace(ref.details or NO_DETAILS, eta=due_at)
    if due_at is not None and due_at > ref.due_at:
        ref.due_at = due_at


def limit(ref: TaskRef, expires: str) -> None:
    """Record that the run is not started after this time."""
    expires_at = _unix_time(expires)
    if expires_at is not None:
        ref.details = replace(ref.details or NO_DETAILS, expires=expires_at)


def _unix_time(iso: str) -> float | None:
    """The Unix time of Celery's ISO 8601 eta or expires. Without an offset it is UTC (Celery's default)."""
    try:
        moment = datetime.fromisoformat(iso)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
