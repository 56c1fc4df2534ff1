"""Tasks and their runs."""

import enum
from dataclasses import dataclass
from typing import Final

import msgspec

UNKNOWN_TASK = "unknown"
"""The name of a task whose name was never received; counted by ``celery_monitor_unnamed_failures_total``."""


class Stage(enum.IntEnum):
    """A run's stage, according to the events received so far."""

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
    """Fields that few tasks have. They are only shown, except ``expires``."""

    eta: float = 0.0
    """The earliest time at which it may start; 0 without one."""
    retries: int = 0
    root: str | None = None
    """ID of the first task of the workflow; None if that is this task, or unknown."""
    parent: str | None = None
    """ID of the task that sent it; None if there is none, or unknown."""
    expires: float = 0.0
    """When it expires: after that, workers discard it, possibly without an event; 0 if never."""


NO_DETAILS: Final = TaskDetails()


class TaskRef(msgspec.Struct, gc=False, array_like=True):
    """The state of a task under way. Keep it small: a million of them fit in 400 MB.

    It is both the entry of a task ID and its first run; further runs, mostly on other workers, are in ``others``. The
    store's journal contains it field by field: add new fields at the end, with a default.
    """

    name: str | None = None
    queue: str | None = None
    stage: int = Stage.SENT
    due_at: float = 0.0
    """When it should start: its ETA, else when it was sent; 0 if neither is known or it has started. Negative for a
    started run that was lost with its worker: the time of loss, see ``runs.lost_at``; or -1 (``runs.ENDED_UNSEEN``) for
    one that has ended without an event, also for a received one that its worker returned to the queue."""
    started_at: float = 0.0
    """When it started; after it failed or succeeded, when it ended."""
    seen_minute: int = 0
    """Minute (Unix time // 60) of its last event, for expiry."""
    saved: int = 0
    """The first flush that contained it, part of its key in the store; 0 before."""
    host: str = ""
    """Full hostname of its worker (``celery@box``); "" before a worker's first event."""
    others: "list[TaskRef] | None" = None
    """Further runs of the same task ID, in the order in which they were seen; never empty."""
    sent_at: float = 0.0
    """Time of its newest task-sent, 0 without one. This and the following fields are only shown."""
    received_at: float = 0.0
    """Time of its newest task-received, 0 without one."""
    details: TaskDetails | None = None
    """None for most tasks."""


class TaskRun(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A run of a task ID, under way or ended, for display. Unknown times are 0."""

    uuid: str
    name: str | None
    queue: str | None
    hostname: str
    """The worker's full hostname (``celery@box``); "" before a worker has it."""
    stage: int
    """A Stage."""
    sent_at: float = 0.0
    received_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    runtime: float | None = None
    """Seconds, as measured by the worker."""
    eta: float = 0.0
    retries: int = 0
    root: str | None = None
    parent: str | None = None
    """As in TaskDetails."""
    lost_at: float = 0.0
    """When it was lost with its worker; 0 if it was not. Not stored."""
    unseen_end: bool = False
    """Whether its worker no longer holds it, but no event has reported how it ended. Not stored."""
    args: str | None = None
    kwargs: str | None = None
    """Only for tasks under way, and only if the settings allow. Not stored."""


@dataclass(frozen=True, slots=True)
class FleetTask:
    """A task that a worker has reported (Celery's inspect: active, reserved, scheduled)."""

    uuid: str
    name: str
    queue: str | None
    started_at: float | None
