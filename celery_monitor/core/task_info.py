"""What task-sent and task-received tell of a run: its name, its queue, when it is due, and where it comes from.

A task whose ``expires`` has passed is never begun. RabbitMQ drops its message, without any event (Celery sets the
message's TTL); on Redis a worker revokes it when it fetches it.
"""

from collections.abc import MutableMapping
from datetime import UTC, datetime

from msgspec.structs import replace

from celery_monitor.core.model import NO_DETAILS, Event, TaskDetails, TaskRef
from celery_monitor.core.names import SHORT, Names, shortened_name


def announce(ref: TaskRef, event: Event, names: Names, queues: Names, queue_of: MutableMapping[str, str]) -> TaskRef:
    """Take over a task-sent. ``queue_of``: task name → the queue that it was last sent to, kept here.

    It names only what has no name, and gives its queue only to its own task: under another name it announces what the
    task is to be replaced by. Returns what the event is to be counted under.
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
    if at > ref.started_at and ref.due_at >= 0:  # else it comes late: the wait is over, or the run is lost
        ref.due_at = max(ref.due_at, at)
        if event.eta is not None:
            delay(ref, event.eta)
    return counted


def relate(ref: TaskRef, event: Event) -> None:
    """Note how often it was retried, and which tasks it comes from. Of equal IDs one object is kept."""
    current = ref.details or NO_DETAILS
    root, parent, retries = current.root, current.parent, event.retries
    if root == event.root_id and parent == event.parent_id and (not retries or retries == current.retries):
        return  # the task-received repeats its task-sent
    if parent is None and event.parent_id is not None:
        parent = _fitted(event.parent_id)
    if root is None and event.root_id is not None and event.root_id != event.uuid:
        root = _fitted(event.root_id)
    details = TaskDetails(
        current.eta, retries or current.retries, parent if root == parent else root, parent, current.expires
    )
    if details != current:
        ref.details = details


def _fitted(uuid: str) -> str:
    """As IDs of tasks are kept."""
    return uuid if len(uuid) <= SHORT else shortened_name(uuid)


def delay(ref: TaskRef, eta: str) -> None:
    """It is not due before its ETA."""
    due_at = _unix_time(eta)
    if due_at is not None:
        ref.details = replace(ref.details or NO_DETAILS, eta=due_at)
    if due_at is not None and due_at > ref.due_at:
        ref.due_at = due_at


def limit(ref: TaskRef, expires: str) -> None:
    """It is not begun after that."""
    expires_at = _unix_time(expires)
    if expires_at is not None:
        ref.details = replace(ref.details or NO_DETAILS, expires=expires_at)


def _unix_time(iso: str) -> float | None:
    """Unix time of Celery's ISO 8601 eta or expires; one without an offset is UTC (Celery's default)."""
    try:
        moment = datetime.fromisoformat(iso)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
