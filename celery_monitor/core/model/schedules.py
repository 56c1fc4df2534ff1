"""State of a schedule: when it was due, and when it ran."""

import enum
from typing import Final

import msgspec

RUN_HISTORY: Final = 20
"""Number of runs that are kept and shown for a schedule, the newest."""


class Outcome(enum.StrEnum):
    """The outcome of a schedule's run."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRIED = "retried"
    REJECTED = "rejected"
    REVOKED = "revoked"


class ReportedBy(enum.StrEnum):
    """Which incident reports a missed start of a schedule."""

    NOTHING = "nothing"
    WAITS = "waits"
    """None yet, because others are due as well and possibly none of them runs."""
    OWN_INCIDENT = "its_own"
    SCHEDULER = "scheduler"
    """The scheduler's incident: no scheduled task starts."""


class ScheduledRun(msgspec.Struct, frozen=True, gc=False):
    """One run, with the events' timestamps (Unix seconds)."""

    uuid: str
    at: float
    """When it started."""
    hostname: str = ""
    outcome: Outcome = Outcome.RUNNING
    ended_at: float = 0.0
    """0 while it runs."""


class TaskStarts(msgspec.Struct, frozen=True, gc=False):
    """The newest starts of a task (Unix seconds), approximately in order."""

    name: str
    starts: tuple[float, ...]


class ScheduleState(msgspec.Struct, frozen=True):
    """The stored state of one schedule. Times are Unix seconds, 0 for none."""

    name: str
    spec: str
    """The configured specification: if it has changed, the stored due time is invalid."""
    task: str
    due: float
    """The next expected start that is not decided yet; 0 if there is none."""
    watched_since: float
    """Since when the stream has been watched without a gap: earlier starts are not judged."""
    since: float = 0.0
    """The first missed start since the schedule last ran; 0 if none is missed."""
    missed: int = 0
    """Number of starts missed since then."""
    reported_by: ReportedBy = msgspec.field(default=ReportedBy.NOTHING, name="told")  # as stored
    runs: tuple[ScheduledRun, ...] = ()
    """Newest last."""
    sent_at: float = 0.0
    received_at: float = 0.0
    received_by: str = ""
    unjudged: tuple[float, float] = (0.0, 0.0)
    """The last expected start that was not judged because of a gap, and the end of that gap."""

    @property
    def last(self) -> ScheduledRun | None:
        """The newest run."""
        return self.runs[-1] if self.runs else None
