"""Queries of the store, and of running tasks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from celery_monitor.core.lookup import RunFilter, RunPage
from celery_monitor.core.model import (
    BucketRow,
    FailingRow,
    Failure,
    GroupRow,
    HistoryRow,
    HourRow,
    IncidentOutline,
    IncidentRow,
    IncidentState,
    QueueLengthRow,
    TaskRef,
    TaskRun,
    TaskStarts,
    Worker,
)
from celery_monitor.core.paging import Page

MESSAGES_SEARCHED: Final = 20_000
"""Failures searched for a part of a message at most: no index supports it."""

ENDED_SEARCHED: Final = 20_000
"""Ended runs that are filtered, sorted and counted for a list at most."""


@dataclass(frozen=True, slots=True)
class FailureFilter:
    """Which failures to list; None means any."""

    task: str | None = None
    exception: str | None = None
    tasks: Sequence[str] | None = None
    """Any of these."""
    exceptions: Sequence[str] | None = None
    """Any of these."""
    message: str | None = None
    """A part of the message, case-insensitive; searched in the newest MESSAGES_SEARCHED failures."""
    sort: str = "at"
    """``at``, ``name``, ``exception``, ``hostname``, ``reason`` or ``uuid``; ties by time."""
    descending: bool = True
    since: float | None = None
    until: float | None = None
    limit: int = 100
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedFilter:
    """Which ended runs of the history to list; None means any."""

    matches_name: Callable[[str], bool] | None = None
    """A predicate on the task's name."""
    stage: int | None = None
    """How they ended (a Stage)."""
    queue: str | None = None
    hostname: str | None = None
    """The worker's full hostname."""
    sort: str = "ended"
    """``ended``, ``name``, ``stage``, ``runtime`` or ``hostname``; ties with the newest first."""
    descending: bool = True
    newest: int | None = None
    """``RunPage.newest`` of the first page, so that further pages are consistent with it; None for a first page."""
    offset: int = 0
    limit: int = 50


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task and queue, with its counts in the requested time."""

    name: str
    queue: str
    counts: tuple[int, ...]
    runtime_sum: float
    runtime_count: int
    last_failure_at: float | None


class Reader(Protocol):
    """Read-only queries for the pages, the API and the report.

    Methods behave as in Store; those with a ``cursor`` may raise InvalidCursorError.
    """

    def tasks(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        limit: int,
        cursor: str | None = None,
        name: str | None = None,
        exception: str | None = None,
        names: Sequence[str] | None = None,
        queue: str | None = None,
    ) -> Page[TaskRow]:
        """Tasks by name and queue, in that order.

        ``names``: only these tasks; fast for a few. ``queue``: only in this queue. ``exception``: only tasks that have
        failed in that time with this exception class, given by its short or full name.
        """

    def failures(self, criteria: FailureFilter) -> Page[Failure]:
        """Newest first."""

    def failure(self, uuid: str) -> list[Failure]:
        """All stored failures of a task ID, newest first."""

    def exceptions(self) -> list[str]:
        """Short names of the exception classes of all stored failures, sorted."""

    def incidents(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        limit: int,
        cursor: str | None = None,
        key: str | None = None,
        keys: Sequence[str] | None = None,
        state: IncidentState | None = None,
    ) -> Page[IncidentRow]:
        """Newest first, by first failure, then by key (``IncidentRow.position``). ``key``: only this one."""

    def outlines(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        limit: int,
        cursor: str | None = None,
        key: str | None = None,
        state: IncidentState | None = None,
    ) -> Page[IncidentOutline]:
        """As ``incidents`` with the same cursors, without texts and deliveries, at a fraction of the cost."""

    def delivered(self) -> dict[str, float]:
        """Incident key → when it was first delivered, by the last channel that did; only delivered incidents."""

    def workers(self) -> list[Worker]:
        """The workers as of the last flush."""

    def buckets(self, since: float, until: float) -> list[BucketRow]:
        """Buckets that start in [since, until)."""

    def history(
        self, since: float, until: float, *, step: int, names: Sequence[str] | None = None, queue: str | None = None
    ) -> list[HistoryRow]:
        """Buckets that start in [since, until), summed by ``step`` seconds of Unix time: over all tasks, or for each.

        ``step`` is a multiple of BUCKET_SECONDS. Without ``names`` the rows have no name. Spans without events have no
        row. Ordered by name and start.
        """

    def task_hours(self, name: str, since: float, until: float) -> list[HourRow]:
        """Run and wait times of a task in the hours that start in [since, until), over all queues.

        Hours without any are left out.
        """

    def queue_hours(self, queue: str, since: float, until: float) -> list[HourRow]:
        """As ``task_hours``, of all tasks in a queue together: all of their checkpoints since then are read."""

    def queue_lengths(
        self,
        since: float,
        until: float,
        *,
        step: int,
        limit: int,
        cursor: str | None = None,
        queues: Sequence[str] | None = None,
    ) -> Page[QueueLengthRow]:
        """Lengths of these queues, or all, by ``step`` seconds of Unix time, of buckets that start in [since, until).

        ``step`` is a multiple of BUCKET_SECONDS. Ordered by queue and start; spans without a poll have no row.
        """

    def failing(self, since: float, until: float, *, clean: bool = False) -> list[FailingRow]:
        """Counts of each task with failures in the buckets that start in [since, until), by name.

        ``clean``: also of tasks without failures.
        """

    def failed(self, since: float, until: float) -> dict[str, int]:
        """Task → failures in the buckets that start in [since, until). Much cheaper than ``failing``."""

    def counted_since(self) -> float | None:
        """Start of the oldest bucket with counts of any task; None without any."""

    def groups(
        self,
        since: float,
        until: float,
        *,
        name: str | None = None,
        samples: int | None = None,
        new_first: bool = False,
    ) -> list[GroupRow]:
        """Error groups (of one task, or all) with failures in [since, until), most failures first, each with a sample.

        ``samples``: only the first so many groups have a sample, which costs more than the rest of a group.
        ``new_first``: groups whose first failure is not before ``since`` come first.
        """

    def samples(self, groups: Sequence[str], since: float, until: float) -> dict[str, Failure]:
        """The newest stored failure of each error group in [since, until); if there is none, the newest of all time."""

    def ended(self, uuid: str) -> list[TaskRun]:
        """Ended runs of a task ID, newest first."""

    def ended_runs(self, criteria: EndedFilter) -> RunPage:
        """Ended runs, of the newest ENDED_SEARCHED."""

    def sent_by(self, uuid: str, limit: int) -> list[TaskRun]:
        """Ended runs of tasks that this task has sent, newest first."""

    def ended_since(self) -> float | None:
        """Unix seconds at which the oldest run of the history ended; None if the history is empty."""

    def tracked(self, limit: int, *, uuid: str | None = None) -> list[tuple[str, TaskRef]]:
        """Unfinished tasks (or only ``uuid``) as of the last flush, those with the oldest last event first.

        Tasks that began and ended between two flushes never appear.
        """

    def starts(self) -> list[TaskStarts]:
        """The newest starts of each task, ordered by name."""

    def counters(self, at: float) -> dict[str, float]:
        """The monitor's own counters as of ``at``: the last values stored at or before it, one set per 15 minutes.

        ``inf`` returns the newest, whatever the clock was when they were written.
        """


class TaskView(Protocol):
    """Unfinished tasks, and tasks by ID. Safe from several threads; raises as a Reader."""

    live: bool
    """True if it shows the current state; False if it shows the leader's last commit."""

    def page(self, criteria: RunFilter) -> RunPage:
        """Unfinished runs that match a filter."""

    def waiting_since(self) -> dict[str, float]:
        """Queue → Unix seconds since when its oldest waiting task waits. Only queues with waiting tasks."""

    def find(self, uuid: str) -> list[TaskRun]:
        """Runs of a task ID: unfinished ones, then ended ones that are still in memory, newest first."""

    def children(self, uuid: str) -> list[TaskRun]:
        """Runs of tasks that a task has sent: unfinished ones, then ended ones that are still in memory."""
