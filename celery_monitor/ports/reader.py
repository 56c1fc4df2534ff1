"""Queries on the store, and on what runs now."""

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
"""No index finds a part of a text: what is read for it is bounded."""

ENDED_SEARCHED: Final = 20_000
"""Ended runs that are sifted, sorted and counted for a list."""


@dataclass(frozen=True, slots=True)
class FailureFilter:
    """What failures to list; None means any."""

    task: str | None = None
    exception: str | None = None
    tasks: Sequence[str] | None = None
    """Any of these."""
    exceptions: Sequence[str] | None = None
    """Any of these."""
    message: str | None = None
    """A part of the message, in any case; looked for in the newest MESSAGES_SEARCHED failures."""
    sort: str = "at"
    """``at``, ``name``, ``exception``, ``hostname``, ``reason`` or ``uuid``; of equal ones by their time."""
    descending: bool = True
    since: float | None = None
    until: float | None = None
    limit: int = 100
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedFilter:
    """Which of the kept runs that have ended to list; None means any."""

    matches_name: Callable[[str], bool] | None = None
    """Of a task's name."""
    stage: int | None = None
    """How they ended: a Stage."""
    queue: str | None = None
    hostname: str | None = None
    """Of the worker, whole."""
    sort: str = "ended"
    """``ended``, ``name``, ``stage``, ``runtime`` or ``hostname``; of equal ones the newest first."""
    descending: bool = True
    newest: int | None = None
    """``RunPage.newest`` of the first page, so that the next ones go on where it ended; None is the newest of now."""
    offset: int = 0
    limit: int = 50


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task and queue with its counts over the asked time."""

    name: str
    queue: str
    counts: tuple[int, ...]
    runtime_sum: float
    runtime_count: int
    last_failure_at: float | None


class Reader(Protocol):
    """Read-only queries for the page, the API and the report.

    Methods as in Store; those with a ``cursor`` raise InvalidCursorError.
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
    ) -> Page[TaskRow]:
        """Tasks by name and queue, in that order.

        ``names``: only these tasks; a few of them are found at once.
        ``exception``: only tasks that have failed with this class (its short name or the whole one) in that time.
        """

    def failures(self, criteria: FailureFilter) -> Page[Failure]:
        """Newest first."""

    def failure(self, uuid: str) -> list[Failure]:
        """All kept failures of a task ID, newest first."""

    def exceptions(self) -> list[str]:
        """Short names of the classes of all kept failures, sorted."""

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
        """As ``incidents``, without texts and deliveries, at a fraction of the cost. The cursors are the same."""

    def delivered(self) -> dict[str, float]:
        """When the last channel of each incident had first taken it, by its key; without those that none has."""

    def workers(self) -> list[Worker]:
        """As of the last flush."""

    def buckets(self, since: float, until: float) -> list[BucketRow]:
        """Buckets that start in [since, until)."""

    def history(
        self, since: float, until: float, *, step: int, names: Sequence[str] | None = None, queue: str | None = None
    ) -> list[HistoryRow]:
        """Buckets that start in [since, until), added up by ``step`` seconds of Unix time: of all tasks, or of each.

        ``step`` is a multiple of BUCKET_SECONDS. Without ``names`` the rows carry no name. A span without events has
        no row. By name and start.
        """

    def task_hours(self, name: str, since: float, until: float) -> list[HourRow]:
        """Run times and waiting times of a task in the hours that start in [since, until), all queues together.

        Hours without any are left out.
        """

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
        """Lengths of some queues, or of all, by ``step`` seconds of Unix time: of buckets that start in [since, until).

        ``step`` is a multiple of BUCKET_SECONDS. By queue and start; a span in which nobody looked has no row.
        """

    def failing(self, since: float, until: float, *, clean: bool = False) -> list[FailingRow]:
        """What the tasks with failures in the buckets that start in [since, until) did in these, by name.

        ``clean``: also those without any failure.
        """

    def failed(self, since: float, until: float) -> dict[str, int]:
        """Failures by task in the buckets that start in [since, until): as ``failing``, at a fraction of its cost."""

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
        """Error groups (of a task) with failures in [since, until), with one sample each, most failures first.

        ``samples``: only so many, the first, have one; a sample costs more than all else of its group.
        ``new_first``: those whose first failure is not before ``since`` come before the others.
        """

    def samples(self, groups: Sequence[str], since: float, until: float) -> dict[str, Failure]:
        """The newest kept failure of each error group: of [since, until), or of all where none of that is kept."""

    def ended(self, uuid: str) -> list[TaskRun]:
        """The kept runs of a task ID that have ended, the newest first."""

    def ended_runs(self, criteria: EndedFilter) -> RunPage:
        """Kept runs that have ended, of the newest ENDED_SEARCHED."""

    def sent_by(self, uuid: str, limit: int) -> list[TaskRun]:
        """Kept runs that have ended of tasks that this one has sent, the newest first."""

    def ended_since(self) -> float | None:
        """When the oldest kept run ended; None without any."""

    def tracked(self, limit: int, *, uuid: str | None = None) -> list[tuple[str, TaskRef]]:
        """Tasks under way (or this one) as of the last flush; those that began and ended within one are not there.

        Those that were heard of longest ago come first.
        """

    def starts(self) -> list[TaskStarts]:
        """The newest starts of each task, by name."""

    def counters(self, at: float) -> dict[str, float]:
        """The monitor's own counters as they were at ``at`` (the last values kept at or before it; each 15 minutes).

        ``inf`` is the newest, whatever the clock said when they were written.
        """


class TaskView(Protocol):
    """What runs now, and a task by its ID. Safe from several threads; raises as a Reader."""

    live: bool
    """Whether it is of this moment; else it is of the leader's last commit."""

    def page(self, criteria: RunFilter) -> RunPage:
        """Tasks under way that a filter asks for."""

    def find(self, uuid: str) -> list[TaskRun]:
        """Runs of a task ID: those under way, then those that have ended and are in memory, the newest first."""

    def children(self, uuid: str) -> list[TaskRun]:
        """Runs that a task has sent: those under way, then those that have ended and are in memory."""
