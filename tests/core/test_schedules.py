"""Schedules: what is expected, what was missed, and the incidents about it."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from zoneinfo import ZoneInfo

import msgspec
import pytest
from celery import Celery
from celery.schedules import crontab

from celery_monitor.core.incident import Episode, EpisodeEnd
from celery_monitor.core.model import (
    FAILED,
    RECEIVED,
    RETRIED,
    SENT,
    STARTED,
    SUCCEEDED,
    Condition,
    ReportedBy,
    ScheduleState,
    Severity,
)
from celery_monitor.core.rules import Rule
from celery_monitor.core.schedules.calendar import Schedule
from celery_monitor.core.schedules.judge import SCHEDULER, SETTLE, ScheduleJudge
from celery_monitor.runtime.schedule import next_due
from tests.contracts.values import incident

BERLIN, NEW_YORK, KOLKATA = (ZoneInfo(name) for name in ("Europe/Berlin", "America/New_York", "Asia/Kolkata"))
MINUTE, HOUR = 60.0, 3600.0
ONE_FOR_ALL = Rule(SCHEDULER, to=("oncall",), on=Condition.MISSED)


def cron(name: str, expression: str, zone: ZoneInfo, grace: float = 15 * MINUTE, max_runtime: float = 0.0) -> Schedule:
    """A schedule of the task with this name."""
    rule = Rule(name, severity=Severity.ERROR, to=("oncall",), on=Condition.MISSED)
    spec = f"{expression} {zone}"
    return Schedule(
        name, name, spec, rule, grace, next_time=partial(next_due, expression, zone), zone=zone, max_runtime=max_runtime
    )


def every(name: str, seconds: float, grace: float = 2 * MINUTE) -> Schedule:
    """The same with an interval."""
    return Schedule(name, name, f"every {seconds:g}s", Rule(name, on=Condition.MISSED), grace, every=seconds)


def at(text: str, zone: ZoneInfo = BERLIN) -> float:
    """A local time."""
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@dataclass
class Bench:
    """A judge and the open episodes."""

    schedules: list[Schedule]
    now: float
    stored: dict[str, ScheduleState] = field(default_factory=dict)
    open: dict[tuple[str, str], Episode] = field(default_factory=dict)
    opened: list[Episode] = field(default_factory=list)
    over: list[EpisodeEnd] = field(default_factory=list)
    missed: dict[str, int] = field(default_factory=dict)
    unjudged: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.start(self.now)

    def start(self, now: float) -> None:
        """Start another process from the stored state."""
        states = [msgspec.json.decode(msgspec.json.encode(one), type=ScheduleState) for one in self.stored.values()]
        self.judge = ScheduleJudge(self.schedules, states, now, scheduler=ONE_FOR_ALL)
        self.judge.resume(incident(one, subject=one, rule=rule) for one, rule in self.open)

    def run(self, task: str, began: float, took: float = 30.0, uuid: str | None = None) -> None:
        """A run that succeeds."""
        uuid = uuid or f"{task}@{began}"
        self.judge.observe(RECEIVED, task, uuid, began - 0.1, "w1@box", None)
        self.judge.observe(STARTED, task, uuid, began, "w1@box", 0.1)
        self.judge.observe(SUCCEEDED, task, uuid, began + took, "w1@box", took)

    def evaluate(self, read_until: float) -> list[str]:
        """Evaluate the schedules. Returns what has opened (+) and ended (-) since the last evaluation."""
        changes = []
        for one in self.judge.judge(read_until):
            identity = one.subject, one.rule if isinstance(one, EpisodeEnd) else one.rule.name
            if isinstance(one, EpisodeEnd):
                if self.open.pop(identity, None) is not None:
                    self.over.append(one)
                    changes.append(f"-{one.subject}")
            else:
                if identity not in self.open:
                    self.opened.append(one)
                    changes.append(f"+{one.subject}")
                self.open[identity] = one
        self.commit()
        return changes

    def commit(self) -> None:
        """Store the changes."""
        for name, missed, unjudged in self.judge.count():
            for counts, number in ((self.missed, missed), (self.unjudged, unjudged)):
                if number:
                    counts[name] = counts.get(name, 0) + number
        changed, gone = self.judge.take()
        self.stored |= {one.name: one for one in changed}
        for name in gone:
            self.stored.pop(name, None)


NIGHTLY = cron("shop.report.nightly", "0 3 * * *", BERLIN, max_runtime=HOUR)
SYNC = every("shop.sync", 5 * MINUTE)


def test_what_the_incident_says() -> None:
    """When it should have started, how the last run ended, and what was observed since."""
    bench = Bench([NIGHTLY], at("2026-11-25T12:00"))
    bench.run("shop.report.nightly", at("2026-11-26T03:00:02"), took=41)
    assert bench.evaluate(at("2026-11-27T03:15:01")) == []
    assert bench.evaluate(at("2026-11-27T03:15:03")) == ["+shop.report.nightly"]
    (incident,) = bench.open.values()
    assert incident.summary == (
        "shop.report.nightly did not start by 03:15:00 Europe/Berlin (0 3 * * * Europe/Berlin); "
        "last run yesterday 03:00:02, succeeded in 41 s"
    )
    assert (incident.condition, incident.task, incident.since) == (
        Condition.MISSED,
        "shop.report.nightly",
        at("2026-11-27T03:00"),
    )
    assert "celery beat" in dict(incident.details)["Received"]
    bench.judge.observe(RECEIVED, "shop.report.nightly", "u", at("2026-11-27T03:20"), "w1@box", None)
    bench.evaluate(at("2026-11-27T03:21"))
    assert "by w1@box, but not started" in dict(next(iter(bench.open.values())).details)["Received"]


def test_it_ends_when_it_runs_and_opens_anew() -> None:
    """One incident per episode, however many starts were missed."""
    bench = Bench([NIGHTLY], at("2026-11-25T12:00"))
    assert bench.evaluate(at("2026-11-26T04:00")) == ["+shop.report.nightly"]
    assert bench.evaluate(at("2026-11-28T04:00")) == []
    assert bench.missed == {"shop.report.nightly": 3}
    assert "; 3 starts missed; no earlier run is known" in next(iter(bench.open.values())).summary
    bench.run("shop.report.nightly", at("2026-11-28T09:00"))
    assert bench.evaluate(at("2026-11-28T10:00")) == ["-shop.report.nightly"]
    assert bench.evaluate(at("2026-11-29T03:16")) == ["+shop.report.nightly"]
    assert bench.missed == {"shop.report.nightly": 4}


def test_a_start_that_is_early_or_late_belongs_to_its_time() -> None:
    """A start up to a minute early, as clocks differ, or within the grace, is on time."""
    bench = Bench([NIGHTLY], at("2026-11-25T12:00"))
    for day, time in ((26, "02:59:15"), (27, "03:00:00"), (28, "03:14:59")):
        bench.run("shop.report.nightly", at(f"2026-11-{day}T{time}"))
        assert bench.evaluate(at(f"2026-11-{day}T04:00")) == []
    bench.run("shop.report.nightly", at("2026-11-29T02:58:00"))  # by hand: it is no start of 03:00
    assert bench.evaluate(at("2026-11-29T04:00")) == ["+shop.report.nightly"]


def test_an_interval_counts_from_the_last_start() -> None:
    """Celery beat's own intervals drift, and restart with it."""
    start = at("2026-11-25T12:00")
    bench = Bench([SYNC], start)
    last = start
    for step in (300.1, 301.0, 120.0, 419.0):
        last += step
        bench.run("shop.sync", last)
        assert bench.evaluate(last + 1) == []
    assert bench.evaluate(last + 420) == []
    assert bench.evaluate(last + 423) == ["+shop.sync"]
    assert bench.evaluate(last + 300 * 4 + 123) == []
    assert bench.missed == {"shop.sync": 4}
    bench.run("shop.sync", last + 2000)
    assert bench.evaluate(last + 2001) == ["-shop.sync"]


def test_a_retry_is_no_new_start() -> None:
    """A retry has the same task ID."""
    bench = Bench([SYNC], 0.0)
    bench.judge.observe(STARTED, "shop.sync", "u", 300.0, "w", None)
    for time in range(400, 3000, 100):
        bench.judge.observe(RETRIED, "shop.sync", "u", time, "w", None)
        bench.judge.observe(STARTED, "shop.sync", "u", time + 1, "w", None)
    assert bench.evaluate(800.0) == ["+shop.sync"]


def test_an_end_proves_a_start_that_was_lost() -> None:
    """The start is computed from the run time."""
    bench = Bench([NIGHTLY], at("2026-11-25T12:00"))
    bench.judge.observe(SUCCEEDED, "shop.report.nightly", "u", at("2026-11-26T03:30"), "w", 29 * MINUTE)
    assert bench.evaluate(at("2026-11-26T04:00")) == []
    bench.judge.observe(FAILED, "shop.report.nightly", "v", at("2026-11-27T03:05"), "w", None)
    assert bench.evaluate(at("2026-11-27T04:00")) == []


def test_a_run_that_takes_too_long() -> None:
    """The incident opens when the run exceeds max_runtime, and ends with the run."""
    bench = Bench([NIGHTLY], at("2026-11-25T12:00"))
    bench.judge.observe(STARTED, "shop.report.nightly", "u", at("2026-11-26T03:00:02"), "w1@box", None)
    assert bench.evaluate(at("2026-11-26T04:00:03")) == []
    assert bench.evaluate(at("2026-11-26T04:00:05")) == ["+shop.report.nightly"]
    incident = next(iter(bench.open.values()))
    assert "has been running since 03:00:02 Europe/Berlin, longer than its max_runtime of 1 h" in incident.summary
    assert (incident.samples, dict(incident.workers)) == (("u",), {"w1@box": 1})
    bench.judge.observe(SUCCEEDED, "shop.report.nightly", "u", at("2026-11-26T04:30"), "w1@box", None)
    assert bench.evaluate(at("2026-11-26T04:31")) == ["-shop.report.nightly"]


def test_what_began_before_a_gap_may_have_ended_in_it() -> None:
    """A run whose end may be lost opens no incident."""
    bench = Bench([NIGHTLY], at("2026-11-25T12:00"))
    bench.judge.observe(STARTED, "shop.report.nightly", "u", at("2026-11-26T03:00:02"), "w1@box", None)
    bench.judge.unwatched(at("2026-11-26T03:30"), at("2026-11-26T03:31"))
    assert bench.evaluate(at("2026-11-26T06:00")) == []


@pytest.mark.parametrize("began", ["02:50", "02:59:30", "03:01", "03:14:59"])
def test_what_was_due_in_a_gap_is_not_judged(began: str) -> None:
    """It is counted as not judged, and a later incident mentions it."""
    bench = Bench([NIGHTLY], at("2026-11-25T12:00"))
    bench.evaluate(at("2026-11-26T02:00"))
    bench.judge.unwatched(at(f"2026-11-26T{began}"), at("2026-11-26T03:40"))
    assert bench.evaluate(at("2026-11-26T04:00")) == []
    assert (bench.missed, bench.unjudged) == ({}, {"shop.report.nightly": 1})
    assert bench.evaluate(at("2026-11-27T04:00")) == ["+shop.report.nightly"]
    assert "Not watched" in dict(next(iter(bench.open.values())).details)


def test_a_gap_after_the_deadline_changes_nothing() -> None:
    """The result was certain before the gap, even if it was not evaluated yet."""
    bench = Bench([NIGHTLY], at("2026-11-25T12:00"))
    bench.judge.unwatched(at("2026-11-26T03:15:10"), at("2026-11-26T03:40"))
    assert bench.evaluate(at("2026-11-26T03:40:30")) == ["+shop.report.nightly"]


def test_an_interval_after_a_gap() -> None:
    """The interval counts from the end of the gap, in which a start may have happened."""
    bench = Bench([SYNC], 0.0)
    bench.run("shop.sync", 300.0)
    bench.judge.unwatched(500.0, 1000.0)
    assert bench.evaluate(1000.0 + 420) == []
    assert bench.evaluate(1000.0 + 423) == ["+shop.sync"]


def test_a_backlog_is_judged_by_the_events_own_times() -> None:
    """After two days of downtime with events in the broker, nothing opens, and missed starts are counted."""
    bench = Bench([NIGHTLY], at("2026-11-25T12:00"))
    bench.evaluate(at("2026-11-25T13:00"))
    bench.start(at("2026-11-28T09:00"))
    assert bench.evaluate(at("2026-11-25T13:00")) == []
    bench.run("shop.report.nightly", at("2026-11-26T03:00:01"))
    bench.run("shop.report.nightly", at("2026-11-28T03:00:01"))
    assert bench.evaluate(at("2026-11-28T09:00")) == []
    assert bench.missed == {"shop.report.nightly": 1}


HOURLY = [cron(f"shop.h{number}", f"{number * 10} * * * *", BERLIN, 5 * MINUTE) for number in range(3)]


def test_a_silent_scheduler_is_one_incident() -> None:
    """One incident replaces the separate ones, and ends with the first run of any schedule."""
    start = at("2026-11-25T12:00")
    bench = Bench([SYNC, *HOURLY], start)
    bench.run("shop.sync", start + 60)
    opened = [bench.evaluate(start + 60 + second) for second in range(0, 4000, 10)]
    assert [one for told in opened for one in told] == ["+shop.sync", "-shop.sync", "+scheduler"]
    told = bench.open[SCHEDULER, SCHEDULER]
    assert told.summary.startswith("None of 4 scheduled tasks has started since 2026-11-25 11:06:00 UTC")
    ((label, overdue),) = told.details  # receivers make names of labels: nothing of the fleet goes into them
    assert (label, [one.split()[0] for one in overdue.split("; ")]) == (
        "Did not start", ["shop.sync", "shop.h0", "shop.h1", "shop.h2"],
    )  # fmt: skip
    bench.run("shop.sync", start + 4100)
    assert bench.evaluate(start + 4105) == ["-scheduler"]
    assert bench.over[-1].summary == "shop.sync has started again; these have not yet: shop.h0, shop.h1, shop.h2"
    assert bench.evaluate(start + 4110) == []


def test_schedules_that_miss_at_about_the_same_time_are_one_incident_at_once() -> None:
    """The first waits a minute for the others."""
    both = [every("a", 300.0, 60.0), every("b", 300.0, 60.0)]
    bench = Bench(both, 0.0)
    bench.run("a", 100.0)
    bench.run("b", 130.0)
    changes = [one for second in range(130, 700, 5) for one in bench.evaluate(second)]
    assert changes == ["+scheduler"]
    assert bench.opened[-1].since == 400.0


def test_a_state_of_an_earlier_version_is_read() -> None:
    """Stores have the incident of a missed start as ``told``, with these values; both remain."""
    stored = b'{"name":"sync","spec":"every 5m","task":"shop.sync","due":0.0,"watched_since":0.0,"told":"its_own"}'
    state = msgspec.json.decode(stored, type=ScheduleState)
    assert state.reported_by is ReportedBy.OWN_INCIDENT
    assert msgspec.json.decode(msgspec.json.encode(state))["told"] == "its_own"


def test_one_entry_that_was_removed_is_its_own_incident() -> None:
    """The other schedules run."""
    both = [every("a", 300.0, 60.0), every("b", 300.0, 60.0)]
    bench = Bench(both, 0.0)
    bench.run("a", 100.0)
    changes = []
    for second in range(100, 3000, 10):
        if second % 300 == 0:
            bench.run("b", float(second))
        changes += bench.evaluate(second)
    assert changes == ["+a"]


def test_a_schedule_that_misses_already_is_not_waited_for() -> None:
    """The remaining schedules are reported as soon as they miss a start."""
    bench = Bench([every("a", 300.0, 60.0), every("b", 300.0, 60.0)], 0.0)
    changes = []
    for second in range(0, 3000, 10):
        if second % 300 == 0 and second < 1500:
            bench.run("b", float(second))
        changes += [(second, one) for one in bench.evaluate(second)]
    assert changes == [(370, "+a"), (1570, "+b")]


def test_an_old_miss_says_nothing_about_the_scheduler() -> None:
    """Two misses that are days apart, with runs in between, do not mean that the scheduler is down."""
    bench = Bench([cron("a", "0 12 * * *", BERLIN), NIGHTLY], at("2026-11-24T13:00"))
    changes = []
    for day in (25, 26):
        bench.run("shop.report.nightly", at(f"2026-11-{day}T03:00:01"))
        changes += bench.evaluate(at(f"2026-11-{day}T13:00"))
    changes += bench.evaluate(at("2026-11-27T03:30"))
    assert changes == ["+a", "+shop.report.nightly"]


def test_sent_and_not_started() -> None:
    """Then the scheduler works, and the incident says so."""
    bench = Bench([every("a", 300.0, 60.0), every("b", 300.0, 60.0)], 0.0)
    for task in ("a", "b"):
        bench.run(task, 100.0)
        bench.judge.observe(SENT, task, "u", 401.0, "beat", None)
    changes = [one for second in range(100, 700, 5) for one in bench.evaluate(second)]
    assert changes == ["+scheduler"]
    assert bench.open[SCHEDULER, SCHEDULER].summary.endswith("They were sent but not started: check the workers")


def test_a_restart_goes_on_with_what_is_open() -> None:
    """Nothing opens twice, and incidents that ended meanwhile resolve."""
    bench = Bench([NIGHTLY, SYNC], at("2026-11-26T02:00"))
    bench.run("shop.sync", at("2026-11-26T03:14"))
    assert bench.evaluate(at("2026-11-26T03:16")) == ["+shop.report.nightly"]
    since = bench.opened[-1].since
    bench.start(at("2026-11-26T03:17"))
    bench.run("shop.sync", at("2026-11-26T03:18"))
    assert bench.evaluate(at("2026-11-26T03:19")) == []
    assert bench.open["shop.report.nightly", "shop.report.nightly"].since == since
    bench.start(at("2026-11-26T03:20"))
    bench.run("shop.report.nightly", at("2026-11-26T03:21"))
    assert bench.evaluate(at("2026-11-26T03:22")) == ["-shop.report.nightly"]


def test_a_changed_or_new_schedule_is_expected_from_now_on() -> None:
    """Misses under an older configuration do not count; a removed schedule leaves nothing behind."""
    bench = Bench([NIGHTLY, SYNC], at("2026-11-25T12:00"))
    bench.evaluate(at("2026-11-25T12:01"))
    changed = replace(NIGHTLY, spec="0 5 * * * Europe/Berlin", next_time=partial(next_due, "0 5 * * *", BERLIN))
    bench.schedules = [changed]
    bench.start(at("2026-11-26T04:00"))
    assert bench.evaluate(at("2026-11-26T04:01")) == []
    assert set(bench.stored) == {"shop.report.nightly"}
    assert bench.evaluate(at("2026-11-26T05:16")) == ["+shop.report.nightly"]


@pytest.mark.parametrize("back", [MINUTE, HOUR, 26 * HOUR, 24 * 30 * HOUR])
@pytest.mark.parametrize(
    "schedule", [SYNC, *(cron("shop.task", minutes, BERLIN, 5 * MINUTE) for minutes in ("0 * * * *", "*/15 * * * *"))]
)
@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_is_set_back_stops_no_schedule(schedule: Schedule, back: float, *, restarted: bool) -> None:
    """While it runs on time nothing is missed; what does not start is missed as soon as without the change."""
    task, start = schedule.task, at("2026-11-25T12:00")
    bench = Bench([schedule], start)

    def times(since: float, until: float) -> Iterator[float]:
        due = since
        while (due := due + schedule.every if schedule.every else schedule.expected(due)) < until:
            yield due + 1

    for began in times(start, start + 3 * HOUR + 10 * MINUTE):
        bench.run(task, began)
    now = start + 3 * HOUR + 10 * MINUTE
    assert bench.evaluate(now) == []
    now -= back
    if restarted:
        bench.start(now)
    bench.judge.clock_set_back(back, now)
    for began in times(now, now + 3 * HOUR):
        bench.run(task, began, uuid=f"{began} again")
        assert bench.evaluate(began + 1) == []
    now += 3 * HOUR
    assert bench.evaluate(now) == []
    assert bench.evaluate(now + HOUR + 20 * MINUTE) == [f"+{task}"]
    (state,) = bench.stored.values()
    assert max(run.at for run in state.runs) < now
    bench.run(task, now + 2 * HOUR + 1)
    assert bench.evaluate(now + 2 * HOUR + 5) == [f"-{task}"]


def test_a_missed_start_ends_with_a_run_after_the_clock_is_set_back() -> None:
    """Its incident does not stay open until the clock shows the time of the missed start again."""
    bench = Bench([NIGHTLY], at("2026-11-25T12:00"))
    assert bench.evaluate(at("2026-11-28T04:00")) == ["+shop.report.nightly"]
    bench.judge.clock_set_back(48 * HOUR, at("2026-11-26T04:00"))
    assert bench.evaluate(at("2026-11-26T04:01")) == []
    bench.run("shop.report.nightly", at("2026-11-26T04:05"))
    assert bench.evaluate(at("2026-11-26T04:06")) == ["-shop.report.nightly"]
    assert bench.evaluate(at("2026-11-27T03:16")) == ["+shop.report.nightly"]


def test_a_start_just_before_the_clock_is_set_back_is_expected_once() -> None:
    """The clock shows its time twice."""
    bench = Bench([NIGHTLY], at("2026-11-25T12:00"))
    bench.run("shop.report.nightly", at("2026-11-26T03:00:02"))
    assert bench.evaluate(at("2026-11-26T03:00:10")) == []
    bench.judge.clock_set_back(120.0, at("2026-11-26T02:58:10"))
    assert bench.evaluate(at("2026-11-26T12:00")) == []
    assert bench.evaluate(at("2026-11-27T03:16")) == ["+shop.report.nightly"]


def test_a_gap_in_which_the_clock_is_set_back() -> None:
    """It decides nothing that is in the future."""
    bench = Bench([SYNC], at("2026-11-25T12:00"))
    bench.run("shop.sync", at("2026-11-25T12:00:10"))
    bench.judge.unwatched(at("2026-11-25T15:00"), at("2026-11-25T12:01"))
    assert bench.evaluate(at("2026-11-25T12:02")) == []
    assert bench.evaluate(at("2026-11-25T12:10")) == ["+shop.sync"]


# --- a year ---------------------------------------------------------------------------------------------------------

YEAR = [
    cron("nightly", "0 3 * * *", BERLIN),
    cron("leap", "30 2 * * *", NEW_YORK),  # left out in March, twice in November
    cron("month", "15 0 31 * *", KOLKATA),
    cron("hourly", "0 1-4 * * *", NEW_YORK, 10 * MINUTE),
    every("sync", HOUR),
]
SKIPPED = {"month": 0.4, "nightly": 0.1, "leap": 0.1, "hourly": 0.03, "sync": 0.01}
FROM, UNTIL = (at(day, ZoneInfo("UTC")) for day in ("2026-01-01T00:00", "2027-01-01T00:00"))


def beat(schedule: Schedule, shake: random.Random, since: float = FROM, until: float = UNTIL) -> Iterator[float]:
    """When celery beat sends it within a period, according to Celery's own code."""
    now = since
    if schedule.every:
        while now < until:
            now += schedule.every + shake.random() / 50
            yield now
        return
    minute, hour, day, month, weekday = schedule.spec.split()[:5]
    app = Celery("beat")
    app.conf.timezone = str(schedule.zone)
    times = crontab(
        minute, hour, weekday, day, month, nowfun=lambda: datetime.fromtimestamp(now, schedule.zone), app=app
    )
    last = datetime.fromtimestamp(now, schedule.zone)
    while now < until:
        due, wait = times.is_due(last)
        if due:
            last = datetime.fromtimestamp(now, schedule.zone)
            yield now
        # It asks every five minutes at least; far from the next time that changes nothing.
        now += max(1.0, min(wait, 300.0) if wait < 1.2 * HOUR else wait - 1.1 * HOUR)


@pytest.mark.parametrize(
    "expression", ["0 * * * *", "*/20 * * * *", "30 2 * * *", "30 1 * * *", "0 0 * * *", "0 3 * * *"]
)
@pytest.mark.parametrize(
    ("zone", "day"),
    [
        (BERLIN, "2026-03-28"),
        (BERLIN, "2026-10-24"),
        (NEW_YORK, "2026-03-07"),
        (NEW_YORK, "2026-10-31"),
        (ZoneInfo("Australia/Lord_Howe"), "2026-04-04"),
        (ZoneInfo("Australia/Lord_Howe"), "2026-10-03"),
        (ZoneInfo("America/Santiago"), "2026-09-05"),
    ],
)
def test_the_days_on_which_clocks_change(expression: str, zone: ZoneInfo, day: str) -> None:
    """The expected starts equal celery beat's, which differ from cron's; also for half an hour."""
    schedule = cron("task", expression, zone, 10 * MINUTE)
    start = at(f"{day}T00:30", zone)
    bench = Bench([schedule], start)
    for sent in beat(schedule, random.Random(1), start, start + 60 * HOUR):
        bench.run("task", sent + 1)
        bench.evaluate(sent + 2)
    bench.evaluate(start + 60 * HOUR)
    assert (bench.missed, bench.opened) == ({}, [])


@pytest.mark.parametrize("seed", [4711, *(pytest.param(seed, marks=pytest.mark.campaign) for seed in (1, 2, 3, 5, 6))])
def test_a_year_of_five_schedules_in_three_zones(seed: int) -> None:
    """Both changes of clocks, month ends, restarts, take-overs, outages and lost events: 0 false, 0 missing.

    Each start that is left out on purpose is missed, once, and nothing else is.
    """
    shake = random.Random(seed)
    gaps = sorted(FROM + shake.random() * (UNTIL - FROM) for _ in range(60))
    outages = sorted(FROM + shake.random() * (UNTIL - FROM) for _ in range(100))
    events, left_out = [], {schedule.name: 0 for schedule in YEAR}
    for schedule in YEAR:
        previous = True
        for sent in beat(schedule, shake):
            # Left out alone, and far from lost events: what is due near them is not judged.
            alone = previous and all(abs(sent - gap) > 3 * HOUR for gap in gaps) and sent < UNTIL - 2 * HOUR
            previous = not (alone and shake.random() < SKIPPED[schedule.name])
            if previous:
                events.append((sent + shake.random() * 20, schedule.name, shake.random() * 60))
            else:
                left_out[schedule.name] += 1
    bench = Bench(YEAR, FROM)
    bench.evaluate(FROM)
    steps = [*((gap, "gap", 0.0) for gap in gaps), *((outage, "outage", 0.0) for outage in outages), *events]
    away_until = lost_until = 0.0
    for moment, what, took in sorted(steps):
        if what == "gap":
            lost_until = moment + shake.random() * HOUR
            bench.judge.unwatched(moment, lost_until)
        elif what == "outage":  # the broker keeps what comes
            away_until = moment + shake.random() * 6 * HOUR
            bench.commit()  # what is not stored comes again
            bench.start(moment)
        elif moment > lost_until:
            bench.run(what, moment, took)
            if moment > away_until and shake.random() < 0.2:
                bench.evaluate(moment - 0.01)
    bench.evaluate(UNTIL)
    assert bench.missed == {name: number for name, number in left_out.items() if number}
    assert left_out["month"] >= 1
    assert sum(left_out.values()) > 100
    assert SETTLE < 5
    assert {one.subject for one in bench.opened} <= {*left_out, SCHEDULER}
    assert len(bench.opened) - len(bench.over) == len(bench.open) <= 1
