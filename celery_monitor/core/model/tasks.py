"""Tasks whose end has not been observed."""

import enum
from dataclasses import dataclass

import msgspec

UNKNOWN_TASK = "unknown"
"""The name of a task that ended without ever being named; counted by ``celery_monitor_unnamed_failures_total``."""


class Stage(enum.IntEnum):
    """Where a task is in its life, as far as the stream has told."""

    SENT = 0
    RECEIVED = 1
    STARTED = 2
    RETRYING = 3
    REQUEUED = 4
    SUCCEEDED = 5
    FAILED = 6
    REJECTED = 7
    REVOKED = 8


class TaskRef(msgspec.Struct, gc=False):
    """What is remembered of a task whose end has not come (a million of them fit in 400 MB: keep it small).

    It is the entry of a task id and its first run at once; further runs, of other workers mostly, are in ``others``.
    """

    name: str | None = None
    queue: str | None = None
    stage: int = Stage.SENT
    due_at: float = 0.0
    """When it should begin: its ETA, else when it was sent; 0 when neither is known or it has begun. Of one that has
    begun and was lost with its worker: when that was, negative."""
    started_at: float = 0.0
    """When it was started; once it has failed or succeeded, when that was."""
    seen: int = 0
    """Minute (unix time // 60) of its last event, for expiry."""
    saved: bool = False
    """The store holds a row of it."""
    host: str = ""
    """The worker whose run it is, whole (``celery@box``); "" while no worker has told of it."""
    others: "list[TaskRef] | None" = None
    """Further runs of the same task id, in the order in which they were seen; never empty."""


@dataclass(frozen=True, slots=True)
class FleetTask:
    """A task that a worker says it holds (Celery's inspect: active, reserved, scheduled)."""

    uuid: str
    name: str
    queue: str | None
    started_at: float | None
