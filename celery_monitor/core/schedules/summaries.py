"""The texts of incidents about schedules."""

from datetime import date, datetime, timedelta, tzinfo
from typing import Final

from celery_monitor.core.headline import duration
from celery_monitor.core.model import Outcome, ScheduledRun, ScheduleState
from celery_monitor.core.schedules.calendar import Schedule

NAMED: Final = 20
_DONE: Final = {
    Outcome.SUCCEEDED: "succeeded",
    Outcome.FAILED: "failed",
    Outcome.RETRIED: "was retried",
    Outcome.REJECTED: "was rejected",
    Outcome.REVOKED: "was revoked",
}


def moment(at: float, zone: tzinfo, today: date) -> str:
    """A local time, with the day unless it is today: ``03:00:02``, ``yesterday 03:00:02``."""
    local = datetime.fromtimestamp(at, zone)
    day = local.date()
    prefix = {today: "", today - timedelta(days=1): "yesterday "}.get(day, f"{day} ")
    return f"{prefix}{local:%H:%M:%S}"


def last_run(run: ScheduledRun | None, zone: tzinfo, today: date) -> str:
    """The outcome of the newest run."""
    if run is None:
        return "no earlier run is known"
    text = f"last run {moment(run.at, zone, today)}"
    if run.outcome is Outcome.RUNNING:
        return f"{text}, end not seen"
    return f"{text}, {_DONE[run.outcome]} in {duration(max(0.0, run.ended_at - run.at))}"


def missed(schedule: Schedule, state: ScheduleState) -> str:
    """Summary: the schedule did not start."""
    zone, since = schedule.zone, state.since
    today = datetime.fromtimestamp(since, zone).date()
    deadline = datetime.fromtimestamp(schedule.deadline(since), zone)
    day = "" if deadline.date() == today else f" on {deadline.date()}"
    times = f"; {state.missed} starts missed" if state.missed > 1 else ""
    return (
        f"{schedule.task} did not start by {deadline:%H:%M:%S}{day} {zone} ({schedule.spec}){times}; "
        f"{last_run(state.last, zone, today)}"
    )


def overran(schedule: Schedule, run: ScheduledRun) -> str:
    """Summary: the run takes too long."""
    local = datetime.fromtimestamp(run.at, schedule.zone)
    return (
        f"{schedule.task} has been running since {local:%H:%M:%S} {schedule.zone}, "
        f"longer than its max_runtime of {duration(schedule.max_runtime)}"
    )


def details(schedule: Schedule, state: ScheduleState) -> list[tuple[str, str]]:
    """Details that help to find the cause: whether the task was sent and received."""
    zone, since = schedule.zone, schedule.earliest(state.since)
    details = [("Schedule", f"{schedule.name}: {schedule.spec}, grace {duration(schedule.grace)}")]

    def at(time: float) -> str:
        return f"{datetime.fromtimestamp(time, zone):%Y-%m-%d %H:%M:%S} {zone}"

    if state.received_at >= since:
        details.append(
            ("Received", f"{at(state.received_at)} by {state.received_by}, but not started: is that worker busy?")
        )
    elif state.sent_at >= since:
        details.append(
            ("Sent", f"{at(state.sent_at)}, but no worker has received it: does any worker consume its queue?")
        )
    else:
        details.append(
            ("Received", "not since it was due: is the scheduler (celery beat) running, and does it have this entry?")
        )
    if state.unjudged[0] and state.unjudged[1] <= state.since:
        details.append(
            ("Not watched", f"the start due at {at(state.unjudged[0])}, because the events of that time were lost")
        )
    return details


def overdue(schedule: Schedule, state: ScheduleState) -> str:
    """List entry of one of several schedules that did not start."""
    today = datetime.fromtimestamp(state.since, schedule.zone).date()
    deadline = moment(schedule.deadline(state.since), schedule.zone, today)
    return f"{schedule.name} by {deadline} {schedule.zone}, {last_run(state.last, schedule.zone, today)}"


def silent(missing: list[tuple[Schedule, ScheduleState]]) -> str:
    """Summary: no schedule has run."""
    names = [schedule.name for schedule, _ in missing]
    since = min(state.since for _, state in missing)
    zone = missing[0][0].zone
    listed = ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
    sent = any(max(state.sent_at, state.received_at) >= since for _, state in missing)
    cause = (
        "They were sent but not started: check the workers"
        if sent
        else "Check that the scheduler (celery beat) is running, and that workers consume its queues"
    )
    return (
        f"None of {len(names)} scheduled tasks has started since "
        f"{datetime.fromtimestamp(since, zone):%Y-%m-%d %H:%M:%S} {zone}: {listed}. {cause}"
    )
