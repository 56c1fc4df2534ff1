"""One schedule in memory: what was due, what ran, what was missed."""

from functools import lru_cache
from typing import Final

from msgspec import structs

from celery_monitor.core.model import (
    FAILED,
    RECEIVED,
    REJECTED,
    RETRIED,
    REVOKED,
    RUN_HISTORY,
    SENT,
    STARTED,
    SUCCEEDED,
    Outcome,
    ReportedBy,
    ScheduledRun,
    ScheduleState,
)
from celery_monitor.core.schedules.calendar import Schedule

_ENDS: Final = {
    SUCCEEDED: Outcome.SUCCEEDED,
    FAILED: Outcome.FAILED,
    RETRIED: Outcome.RETRIED,
    REJECTED: Outcome.REJECTED,
    REVOKED: Outcome.REVOKED,
}
_RAN: Final = frozenset({SUCCEEDED, FAILED, RETRIED})
"""Ends that prove a start whose own event was lost."""
_MOST: Final = 100_000
"""Expected starts that are passed over in one step; beyond it the clock was wrong."""


class LiveSchedule:
    """Mutable; owned by the judge."""

    def __init__(self, schedule: Schedule, stored: ScheduleState | None, now: float) -> None:
        """``stored``: as it was stored. A schedule that is new, or was changed, is expected from now on."""
        self.schedule = schedule
        self.earliest = lru_cache(maxsize=8)(schedule.earliest)
        self._deadline = lru_cache(maxsize=8)(schedule.deadline)
        if stored is None or stored.spec != schedule.spec:
            runs = stored.runs if stored is not None and stored.task == schedule.task else ()
            stored = ScheduleState(schedule.name, schedule.spec, schedule.task, self._first(now), now, runs=runs)
            self.dirty = True
        else:
            self.dirty = False
        self.state = stored
        self.missed = self.unjudged = 0
        """Expected starts that were decided since the judge asked last."""

    def _first(self, now: float) -> float:
        return now + self.schedule.every if self.schedule.every else self.schedule.expected(now)

    def change(self, **values: object) -> None:
        """Other values of the state."""
        self.state = structs.replace(self.state, **values)
        self.dirty = True

    @property
    def deadline(self) -> float:
        """When the next expected start is decided; infinite when there is none."""
        return self._deadline(self.state.due) if self.state.due else float("inf")

    def decide(self, horizon: float) -> None:
        """Everything whose deadline is before ``horizon`` has not started."""
        for _ in range(_MOST):
            due = self.state.due
            if self.deadline >= horizon:
                return
            begins = due - self.schedule.every if self.schedule.every else self.earliest(due)
            if begins < self.state.watched_since:
                self.unjudged += 1
                self.change(due=self._after(due), unjudged=(due, self.state.watched_since))
            else:
                self.missed += 1
                self.change(due=self._after(due), missed=self.state.missed + 1, since=self.state.since or due)
        self.change(due=self._first(horizon))

    def _after(self, due: float) -> float:
        return due + self.schedule.every if self.schedule.every else self.schedule.expected(due)

    def gap(self, gap_end: float) -> None:
        """Nothing was heard until then: what started in the meantime is not known."""
        due = self.state.due
        if self.schedule.every and due:
            due = max(due, gap_end + self.schedule.every)
        self.change(watched_since=gap_end, due=due)

    def observe(self, kind: int, uuid: str, at: float, hostname: str, runtime: float | None) -> bool:
        """An event of its task; whether it is a new run."""
        if kind == SENT:
            self.change(sent_at=max(at, self.state.sent_at))
        elif kind == RECEIVED:
            self.change(received_at=max(at, self.state.received_at), received_by=hostname)
        elif kind == STARTED:
            return self._start(uuid, at, hostname)
        else:
            return self._end(kind, uuid, at, hostname, runtime)
        return False

    def _start(self, uuid: str, at: float, hostname: str) -> bool:
        runs = self.state.runs
        known_run = next((run for run in reversed(runs) if run.uuid == uuid), None)
        if known_run is not None:  # a retry: the same run goes on
            self._replace(known_run, structs.replace(known_run, outcome=Outcome.RUNNING, ended_at=0.0))
            return False
        run = ScheduledRun(uuid, at, hostname)
        self.change(runs=tuple(sorted((*runs, run), key=lambda scheduled: scheduled.at)[-RUN_HISTORY:]))
        self._advance(at)
        return True

    def _end(self, kind: int, uuid: str, at: float, hostname: str, runtime: float | None) -> bool:
        known_run = next((run for run in reversed(self.state.runs) if run.uuid == uuid), None)
        new = known_run is None and kind in _RAN
        if new:
            self._start(uuid, at - (runtime or 0.0), hostname)
            known_run = next((run for run in self.state.runs if run.uuid == uuid), None)
        if known_run is not None:
            self._replace(known_run, structs.replace(known_run, outcome=_ENDS[kind], ended_at=at))
        return new

    def _replace(self, old: ScheduledRun, new: ScheduledRun) -> None:
        self.change(runs=tuple(new if run is old else run for run in self.state.runs))

    def _advance(self, at: float) -> None:
        """It belongs to what was due last; what was due before has not started."""
        # Events of one task come about in their order: what should have started before this has not.
        self.decide(at)
        if self.schedule.every:
            self.change(due=max(self.state.due, at + self.schedule.every))
            return
        for _ in range(_MOST):
            due = self.state.due
            if not due or at < self.earliest(due):
                return
            self.change(due=self._after(due))

    @property
    def overrun(self) -> ScheduledRun | None:
        """The newest run, while it may take too long. What began before a gap may have ended in it."""
        run, bound = self.state.last, self.schedule.max_runtime
        watched = run is not None and run.at >= self.state.watched_since
        return run if bound and watched and run is not None and run.outcome is Outcome.RUNNING else None

    def recover(self) -> None:
        """It has run, so it is no longer missed."""
        self.change(since=0.0, missed=0, reported_by=ReportedBy.NOTHING)
