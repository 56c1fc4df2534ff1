import datetime as dt
import functools
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from celery_monitor.core.model import Action, OutboxRequest
from celery_monitor.errors import StoreUnavailableError
from celery_monitor.runtime.schedule import (
    CHECK_INTERVAL,
    MAX_REPORT_DELAY,
    RETRY,
    SETTLE,
    ReportSchedule,
    last_due,
    next_due,
    reported_date,
)
from tests.properties import examples

ZONES = (
    "UTC",
    "Asia/Kathmandu",
    "America/Los_Angeles",
    "America/St_Johns",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "America/Havana",
    "Africa/Cairo",
    "America/Nuuk",
)
DAY = 86_400.0


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    """Unix seconds of a local time."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


@dataclass
class Claims:
    """The two ports of a schedule: claims of dates, and whether the monitor existed at a time."""

    entries: list[OutboxRequest] = field(default_factory=list)
    since: float = 0.0
    down: bool = False
    read_until: float | None = None

    @property
    def dates(self) -> list[str]:
        """The claimed dates, in order."""
        return [entry.key for entry in self.entries]

    def enqueue(self, entry: OutboxRequest, now: float) -> bool:
        if self.down:
            raise StoreUnavailableError("disk full")
        if entry.key in self.dates:
            return False
        self.entries.append(entry)
        return True

    def counters(self, at: float) -> dict[str, float]:
        if self.down:
            raise StoreUnavailableError("disk full")
        read = {} if self.read_until is None else {"read_until": self.read_until}
        return {"messages": 1.0, **read} if at >= self.since else {}


def schedule(claims: Claims, expression: str = "0 8 * * *", zone: str = "UTC") -> ReportSchedule:
    """A schedule of a new process."""
    return ReportSchedule(claims, claims, "email", expression, ZoneInfo(zone))  # type: ignore[arg-type]  # what it uses of them


@pytest.mark.parametrize(
    ("expression", "zone", "now", "last", "upcoming"),
    [
        ("0 8 * * *", "UTC", "2026-11-23T07:59:59", "2026-11-22T08:00", "2026-11-23T08:00"),
        ("0 8 * * *", "UTC", "2026-11-23T08:00", "2026-11-23T08:00", "2026-11-24T08:00"),
        ("0 8 * * *", "UTC", "2026-11-23T08:00:00.5", "2026-11-23T08:00", "2026-11-24T08:00"),
        ("0 8 * * *", "Asia/Kathmandu", "2026-11-23T12:00", "2026-11-23T08:00", "2026-11-24T08:00"),
        ("0 8 * * 1-5", "Europe/Berlin", "2026-11-22T12:00", "2026-11-20T08:00", "2026-11-23T08:00"),
        # 02:30 is left out on 8 March: cron runs it at the next time that exists.
        ("30 2 * * *", "America/Los_Angeles", "2026-03-08T12:00", "2026-03-08T03:00", "2026-03-09T02:30"),
        # 01:30 comes twice on 1 November: cron runs it the first time only.
        ("30 1 * * *", "America/Los_Angeles", "2026-11-01T12:00", "2026-11-01T01:30", "2026-11-02T01:30"),
        ("0 0 * * *", "America/Havana", "2026-11-01T12:00", "2026-11-01T00:00", "2026-11-02T00:00"),
        ("0 0 * * *", "Africa/Cairo", "2026-04-24T12:00", "2026-04-24T01:00", "2026-04-25T00:00"),
    ],
)
def test_due_times_follow_the_local_clock(expression: str, zone: str, now: str, last: str, upcoming: str) -> None:
    """The newest past time and the next one, also when clocks change."""
    tz = ZoneInfo(zone)
    assert last_due(expression, tz, at(now, zone)) == at(last, zone)
    assert next_due(expression, tz, at(now, zone)) == at(upcoming, zone)


@functools.cache
def _changes(zone: str) -> tuple[range, list[int]]:
    """The hours of 2026, and those in which a zone's clocks change."""
    hours = range(int(at("2026-01-01T00:00")), int(at("2027-01-01T00:00")), 3_600)
    offsets = [dt.datetime.fromtimestamp(hour, ZoneInfo(zone)).utcoffset() for hour in hours]
    return hours, [
        hour for hour, before, after in zip(hours[1:], offsets, offsets[1:], strict=False) if before != after
    ]


@st.composite
def _moments(draw: st.DrawFn) -> tuple[str, float]:
    """Draws a zone and a time of 2026, usually near a change of clocks."""
    zone = draw(st.sampled_from(ZONES))
    hours, changes = _changes(zone)
    anytime = st.integers(hours.start, hours.stop)
    near = st.builds(int.__add__, st.sampled_from(changes), st.integers(-7_200, 7_200)) if changes else anytime
    return zone, draw(anytime | near | near) + draw(st.floats(0, 0.999))


@settings(max_examples=examples(200))
@given(
    _moments(),
    st.sampled_from(["0 8 * * *", "0 0 * * *", "30 1 * * *", "30 2 * * *", "*/7 * * * *", "59 23 * * 0", "15 0 1 * *"]),
)
def test_now_lies_between_the_last_and_the_next_due_time(moment: tuple[str, float], expression: str) -> None:
    """Last ≤ now < next at every moment, including the repeated hour: a loop never spins or skips."""
    zone, now = moment
    last, upcoming = (find(expression, ZoneInfo(zone), now) for find in (last_due, next_due))
    assert last is not None
    assert upcoming is not None
    assert last <= now < upcoming


def test_in_the_hour_that_comes_twice_nothing_is_due_twice() -> None:
    """After the first 01:30 the next one is tomorrow's, even at the second 01:15."""
    zone = ZoneInfo("America/Los_Angeles")
    second = at("2026-11-01T01:15", "America/Los_Angeles", fold=1)
    assert next_due("30 1 * * *", zone, second) == at("2026-11-02T01:30", "America/Los_Angeles")


def test_a_rare_schedule_looks_far_ahead() -> None:
    """29 February, years away, is found."""
    assert schedule(Claims(), "0 8 29 2 *").run_once(at("2026-11-23T09:00")) == at("2028-02-29T08:00")


@pytest.mark.parametrize(
    ("due", "zone", "date"),
    [
        ("2026-11-23T08:00", "UTC", "2026-11-22"),
        ("2026-11-23T00:00", "UTC", "2026-11-22"),
        ("2026-11-23T23:59", "UTC", "2026-11-22"),
        ("2026-11-23T00:00", "Asia/Kathmandu", "2026-11-22"),
        ("2026-11-01T00:00", "America/Havana", "2026-10-31"),
        ("2026-03-01T08:00", "Europe/Berlin", "2026-02-28"),
    ],
)
def test_a_report_is_about_the_last_complete_day(due: str, zone: str, date: str) -> None:
    """At any time of a local day, it is the previous day."""
    time = dt.datetime.fromisoformat(due).time()
    assert str(reported_date(f"{time.minute} {time.hour} * * *", ZoneInfo(zone), at(due, zone))) == date


def test_a_day_whose_last_hour_comes_twice_is_not_complete_before_its_end() -> None:
    """In Cairo, midnight of 29 October 2026 is followed by the second 23:00."""
    second = at("2026-10-29T23:00", "Africa/Cairo", fold=1)
    assert second - at("2026-10-29T23:00", "Africa/Cairo") == 3_600.0
    assert str(reported_date("*/30 * * * *", ZoneInfo("Africa/Cairo"), second)) == "2026-10-28"


def test_a_report_is_claimed_when_it_is_due_and_once() -> None:
    """Not before, and not again by another turn or process."""
    claims = Claims(since=at("2026-11-22T20:00"))
    running = schedule(claims)
    assert running.run_once(at("2026-11-23T07:00")) == at("2026-11-23T08:00")
    assert claims.dates == []
    assert running.run_once(at("2026-11-23T08:00")) == at("2026-11-24T08:00")
    assert claims.entries == [OutboxRequest("email", "2026-11-22", Action.REPORT)]
    running.run_once(at("2026-11-23T08:01"))
    schedule(claims).run_once(at("2026-11-23T08:02"))
    assert claims.dates == ["2026-11-22"]


def test_after_downtime_the_newest_missed_day_is_caught_up() -> None:
    """One mail after a week's downtime, about the last complete day at the newest due time."""
    claims = Claims()
    schedule(claims).run_once(at("2026-11-16T09:00"))
    schedule(claims).run_once(at("2026-11-23T05:00"))
    assert claims.dates == ["2026-11-15", "2026-11-21"]


def test_a_new_monitor_reports_nothing_from_before_its_time() -> None:
    """Installed in the afternoon, it sends nothing until the next morning."""
    claims = Claims(since=at("2026-11-23T15:00"))
    running = schedule(claims)
    assert running.run_once(at("2026-11-23T15:00:01")) == at("2026-11-24T08:00")
    assert claims.dates == []
    running.run_once(at("2026-11-24T08:00:00.2"))
    assert claims.dates == ["2026-11-23"]


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("back", ["2026-11-24T07:30", "2026-11-20T12:00"])
def test_a_clock_that_is_set_back_reports_no_day_from_before_its_time(back: str, *, new: bool) -> None:
    """Nor the same day again; the next day is not skipped."""
    claims = Claims(since=at("2026-11-23T15:00"))
    running = ReportSchedule(claims, claims, "email", "0 8 * * *", dt.UTC, new=new)  # type: ignore[arg-type]
    running.run_once(at("2026-11-23T15:00"))
    running.run_once(at("2026-11-24T08:00"))
    running.run_once(at(back))
    running.run_once(at(back) + 60)
    assert claims.dates == ["2026-11-23"]
    for day in ("24", "25"):
        running.run_once(at(f"2026-11-{day}T08:00:01"))
    assert claims.dates == ["2026-11-23", "2026-11-24"]


def test_a_new_monitor_is_new_though_it_has_counted_already() -> None:
    """Its first counts may be stored before the schedule runs for the first time."""
    claims = Claims()
    running = ReportSchedule(claims, claims, "email", "0 8 * * *", dt.UTC, new=True)  # type: ignore[arg-type]
    assert running.run_once(at("2026-11-23T08:05")) == at("2026-11-24T08:00")
    running.run_once(at("2026-11-23T08:06"))
    assert claims.dates == []
    running.run_once(at("2026-11-24T08:00"))
    assert claims.dates == ["2026-11-23"]


def test_a_new_monitor_that_dies_around_its_first_report_still_sends_it() -> None:
    """Counters are stored with the last time of their 15 minutes, which may be after the due time."""
    claims = Claims(since=at("2026-11-23T08:00:03"))
    schedule(claims).run_once(at("2026-11-23T08:00:05"))
    assert claims.dates == ["2026-11-22"]


def test_an_unavailable_store_delays_the_claim() -> None:
    """It is retried soon, also at the start, and no report is lost."""
    claims = Claims(down=True)
    running = schedule(claims)
    now = at("2026-11-23T08:00")
    assert running.run_once(now) == now + RETRY
    claims.down = False
    assert running.run_once(now + RETRY) == at("2026-11-24T08:00")
    assert claims.dates == ["2026-11-22"]


def test_a_midnight_report_waits_for_the_days_last_events() -> None:
    """Events of the last second are counted when the mail is created."""
    claims = Claims()
    schedule(claims, "0 0 * * *", "Asia/Kathmandu").run_once(at("2026-11-23T00:00", "Asia/Kathmandu"))
    assert claims.entries[0].key == "2026-11-22"
    assert claims.entries[0].due_at == at("2026-11-23T00:00", "Asia/Kathmandu") + SETTLE


def test_a_report_waits_until_its_day_was_read_to_the_end() -> None:
    """After a night's downtime, the events in the broker are counted first, however long that takes."""
    claims = Claims(read_until=at("2026-11-22T20:00"))
    running, now = schedule(claims), at("2026-11-23T09:00")
    for seconds in range(100):
        assert running.run_once(now + seconds) == now + seconds + CHECK_INTERVAL
        claims.read_until = at("2026-11-22T20:00") + 144.0 * seconds
    assert claims.dates == []
    claims.read_until = at("2026-11-23T00:00")
    assert running.run_once(now + 100) == at("2026-11-24T08:00")
    assert claims.dates == ["2026-11-22"]


def test_a_stream_that_stays_away_does_not_silence_the_mail() -> None:
    """It waits for an hour, and again the next day if the stream was back in between."""
    claims = Claims(read_until=at("2026-11-22T20:00"))
    running, now = schedule(claims), at("2026-11-23T08:00")
    running.run_once(now)
    running.run_once(now + MAX_REPORT_DELAY - 1.0)
    assert claims.dates == []
    assert running.run_once(now + MAX_REPORT_DELAY) == at("2026-11-24T08:00")
    assert claims.dates == ["2026-11-22"]

    claims.read_until = at("2026-11-23T20:00")
    running.run_once(now + DAY)
    running.run_once(now + DAY + MAX_REPORT_DELAY - 1.0)
    assert claims.dates == ["2026-11-22"]
    running.run_once(now + DAY + MAX_REPORT_DELAY)
    assert claims.dates == ["2026-11-22", "2026-11-23"]


@pytest.mark.parametrize(
    "expression", ["0 8 * * *", "0 0 * * *", "30 1 * * *", "30 2 * * *", "0 23 * * *", "59 23 * * *", "0 */6 * * *"]
)
@pytest.mark.parametrize("zone", ZONES)
def test_every_day_of_a_year_is_reported_once_and_in_order(zone: str, expression: str) -> None:
    """Also on the days when the clocks change."""
    claims = Claims()
    running = schedule(claims, expression, zone)
    now, end = at("2026-01-01T12:00", zone), at("2027-01-01T12:00", zone)
    turns = 0
    with capture_logs():  # to print a line for each day takes longer than all else
        while now <= end:
            now = running.run_once(now)
            turns += 1
    first = dt.date(2025, 12, 30 if " 23 " in expression else 31)  # the last one that was due at the start
    assert claims.dates == [str(first + dt.timedelta(days=day)) for day in range(366)]
    assert turns <= 366 * 4 + 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(1, 3 * DAY), st.booleans()), max_size=30))
def test_kills_lose_and_repeat_nothing(steps: list[tuple[float, bool]]) -> None:
    """Whenever a process dies and another starts, each report is claimed once, and the newest is never missing."""
    claims = Claims()
    now = at("2026-11-01T12:00")
    running = schedule(claims)
    running.run_once(now)
    for wait, killed in steps:
        now += wait
        if killed:
            running = schedule(claims)
        running.run_once(now)
        due = last_due("0 8 * * *", dt.UTC, now)
        assert due is not None
        assert claims.dates[-1] == str(reported_date("0 8 * * *", dt.UTC, due))
    assert len(set(claims.dates)) == len(claims.dates)
