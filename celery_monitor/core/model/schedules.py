"""What is known of a schedule: when it was due, and when it ran."""

import enum
from typing import Final

import msgspec

RUN_HISTORY: Final = 20
"""Newest runs of a schedule that are kept and shown."""


class Outcome(enum.StrEnum):
    """How a run of a schedule went."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRIED = "retried"
    REJECTED = "rejected"
    REVOKED = "revoked"


class ReportedBy(enum.StrEnum):
    """Which incident reports that a schedule has missed its start."""

    NOTHING = "nothing"
    WAITS = "waits"
    """None yet: others are due as well, and it may turn out that none of them runs."""
    OWN_INCIDENT = "its_own"
    SCHEDULER = "scheduler"
    """The incident of the scheduler: no scheduled task starts."""


class ScheduledRun(msgspec.Struct, frozen=True, gc=False):
    """One run, by the events' own times (Unix seconds)."""

    uuid: str
    at: float
    """When it started."""
    hostname: str = ""
    outcome: Outcome = Outcome.RUNNING
    ended_at: float = 0.0
    """0 while it runs."""


class TaskStarts(msgspec.Struct, frozen=True, gc=False):
    """The newest starts of a task (Unix seconds), about in their order."""

    name: str
    starts: tuple[float, ...]


class ScheduleState(msgspec.Struct, frozen=True):
    """One schedule, as it is stored and shown. Times are Unix seconds, 0 for none."""

    name: str
    spec: str
    """What was configured: a state of another one says nothing about when it is due."""
    task: str
    due: float
    """The next expected start that is not decided yet. 0: there is none."""
    watched_since: float
    """Since when the stream has been watched without a gap: what was due before is not judged."""
    since: float = 0.0
    """The first expected start that was missed and not made up for since; 0: it is well."""
    missed: int = 0
    """How many were missed since then."""
    reported_by: ReportedBy = msgspec.field(default=ReportedBy.NOTHING, name="told")  # as stored
    runs: tuple[ScheduledRun, ...] = ()
    """The newest last."""
    sent_at: float = 0.0
    received_at: float = 0.0
    received_by: str = ""
    unjudged: tuple[float, float] = (0.0, 0.0)
    """The last expected start that was not judged, because of a gap, and when that gap ended."""

    @property
    def last(self) -> ScheduledRun | None:
        """The newest run."""
        return self.runs[-1] if self.runs else None
