"""Decides which schedules have missed a start and which incident reports it. Times are the events' Unix seconds."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from celery_monitor.core.incident import Episode, EpisodeEnd
from celery_monitor.core.model import Condition, Incident, ReportedBy, ScheduleState
from celery_monitor.core.rules import Rule
from celery_monitor.core.schedules import summaries
from celery_monitor.core.schedules.calendar import Schedule
from celery_monitor.core.schedules.live import LiveSchedule

SETTLE: Final = 2.0
"""Seconds beyond a deadline up to which the stream must be read, because workers send events in batches."""
MAX_WAIT: Final = 60.0
"""Seconds that a missed start waits for other due schedules, as possibly none of them runs."""
SCHEDULER: Final = "scheduler"
"""Subject of the incident that reports that no schedule has run."""
_OWN: Final = frozenset({ReportedBy.NOTHING, ReportedBy.WAITS})


class ScheduleJudge:
    """Judges all schedules. Not thread-safe: it belongs to the monitor."""

    def __init__(
        self,
        schedules: Sequence[Schedule],
        stored: Iterable[ScheduleState],
        now: float,
        *,
        scheduler: Rule | None = None,
    ) -> None:
        """``stored``: the stored states.

        ``scheduler``: the rule for the incident that no schedule has run. None: each schedule has its own incident.
        """
        known = {state.name: state for state in stored}
        self._live = [LiveSchedule(schedule, known.get(schedule.name), now) for schedule in schedules]
        self._scheduler = scheduler
        self._gone = [name for name in known if name not in {schedule.name for schedule in schedules}]
        self._overran: dict[str, str] = {}
        """Schedule → task ID of the run that takes too long, while it has an incident."""
        self._orphans: set[tuple[str, str]] = set()
        """Restored incidents for which it is not known yet whether they still hold."""
        self._horizon = 0.0
        self.by_task: dict[str, list[LiveSchedule]] = {}
        """Task → its schedules."""
        for live in self._live:
            self.by_task.setdefault(live.schedule.task, []).append(live)
        self._ended: list[EpisodeEnd] = []

    def resume(self, incidents: Iterable[Incident]) -> None:
        """Take the unresolved incidents of this condition; the next ``judge`` continues or ends each one."""
        self._orphans = {(incident.subject, incident.rule) for incident in incidents}

    def __bool__(self) -> bool:
        """Whether there is any schedule."""
        return bool(self._live)

    def observe(  # noqa: PLR0917 - what the monitor knows of an event
        self, kind: int, task: str, uuid: str, at: float, hostname: str, runtime: float | None
    ) -> None:
        """Apply an event of a task that has a schedule. ``kind`` as in ``model``; ``runtime``: seconds, if it ended."""
        for live in self.by_task.get(task, ()):
            if live.observe(kind, uuid, at, hostname, runtime):
                self._note_run(live, at)

    def unwatched(self, since: float, until: float) -> None:
        """Events of this period are lost. Starts that were due before are decided first."""
        self.decide(min(since, until))  # the clock may have been set back between them
        for live in self._live:
            live.gap(until)

    def clock_set_back(self, seconds: float, now: float) -> None:
        """The machine's clock was set back by ``seconds`` to ``now``. See LiveSchedule."""
        self._horizon = min(self._horizon, now)
        for live in self._live:
            live.clock_set_back(seconds, now)

    def decide(self, read_until: float) -> None:
        """Decide starts, now that everything published before this time is known. An earlier time has no effect."""
        self._horizon = max(self._horizon, read_until)
        for live in self._live:
            live.decide(self._horizon - SETTLE)

    def judge(self, read_until: float) -> list[Episode | EpisodeEnd]:
        """Returns the episodes that hold, and those that have ended since the last call."""
        self.decide(read_until)
        missing = [live for live in self._live if live.state.since]
        for live in missing:
            if live.state.reported_by in _OWN:
                self._assign(live, missing)
        changes: list[Episode | EpisodeEnd] = [*self._ended]
        self._ended = []
        changes += (self._episode(live) for live in missing if live.state.reported_by is ReportedBy.OWN_INCIDENT)
        silent = [live for live in missing if live.state.reported_by is ReportedBy.SCHEDULER]
        if silent and self._scheduler is not None:
            changes.append(self._silence(silent, self._scheduler))
        changes += self._overruns()
        known = {(item.subject, item.rule.name) for item in changes if isinstance(item, Episode)}
        orphaned = [EpisodeEnd(Condition.MISSED, *item, self._horizon) for item in sorted(self._orphans - known)]
        self._orphans = set()
        return [*changes, *orphaned]

    def count(self) -> list[tuple[str, int, int]]:
        """(schedule, missed starts, starts that could not be judged) since the last call.

        Call it before ``take``, so that the counts are written together with the states.
        """
        counts = [
            (live.schedule.name, live.missed, live.unjudged) for live in self._live if live.missed or live.unjudged
        ]
        for live in self._live:
            live.missed = live.unjudged = 0
        return counts

    def take(self) -> tuple[list[ScheduleState], list[str]]:
        """States that changed since the last call, and names of schedules that are no longer configured."""
        changed = [live.state for live in self._live if live.dirty]
        for live in self._live:
            live.dirty = False
        removed, self._gone = self._gone, []
        return changed, removed

    def snapshot(self) -> list[tuple[Schedule, ScheduleState]]:
        """All schedules, in the order of the configuration."""
        return [(live.schedule, live.state) for live in self._live]

    def _note_run(self, live: LiveSchedule, at: float) -> None:
        """A schedule has run: its missed starts are over, and the scheduler is alive."""
        state = live.state
        if state.since and at >= live.earliest(state.since):
            if state.reported_by is ReportedBy.OWN_INCIDENT:
                self._ended.append(_over(live, at, f"{live.schedule.task} has started"))
            live.recover()
        silent = [other for other in self._live if other.state.reported_by is ReportedBy.SCHEDULER]
        silent_since = min((other.state.since for other in silent), default=at)
        if self._scheduler is not None and (
            state.reported_by is ReportedBy.SCHEDULER or (silent and at >= silent_since)
        ):
            late = ", ".join(other.schedule.name for other in silent if other is not live)
            summary = f"{live.schedule.name} has started again" + (f"; these have not yet: {late}" if late else "")
            self._ended.append(EpisodeEnd(Condition.MISSED, SCHEDULER, self._scheduler.name, at, summary))
            for other in silent:
                other.recover()

    def _assign(self, live: LiveSchedule, missing: Sequence[LiveSchedule]) -> None:
        """Decide whether its own incident or the scheduler's reports the missed start, or whether to wait."""
        newest = max((run.at for other in self._live for run in other.state.runs), default=0.0)
        together = [other for other in missing if newest < other.earliest(other.state.since)]
        since = live.earliest(live.state.since)
        if self._scheduler is None or newest >= since or len(self._live) == 1:
            live.change(reported_by=ReportedBy.OWN_INCIDENT)
        elif len(together) > 1:
            self._merge(together, since)
        elif any(self._is_due(other, since) for other in self._live if other is not live) and self._horizon < (
            live.schedule.deadline(live.state.since) + SETTLE + MAX_WAIT
        ):
            if live.state.reported_by is not ReportedBy.WAITS:
                live.change(reported_by=ReportedBy.WAITS)
        else:
            live.change(reported_by=ReportedBy.OWN_INCIDENT)

    def _is_due(self, live: LiveSchedule, since: float) -> bool:
        """Whether it should have started since then and still may. One with a missed start is not due."""
        return not live.state.since and since <= live.state.due <= self._horizon

    def _merge(self, missing: Sequence[LiveSchedule], since: float) -> None:
        """Report them in the scheduler's incident instead of one for each."""
        for other in missing:
            if other.state.reported_by is ReportedBy.OWN_INCIDENT:
                self._ended.append(_over(other, since, "No scheduled task starts: see the incident of the scheduler"))
            other.change(reported_by=ReportedBy.SCHEDULER)

    def _episode(self, live: LiveSchedule) -> Episode:
        schedule, state = live.schedule, live.state
        return Episode(
            Condition.MISSED, schedule.name, schedule.rule, state.since, self._horizon,
            summaries.missed(schedule, state), task=schedule.task, details=summaries.details(schedule, state),
            unwatched=_unwatched(state),
        )  # fmt: skip

    def _silence(self, silent: Sequence[LiveSchedule], rule: Rule) -> Episode:
        missing = [(live.schedule, live.state) for live in silent]
        since = min(state.since for _, state in missing)
        details = [("Did not start", "; ".join(summaries.overdue(*pair) for pair in missing[: summaries.NAMED]))]
        tasks = {schedule.task: state.missed for schedule, state in missing}
        return Episode(
            Condition.MISSED, SCHEDULER, rule, since, self._horizon, summaries.silent(missing), count=len(silent),
            details=details, tasks=tasks, unwatched=max(map(_unwatched, (state for _, state in missing))),
        )  # fmt: skip

    def _overruns(self) -> Iterator[Episode | EpisodeEnd]:
        for live in self._live:
            schedule, run = live.schedule, live.overrun
            late = run is not None and self._horizon - SETTLE > run.at + schedule.max_runtime
            known = self._overran.get(schedule.name)
            if known is not None and (run is None or run.uuid != known):
                del self._overran[schedule.name]
                yield _over(live, self._horizon, f"{schedule.task} has ended")
            if late and run is not None and live.state.reported_by is not ReportedBy.OWN_INCIDENT:
                self._overran[schedule.name] = run.uuid
                yield Episode(
                    Condition.MISSED, schedule.name, schedule.rule, run.at, self._horizon,
                    summaries.overran(schedule, run), task=schedule.task, samples=(run.uuid,),
                    workers={run.hostname: 1}, details=summaries.details(schedule, live.state)[:1],
                )  # fmt: skip


def _over(live: LiveSchedule, at: float, summary: str) -> EpisodeEnd:
    return EpisodeEnd(Condition.MISSED, live.schedule.name, live.schedule.rule.name, at, summary)


def _unwatched(state: ScheduleState) -> float:
    """Seconds of the gap after the last known run."""
    last = state.last
    return max(0.0, state.unjudged[1] - state.unjudged[0]) if last is None or state.unjudged[0] > last.at else 0.0
