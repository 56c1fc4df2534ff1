"""Tasks whose end has not been observed."""

import enum
from dataclasses import dataclass
from typing import Final

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


class TaskDetails(msgspec.Struct, frozen=True, gc=False):
    """What few tasks have. Only shown, but for ``expires``."""

    eta: float = 0.0
    """The time before which it must not begin; 0 without one."""
    retries: int = 0
    root: str | None = None
    """ID of the task that the whole workflow began with; None where that is this one, or is not known."""
    parent: str | None = None
    """ID of the task that sent it; None for none, or where it is not known."""
    expires: float = 0.0
    """When it expires (it is not started after that, possibly without an event); 0 if never."""


NO_DETAILS: Final = TaskDetails()


class TaskRef(msgspec.Struct, gc=False, array_like=True):
    """What is remembered of a task whose end has not come (a million of them fit in 400 MB: keep it small).

    It is the entry of a task ID and its first run at once; further runs, of other workers mostly, are in ``others``.
    The store's journal holds it field by field: new fields go to the end, with a default.
    """

    name: str | None = None
    queue: str | None = None
    stage: int = Stage.SENT
    due_at: float = 0.0
    """When it should begin: its ETA, else when it was sent; 0 when neither is known or it has begun. Of one that has
    begun and was lost with its worker: when that was, negative; see ``runs.lost_at``. -1 (``runs.ENDED_UNSEEN``) of one
    that has ended without an event."""
    started_at: float = 0.0
    """When it was started; once it has failed or succeeded, when that was."""
    seen_minute: int = 0
    """Minute (unix time // 60) of its last event, for expiry."""
    saved: bool = False
    """The store holds a row of it."""
    host: str = ""
    """The worker whose run it is, whole (``celery@box``); "" while no worker has told of it."""
    others: "list[TaskRef] | None" = None
    """Further runs of the same task ID, in the order in which they were seen; never empty."""
    sent_at: float = 0.0
    """Of its newest task-sent; 0 when none was seen. Only shown, as what follows: nothing is decided by it."""
    received_at: float = 0.0
    """Of its newest task-received; 0 when none was seen."""
    details: TaskDetails | None = None
    """None for most tasks."""


class TaskRun(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A run of a task ID, under way or ended, as it is shown. A time of 0 is not known."""

    uuid: str
    name: str | None
    queue: str | None
    hostname: str
    """Of the worker, whole (``celery@box``); "" while none has it."""
    stage: int
    """A Stage."""
    sent_at: float = 0.0
    received_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    runtime: float | None = None
    """Seconds of work, as the worker measured them."""
    eta: float = 0.0
    retries: int = 0
    root: str | None = None
    parent: str | None = None
    """As in TaskDetails."""
    lost_at: float = 0.0
    """When it was lost with its worker; 0: it was not. Not stored."""
    unseen_end: bool = False
    """It has ended, as its worker says, and no event has told how. Not stored."""
    args: str | None = None
    kwargs: str | None = None
    """Only of tasks under way, and only where settings allow. Not stored."""


@dataclass(frozen=True, slots=True)
class FleetTask:
    """A task that a worker says it holds (Celery's inspect: active, reserved, scheduled)."""

    uuid: str
    name: str
    queue: str | None
    started_at: float | None
