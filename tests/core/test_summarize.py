import datetime as dt
import json
from collections import Counter
from collections.abc import Iterable
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from celery_monitor.core.model import (
    BUCKET_SECONDS,
    COUNTS,
    FAILED,
    RETRIED,
    SUCCEEDED,
    BucketRow,
    Failure,
    GroupRow,
    Incident,
    IncidentRow,
    IncidentState,
    Reason,
    Severity,
)
from celery_monitor.core.summarize import DAYS_BEFORE, day_bounds, summarize
from celery_monitor.core.summary import MissedSchedule, Summary, summary_to_dict
from tests.builders import sent
from tests.daily_rows import day_rows

HOUR = 3600
DAYS = [
    ("UTC", dt.date(2026, 11, 22), 24),
    ("Asia/Kathmandu", dt.date(2026, 11, 22), 24),  # +05:45
    ("Asia/Kolkata", dt.date(2026, 11, 22), 24),  # +05:30
    ("America/Los_Angeles", dt.date(2026, 3, 8), 23),
    ("America/Los_Angeles", dt.date(2026, 11, 1), 25),
    ("America/St_Johns", dt.date(2026, 3, 8), 23),  # -03:30
    ("America/St_Johns", dt.date(2026, 11, 1), 25),
    ("Europe/Berlin", dt.date(2026, 3, 29), 23),
    ("Europe/Berlin", dt.date(2026, 10, 25), 25),
    ("Australia/Lord_Howe", dt.date(2026, 4, 5), 24.5),  # half an hour of daylight saving
    ("Australia/Lord_Howe", dt.date(2026, 10, 4), 23.5),
    ("Africa/Cairo", dt.date(2026, 4, 24), 23),  # begins at 01:00, for midnight is left out
    ("America/Havana", dt.date(2026, 11, 1), 25),  # midnight comes twice
    ("Asia/Beirut", dt.date(2026, 3, 29), 23),
]
DATE = dt.date(2026, 11, 22)
START, END = day_bounds(DATE, dt.UTC)


def row(start: int, name: str = "a", queue: str = "q", *, ok: int = 0, failed: int = 0, retried: int = 0) -> BucketRow:
    """A bucket."""
    counts = [1] * len(COUNTS)  # what is not asked for must not be counted
    counts[SUCCEEDED], counts[FAILED], counts[RETRIED] = ok, failed, retried
    return BucketRow(start, name, queue, tuple(counts), 0.0, 0)


def incident(task: str, first: float, last: float, *, state: IncidentState = IncidentState.OPEN) -> Incident:
    """An incident of that task."""
    return Incident(
        key=f"{task}/hour",
        fleet="shop",
        task=task,
        rule="",
        route="",
        severity=Severity.ERROR,
        state=state,
        reason=Reason.OPENED,
        hour="hour",
        opened_at=first,
        first_at=first,
        last_at=last,
        count=3,
        threshold=1,
    )


def make(
    rows: Iterable[BucketRow] = (),
    groups: Iterable[GroupRow] = (),
    incidents: Iterable[IncidentRow] = (),
    counters: tuple[dict[str, float], dict[str, float]] = ({}, {"uptime_seconds": 86_400.0}),
    now: float = END + 8 * HOUR,
    *,
    date: dt.date = DATE,
    zone: dt.tzinfo = dt.UTC,
    counted_since: float | None = 0.0,
    read_until: float | None = None,
    paging: bool = True,
) -> Summary:
    """The summary of DATE."""
    return summarize(
        date=date,
        zone=zone,
        fleet="shop",
        rows=day_rows(rows, date, zone),
        groups=list(groups),
        incidents=list(incidents),
        counters=counters,
        now=now,
        counted_since=counted_since,
        read_until=read_until,
        paging=paging,
    )


@pytest.mark.parametrize(("zone", "date", "hours"), DAYS)
def test_a_local_day_is_as_long_as_the_clocks_make_it(zone: str, date: dt.date, hours: float) -> None:
    """A local day runs from its first moment to the next day's first moment, and buckets never cross either."""
    start, end = day_bounds(date, ZoneInfo(zone))
    local = [dt.datetime.fromtimestamp(at, ZoneInfo(zone)).date() for at in (start - 1, start, end - 1, end)]
    assert end - start == hours * HOUR
    assert local == [date - dt.timedelta(days=1), date, date, date + dt.timedelta(days=1)]
    assert start % BUCKET_SECONDS == end % BUCKET_SECONDS == 0


@st.composite
def _days(draw: st.DrawFn) -> tuple[str, dt.date, list[tuple[float, str, int]]]:
    zone, date, _ = draw(st.sampled_from(DAYS))
    start, end = day_bounds(date, ZoneInfo(zone))
    moments = st.one_of(
        st.floats(start - 9 * 86_400, end + 86_400),
        st.sampled_from([start, start - 1e-3, start + 2 * HOUR, end, end - 1e-3, start - 7 * 86_400.0]),
    )
    events = st.tuples(moments, st.sampled_from("abc"), st.integers(0, len(COUNTS) - 1))
    return zone, date, draw(st.lists(events, max_size=60))


@given(_days())
def test_sums_equal_a_recount_of_the_raw_events(case: tuple[str, dt.date, list[tuple[float, str, int]]]) -> None:
    """Totals, hours, tasks and comparisons are what counting each event by its own local date gives."""
    zone_name, date, events = case
    zone = ZoneInfo(zone_name)
    stored: dict[tuple[int, str], list[int]] = {}
    recount: Counter[tuple[dt.date, str, int]] = Counter()
    by_hour: Counter[tuple[int, int]] = Counter()
    for at, name, kind in events:
        stored.setdefault((int(at // BUCKET_SECONDS) * BUCKET_SECONDS, name), [0] * len(COUNTS))[kind] += 1
        local = dt.datetime.fromtimestamp(at, zone)
        recount[local.date(), name, kind] += 1
        by_hour[local.hour, kind] += local.date() == date

    def total(day: dt.date, *kinds: int, names: str = "abc") -> int:
        return sum(recount[day, name, kind] for name in names for kind in kinds)

    rows = [BucketRow(start, name, "q", tuple(counts), 0.0, 0) for (start, name), counts in stored.items()]
    summary = make(rows, date=date, zone=zone)

    assert summary.day.executed == total(date, SUCCEEDED, FAILED)
    assert summary.day.failed == total(date, FAILED)
    assert summary.day.retried == total(date, RETRIED)
    assert {h.hour: (h.executed, h.failed, h.retried) for h in summary.hours} == {
        hour: (by_hour[hour, SUCCEEDED] + by_hour[hour, FAILED], by_hour[hour, FAILED], by_hour[hour, RETRIED])
        for hour in range(24)
    }
    assert {t.name: (t.executed, t.failed, t.retried) for t in summary.tasks} == {
        name: tuple(total(date, *kinds, names=name) for kinds in ((SUCCEEDED, FAILED), (FAILED,), (RETRIED,)))
        for name in "abc"
        if total(date, FAILED, names=name)
    }
    earlier = [date - dt.timedelta(days=back) for back in range(1, DAYS_BEFORE + 1)]
    known = [day for day in earlier if total(day, *range(len(COUNTS)))]
    assert (summary.before is not None) == (earlier[0] in known)
    if summary.before:
        assert summary.before.failed == total(earlier[0], FAILED)
    assert (summary.mean is not None) == bool(known)
    if summary.mean:
        assert summary.mean.days == len(known)
        assert summary.mean.failed == pytest.approx(sum(total(day, FAILED) for day in known) / len(known))


def test_the_hour_that_comes_twice_holds_both_and_the_one_left_out_nothing() -> None:
    """The strip has 24 hours of the local clock on every day."""
    zone = ZoneInfo("America/Los_Angeles")
    autumn, spring = dt.date(2026, 11, 1), dt.date(2026, 3, 8)
    counted = []
    for date in (autumn, spring):
        start, end = day_bounds(date, zone)
        rows = [row(at, failed=1) for at in range(start, end, BUCKET_SECONDS)]
        counted.append([hour.failed for hour in make(rows, date=date, zone=zone).hours])
    assert counted == [[4, 8, *[4] * 22], [4, 4, 0, *[4] * 21]]


def test_executed_is_succeeded_plus_failed() -> None:
    """Sent, received, started, retried, rejected and revoked tasks are not among the executed ones."""
    summary = make([row(START, ok=3, failed=1, retried=7)])
    assert (summary.day.executed, summary.day.failed, summary.day.retried) == (4, 1, 7)
    assert summary.day.rate == 0.25


def test_nothing_executed_has_no_rate() -> None:
    """Without executed tasks, the rate is unknown, not zero."""
    assert make().day.rate is None


def test_the_worst_task_comes_first() -> None:
    """More failures before fewer, a higher rate before a lower one, then the name."""
    rows = [
        row(START, "few", failed=1),
        row(START, "many", "q1", ok=100, failed=5),
        row(START, "many", "q2", failed=4),
        row(START, "rare", ok=996, failed=4),
        row(START, "often", ok=6, failed=4),
        row(START, "b", ok=6, failed=4),
        row(START, "fine", ok=10),
    ]
    tasks = make(rows).tasks
    assert [task.name for task in tasks] == ["many", "b", "often", "rare", "few"]
    assert (tasks[0].executed, tasks[0].failed) == (109, 9)


def test_days_without_events_are_not_in_the_mean() -> None:
    """A monitor that has run for three days compares with three days."""
    rows = [row(START - back * 86_400, ok=90, failed=back) for back in (1, 2, 3)]
    summary = make([*rows, row(START, failed=1)])
    assert summary.mean is not None
    assert (summary.mean.days, summary.mean.executed, summary.mean.failed) == (3, 92, 2)
    assert summary.mean.rate == pytest.approx(2 / 92)
    assert summary.before is not None
    assert summary.before.failed == 1
    assert (summary.tasks[0].failed_before, summary.tasks[0].failed_mean) == (1, 2)


def test_the_first_day_is_compared_with_nothing() -> None:
    """Without earlier days there is no comparison, instead of one with zero."""
    summary = make([row(START, failed=1), row(START - 8 * 86_400, failed=1), row(END, failed=1)])
    assert summary.day.failed == 1
    assert (summary.before, summary.mean) == (None, None)
    assert (summary.tasks[0].failed_before, summary.tasks[0].failed_mean) == (None, None)


def group(identity: str, count: int, first_at: float, name: str = "a", exception: str = "x.E") -> GroupRow:
    """An error group."""
    return GroupRow(identity, name, exception, "a.py:f", first_at, first_at + 60, count)


def test_an_error_is_new_when_its_first_failure_is_of_this_day() -> None:
    """New errors come first, then the others, each by their failures."""
    groups = [
        group("old", 9, START - 1.0),
        group("new", 2, START),
        group("newer", 3, START + 5.0, "b"),
        group("more", 10, START - 9.0),
    ]
    summary = make([row(START, "a", failed=21), row(START, "b", failed=3)], groups)
    assert [(error.id, error.new) for error in summary.errors] == [
        ("newer", True),
        ("new", True),
        ("more", False),
        ("old", False),
    ]
    assert summary.new_errors == 2
    assert {task.name: task.new_errors for task in summary.tasks} == {"a": 1, "b": 1}


@pytest.mark.parametrize(("counted_since", "new"), [(START - 900, 1), (START, 0), (START + 900, 0), (None, 0)])
def test_no_error_is_new_on_the_first_day(counted_since: float | None, new: int) -> None:
    """If counting began on this day, earlier errors are unknown."""
    groups = [group("few", 2, START + 5.0), group("many", 3, START - 5.0 if new else START + 5.0)]
    summary = make([row(START, "a", failed=5)], groups, counted_since=counted_since)
    assert summary.new_errors == sum(task.new_errors for task in summary.tasks) == new
    assert [error.id for error in summary.errors] == (["few", "many"] if new else ["many", "few"])


def test_a_tasks_exception_is_the_one_of_most_failures() -> None:
    """Two groups of one class count together."""
    groups = [
        group("1", 3, START, exception="x.E"),
        group("2", 3, START, exception="x.E"),
        group("3", 5, START, exception="F"),
    ]
    task = make([row(START, failed=11)], groups).tasks[0]
    assert (task.exception, task.exceptions) == ("x.E", 2)


def test_first_and_last_failure_are_exact_where_something_tells() -> None:
    """The time of an error group or incident is used if it lies in the first or last quarter of an hour."""
    first, last = START + 10 * HOUR, START + 12 * HOUR
    rows = [row(first, failed=1), row(last, failed=1)]
    vague = make(rows).tasks[0]
    assert (vague.first_at, vague.last_at) == (first, last + BUCKET_SECONDS)
    opened = IncidentRow(incident("a", first + 100.0, first + 200.0))
    seen = GroupRow("g", "a", "E", "", START - 5.0, last + 300.0, 2)
    exact = make(rows, [seen], [opened]).tasks[0]
    assert (exact.first_at, exact.last_at) == (first + 100.0, last + 300.0)


def test_incidents_are_counted_when_opened_and_named_when_undelivered() -> None:
    """Suppressed incidents and those of other days do not count; undelivered ones are listed with their error."""
    rows = [
        sent(incident("a", START, START), START + 1, 3, None),
        sent(incident("b", START + 5.0, START), None, 0, "503"),
        IncidentRow(incident("c", START, START, state=IncidentState.SUPPRESSED)),
        sent(incident("d", START, START, state=IncidentState.EXPIRED), START, 3, None),
        IncidentRow(incident("e", START - 1.0, START)),
        IncidentRow(incident("f", float(END), END)),
    ]
    summary = make([row(START, name, failed=1) for name in "abc"], incidents=rows)
    assert summary.incidents.opened == 3
    assert [(late.task, late.error, late.count) for late in summary.incidents.undelivered] == [("b", "503", 3)]
    assert [task.incidents for task in summary.tasks] == [1, 1, 0]


def test_a_storm_is_no_incident_of_a_task_with_its_name() -> None:
    """The storm counts for the day, but its incident and times do not apply to a task with the same name."""
    storm = structs.replace(incident("storm", START + 1.0, START + 2.0), reason=Reason.STORM_OPENED)
    summary = make([row(START, "storm", failed=1)], incidents=[sent(storm, START + 3, 3, None)])
    assert summary.incidents.opened == 1
    (task,) = summary.tasks
    assert (task.incidents, task.first_at, task.last_at) == (0, START, START + BUCKET_SECONDS)


def test_lost_tasks_are_those_of_the_day() -> None:
    """Those between start and end of the day, most first. A day with lost tasks is not a quiet one."""
    before = {"uptime_seconds": 0.0, "lost.a": 2.0, "lost.b": 1.0}
    after = {"uptime_seconds": 86_400.0, "lost.a": 3.0, "lost.b": 1.0, "lost.c": 4.0}
    summary = make(counters=(before, after))
    assert [(one.name, one.count) for one in summary.lost] == [("c", 4), ("a", 1)]
    assert not summary.quiet
    assert make().quiet


def test_without_anybody_to_page_nothing_is_undelivered() -> None:
    """Incidents that are only stored and shown do not count as undelivered."""
    opened = sent(incident("a", START, START), None, 0, "no routing key is configured")
    summary = make(incidents=[opened], paging=False)
    assert (summary.incidents.opened, summary.incidents.undelivered) == (1, ())


@pytest.mark.parametrize(
    ("opening", "closing", "complete", "unknown"),
    [
        ({}, {"uptime_seconds": 86_400.0}, True, False),
        ({"uptime_seconds": 5e6}, {"uptime_seconds": 5e6 + 86_350.0}, True, False),
        ({"uptime_seconds": 5e6}, {"uptime_seconds": 5e6 + 80_000.0}, False, False),
        ({"uptime_seconds": 5e6}, {"uptime_seconds": 5e6}, False, True),
        ({}, {}, False, True),
        ({}, {"uptime_seconds": 86_400.0, "stream_gap_seconds": 2.0}, False, False),
        ({}, {"uptime_seconds": 36_000.0, "stream_gap_seconds": 50_400.0}, False, False),
        ({}, {"uptime_seconds": 86_400.0, "stream_gap_seconds": 86_400.0}, False, True),
        ({}, {"uptime_seconds": 86_400.0, "unobserved": 1.0}, False, False),
        ({"unobserved": 9.0}, {"uptime_seconds": 86_400.0, "unobserved": 9.0}, True, False),
        ({}, {"uptime_seconds": 86_400.0, "unnamed_failures": 3.0, "starts": 2.0}, True, False),
    ],
)
def test_a_day_that_was_not_watched_is_not_a_good_day(
    opening: dict[str, float], closing: dict[str, float], *, complete: bool, unknown: bool
) -> None:
    """Zero failures are trusted only if the monitor ran, was subscribed, and knows of no lost events."""
    summary = make(counters=(opening, closing))
    assert (summary.health.complete, summary.unknown, summary.quiet) == (complete, unknown, complete)


@pytest.mark.parametrize(
    ("read_until", "now", "unread", "complete", "unknown"),
    [
        (None, END + 8 * HOUR, 0.0, True, False),
        (END, END + 8 * HOUR, 0.0, True, False),
        (END + 5 * HOUR, END + 8 * HOUR, 0.0, True, False),
        (END - 50.0, END + 8 * HOUR, 50.0, True, False),
        (END - 2 * HOUR, END + 8 * HOUR, 2 * HOUR, False, False),
        (START - 2 * HOUR, END + 8 * HOUR, 24 * HOUR, False, True),
        (END - 2 * HOUR, END - HOUR, 0.0, True, False),
    ],
)
def test_a_day_that_was_not_read_to_its_end_is_not_a_good_day(
    read_until: float | None, now: float, unread: float, *, complete: bool, unknown: bool
) -> None:
    """Events of a finished day may still be in the broker; for the current day this is not checked."""
    summary = make(counters=({}, {"uptime_seconds": min(now, END) - START}), now=now, read_until=read_until)
    assert summary.health.unread == unread
    assert (summary.health.complete, summary.unknown) == (complete, unknown)


def test_health_is_what_the_counters_grew_by() -> None:
    """Restarts, gaps, unobserved and unnamed are differences, and times are limited to the day."""
    opening = {
        "uptime_seconds": 10.0,
        "stream_gap_seconds": 5.0,
        "unobserved": 1.0,
        "unnamed_failures": 2.0,
        "starts": 3.0,
    }
    closing = {
        "uptime_seconds": 1e9,
        "stream_gap_seconds": 6.5,
        "unobserved": 5.0,
        "unnamed_failures": 9.0,
        "too_old_failures": 6.0,
        "starts": 4.0,
    }
    health = make(counters=(opening, closing)).health
    assert (health.elapsed, health.uptime, health.down, health.gap) == (86_400.0, 86_400.0, 0.0, 1.5)
    assert (health.unobserved, health.unnamed, health.restarts, health.too_old) == (4, 7, 1, 6)


def test_a_day_that_is_not_over_is_measured_until_now() -> None:
    """At noon, twelve monitored hours are complete."""
    noon = START + 12.0 * HOUR
    summary = make(counters=({}, {"uptime_seconds": 12.0 * HOUR}), now=noon)
    assert (summary.over, summary.health.elapsed, summary.health.complete) == (False, 12.0 * HOUR, True)


def test_the_document_is_json_with_times_in_utc_and_rates() -> None:
    """The API's document can be encoded, and has the values of the summary."""
    sample = Failure("id", "a", "q", "celery@box", START + 1.0, "E", "msg", "tb", "g", None, "opened")
    seen = GroupRow("g", "a", "E", "a.py:f", START + 1.0, START + 1.0, 1, sample)
    late = IncidentRow(incident("a", START + 1.0, START + 2.0))
    document = json.loads(json.dumps(summary_to_dict(make([row(START, ok=3, failed=1)], [seen], [late]))))
    assert document["date"] == "2026-11-22"
    assert (document["start"], document["end"]) == ("2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z")
    assert document["generated_at"] == "2026-11-23T08:00:00Z"
    assert document["day"] == {"executed": 4, "failed": 1, "retried": 0, "rate": 0.25}
    assert (document["before"], document["mean"]) == (None, None)
    assert (document["tasks"][0]["rate"], document["tasks"][0]["first_at"]) == (0.25, "2026-11-22T00:00:01Z")
    assert (document["errors"][0]["new"], document["errors"][0]["uuid"]) == (True, "id")
    assert document["incidents"]["undelivered"][0]["opened_at"] == "2026-11-22T00:00:01Z"
    assert (document["health"]["complete"], document["new_errors"], len(document["hours"])) == (True, 1, 24)


def test_missed_schedules_and_silenced_failures_are_of_the_day() -> None:
    """They are differences of their counters; the largest first, unknown ones last."""
    opening = {"missed.a": 3.0, "unjudged.c": 1.0, "silenced_failures": 10.0, "missed.same": 5.0}
    closing = {"missed.a": 4.0, "missed.b": 2.0, "unjudged.c": 2.0, "silenced_failures": 15.0, "missed.same": 5.0}
    summary = make(counters=(opening, closing))
    assert summary.schedules == (MissedSchedule("b", 2, 0), MissedSchedule("a", 1, 0), MissedSchedule("c", 0, 1))
    assert (summary.missed, summary.silenced, summary.quiet) == (3, 5, False)
