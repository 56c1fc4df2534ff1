"""The mutable state of one schedule: due, run and missed starts."""

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
"""Ends that prove that the run started, even if its task-started was lost."""
_MOST: Final = 100_000
"""Maximum number of expected starts skipped in one step; more mean that a clock was wrong."""


class LiveSchedule:
    """Mutable; owned by the ScheduleJudge."""

    def __init__(self, schedule: Schedule, stored: ScheduleState | None, now: float) -> None:
        """``stored``: the stored state. A new or changed schedule is expected from now on."""
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
        """Expected starts decided since the last ``ScheduleJudge.count``."""

    def _first(self, now: float) -> float:
        return now + self.schedule.every if self.schedule.every else self.schedule.expected(now)

    def change(self, **values: object) -> None:
        """Change fields of the state."""
        self.state = structs.replace(self.state, **values)
        self.dirty = True

    @property
    def deadline(self) -> float:
        """When the next expected start is decided; infinite if there is none."""
        return self._deadline(self.state.due) if self.state.due else float("inf")

    def decide(self, horizon: float) -> None:
        """Decide all expected starts with a deadline before ``horizon``: they have not happened."""
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
        """The stream was not watched until then, so starts in the meantime are unknown."""
        due = self.state.due
        if self.schedule.every and due:
            due = max(due, gap_end + self.schedule.every)
        self.change(watched_since=gap_end, due=due)

    def clock_set_back(self, seconds: float, now: float) -> None:
        """The machine's clock was set back by ``seconds`` to ``now``: move the times that it showed before.

        Otherwise, no start would be expected until the clock shows these times again.
        """
        if (due := self._due_at_most(now)) < self.state.due:
            self.change(due=due)
        state = self.state
        observed = (state.watched_since, state.since, state.unjudged[1], state.sent_at, state.received_at)
        if max(*observed, *(max(run.at, run.ended_at) for run in state.runs)) <= now:
            return

        def earlier(at: float) -> float:
            return at - seconds if at else 0.0

        self.change(
            watched_since=min(now, state.watched_since),
            since=earlier(state.since),
            sent_at=earlier(state.sent_at),
            received_at=earlier(state.received_at),
            unjudged=(earlier(state.unjudged[0]), earlier(state.unjudged[1])),
            runs=tuple(structs.replace(run, at=earlier(run.at), ended_at=earlier(run.ended_at)) for run in state.runs),
        )

    def _due_at_most(self, now: float) -> float:
        """The latest start that can be due now."""
        first = self._first(now)
        if self.schedule.every or not first:
            return first
        # The first one may have started, before the clock was set back or a little early.
        after = self._after(first)
        return after if self.state.due == after else first

    def observe(self, kind: int, uuid: str, at: float, hostname: str, runtime: float | None) -> bool:
        """Apply an event of its task. Returns whether it is a new run."""
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
        if known_run is not None:  # a retry continues the same run
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
        """The start belongs to the last due time; earlier due starts were missed."""
        # Events of one task arrive approximately in order, so earlier expected starts did not happen.
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
        """The newest run, if it may be taking too long. A run that started before a gap may have ended in it."""
        run, bound = self.state.last, self.schedule.max_runtime
        watched = run is not None and run.at >= self.state.watched_since
        return run if bound and watched and run is not None and run.outcome is Outcome.RUNNING else None

    def recover(self) -> None:
        """It has run, so no start is missed any more."""
        self.change(since=0.0, missed=0, reported_by=ReportedBy.NOTHING)
