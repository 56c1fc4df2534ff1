import datetime as dt
import math
import random
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

import pytest

from celery_monitor.adapters.channels.email.render import PAGE_SIZE
from celery_monitor.core.model import BUCKET_SECONDS, FailingRow, GroupRow, HistoryRow, IncidentRow
from celery_monitor.core.paging import Page
from celery_monitor.core.summarize import day_bounds
from celery_monitor.runtime.day_sums import DaySums
from celery_monitor.runtime.report import DayReport

DATE = dt.date(2026, 11, 1)
ZONE = ZoneInfo("America/Los_Angeles")
START, END = day_bounds(DATE, ZONE)


@dataclass
class Recorder:
    """A Reader that records the queries, and has one failure in every hour."""

    fleet_of: list[tuple[float, float]] = field(default_factory=list)
    failing_of: list[tuple[float, float]] = field(default_factory=list)
    failed_of: list[tuple[float, float]] = field(default_factory=list)
    groups_of: list[tuple[float, float]] = field(default_factory=list)
    incidents_of: list[tuple[float | None, float | None]] = field(default_factory=list)
    counters_at: list[float] = field(default_factory=list)
    late: dict[int, int] = field(default_factory=dict)
    """Retries that come late, by the bucket."""
    began: float | None = START - 40 * 86_400.0

    def counted_since(self) -> float | None:
        return self.began

    def history(self, since: float, until: float, *, step: int) -> list[HistoryRow]:
        assert step == BUCKET_SECONDS  # days of every zone begin at one
        self.fleet_of.append((since, until))
        return [HistoryRow("", start, self.counts(start), 0.0, 0) for start in range(int(since), int(until), 3600)]

    def counts(self, start: int) -> tuple[int, ...]:
        return (0, 0, 0, 3, 1, self.late.get(start, 0), 0, 0)

    def failing(self, since: float, until: float, *, clean: bool) -> list[FailingRow]:
        assert clean  # what is added up to a day may fail in another part of it
        self.failing_of.append((since, until))
        return []

    def failed(self, since: float, until: float) -> dict[str, int]:
        self.failed_of.append((since, until))
        return {}

    def groups(self, since: float, until: float, *, samples: int, new_first: bool) -> list[GroupRow]:
        assert samples >= PAGE_SIZE.errors  # as many as any page shows, in the order of the report
        assert new_first
        self.groups_of.append((since, until))
        return []

    def incidents(self, *, since: float | None, until: float | None, limit: int) -> Page[IncidentRow]:
        assert limit > 1_000
        self.incidents_of.append((since, until))
        return Page(())

    def counters(self, at: float) -> dict[str, float]:
        self.counters_at.append(at)
        return {"uptime_seconds": at - START + 5.0}


def summary(reader: Recorder, now: float) -> tuple[int, float, float]:
    """Failures of the day, of the day before, and the uptime."""
    made = DayReport(reader, "shop", ZONE, paging=True).summary(DATE, now)  # type: ignore[arg-type]  # what it uses
    assert made.before is not None
    return made.day.failed, made.before.failed, made.health.uptime


def test_a_day_of_25_hours_is_read_whole() -> None:
    """The day and the seven before it are read from midnight to midnight, without overlap or hole."""
    reader = Recorder()
    assert summary(reader, END + 60.0) == (25, 24, END - START)
    assert reader.fleet_of == [(START - 7 * 86_400, END)]
    assert reader.failing_of == [(START, END - 3_600), (END - 3_600, END)]
    assert [end for _, end in reader.failed_of] == [*(start for start, _ in reader.failed_of[1:]), START]
    assert reader.failed_of[0][0] == START - 7 * 86_400
    assert reader.groups_of == reader.incidents_of == [(START, END)]
    assert reader.counters_at == [math.inf, START, END]


def test_a_day_that_is_not_over_is_watched_until_now() -> None:
    """The counters of its end are the current ones."""
    reader = Recorder()
    assert summary(reader, START + 3_600.0)[2] == 3_600.0
    assert reader.counters_at == [math.inf, START, START + 3_600.0]


def test_the_newest_counter_tells_how_far_the_stream_was_read() -> None:
    """Events read after midnight belong to the day, even if a mail of that time is created again much later."""

    class Behind(Recorder):
        def counters(self, at: float) -> dict[str, float]:
            return {
                "uptime_seconds": at - START + 5.0,
                "read_until": END - 7_200.0 if at > END + 60.0 else END - 9_000.0,
            }

    made = DayReport(Behind(), "shop", ZONE, paging=True).summary(DATE, END + 60.0)  # type: ignore[arg-type]
    assert made.health.unread == 7_200.0
    assert not made.health.complete


def test_a_day_is_read_again_where_its_counts_have_changed() -> None:
    """The seven days before today are read once, and one again when a late event is added to it."""
    reader = Recorder()
    report = DayReport(reader, "shop", ZONE, paging=True)  # type: ignore[arg-type]
    for later in (3_600.0, 3_700.0, 10_800.0, 80_000.0):
        report.summary(DATE, START + later)
        assert len(reader.failed_of) == 7, later
    reader.late[START - 86_400] = 1
    for _ in range(2):
        report.summary(DATE, START + 80_000.0)
        assert len(reader.failed_of) == 8
    assert reader.failed_of[-1] == (START - 86_400, START)


def test_the_hours_of_a_day_that_are_over_are_read_once() -> None:
    """Then only new hours are read, and those with late events; a finished day is read once."""
    reader = Recorder()
    report = DayReport(reader, "shop", ZONE, paging=True)  # type: ignore[arg-type]

    def read(later: float) -> list[tuple[float, float]]:
        reader.failing_of.clear()
        report.summary(DATE, START + later)
        return [(since - START, until - START) for since, until in reader.failing_of]

    whole = END - START
    assert read(8_200.0) == [(0, 7_200), (7_200, whole)]
    assert read(8_300.0) == [(7_200, whole)]
    assert read(12_000.0) == [(7_200, 10_800), (10_800, whole)]
    reader.late[START + 3_600] = 1
    assert read(12_000.0) == [(0, 10_800), (10_800, whole)]
    assert read(12_000.0) == [(10_800, whole)]
    assert read(whole + 900.0) == [(10_800, whole)]
    assert read(whole + 900.0) == []


def test_days_that_were_prepared_are_not_read_again() -> None:
    """The tasks of the report's day and the seven before it are cached, until a late event arrives."""
    reader = Recorder()
    report = DayReport(reader, "shop", ZONE, paging=True)  # type: ignore[arg-type]
    now = END + 3_600.0
    for back in range(10):
        assert report.prepare(DATE - dt.timedelta(days=back), now)
    assert len(reader.failing_of) == 10
    for back in range(3):
        report.summary(DATE - dt.timedelta(days=back), now)
    assert len(reader.failing_of) == 10
    assert not reader.failed_of
    reader.late[START - 86_400] = 1
    report.summary(DATE, now)
    assert reader.failed_of == [(START - 86_400, START)]
    assert report.prepare(DATE - dt.timedelta(days=1), now)
    assert reader.failing_of[10:] == [(START - 86_400, START)]


@pytest.mark.parametrize("began", [None, START - 3 * 86_400.0, START - 2.5 * 86_400.0])
def test_days_before_the_first_event_are_not_prepared(began: float | None) -> None:
    """The last prepared day is the one on which the store begins."""
    reader = Recorder()
    reader.began = began
    report = DayReport(reader, "shop", ZONE, paging=True)  # type: ignore[arg-type]
    goes_on = [report.prepare(DATE - dt.timedelta(days=back), END + 3_600.0) for back in range(4)]
    assert goes_on == [began is not None] * 3 + [False]


def test_days_are_kept_as_far_as_there_is_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest days are kept, and the one that was read last."""
    monkeypatch.setattr("celery_monitor.runtime.day_sums.MAX_ROWS", 30)

    class Failing(Recorder):
        def failing(self, since: float, until: float, *, clean: bool) -> list[FailingRow]:
            super().failing(since, until, clean=clean)
            return [FailingRow(f"shop.task{number}", 0, 1, 0, int(since), int(since)) for number in range(10)]

    reader = Failing()
    report = DayReport(reader, "shop", ZONE, paging=True)  # type: ignore[arg-type]
    now = END + 3_600.0
    days = [DATE - dt.timedelta(days=back) for back in range(5)]
    assert [report.prepare(day, now) for day in days[:3]] == [True, True, False]
    report.prepare(days[4], now)
    reader.failing_of.clear()
    for day, is_read in ((days[0], False), (days[1], False), (days[4], False), (days[2], True)):
        report.prepare(day, now)
        assert bool(reader.failing_of) == is_read, day


def test_what_is_kept_of_a_day_adds_up_to_its_rows() -> None:
    """For any reads and late events, it equals a complete read."""
    rng, buckets = random.Random(7), dict[tuple[int, str], tuple[int, int, int]]()

    class Stored(Recorder):
        def history(self, since: float, until: float, *, step: int) -> list[HistoryRow]:
            assert step == BUCKET_SECONDS
            rows = []
            for start in sorted({start for start, _ in buckets if since <= start < until}):
                succeeded, failed, retried = map(
                    sum, zip(*(n for (at, _), n in buckets.items() if at == start), strict=True)
                )
                rows.append(HistoryRow("", start, (0, 0, 0, succeeded, failed, retried, 0, 0), 0.0, 0))
            return rows

        def failing(self, since: float, until: float, *, clean: bool = False) -> list[FailingRow]:
            rows = []
            for name in sorted({name for start, name in buckets if since <= start < until}):
                of = {at: n for (at, each), n in buckets.items() if each == name and since <= at < until}
                failed = [at for at, numbers in of.items() if numbers[1]]
                if failed or clean:
                    one, two, three = map(sum, zip(*of.values(), strict=True))
                    rows.append(FailingRow(name, one, two, three, min(failed, default=0), max(failed, default=0)))
            return rows

    stored = Stored()
    sums = DaySums(stored)  # type: ignore[arg-type]
    for _ in range(300):
        now = START + rng.randrange(END - START + 7_200)
        for _ in range(rng.randrange(3)):
            start = START + rng.randrange(min(now, END - 1) - START + 1) // BUCKET_SECONDS * BUCKET_SECONDS
            added = rng.choice(((1, 0, 0), (0, 1, 0), (0, 0, 1)))
            key = start, rng.choice("abcdef")
            one, two, three = buckets.get(key, (0, 0, 0))
            buckets[key] = one + added[0], two + added[1], three + added[2]
        fleet = stored.history(START, END, step=BUCKET_SECONDS)
        assert sums.failing(START, END, fleet, now) == stored.failing(START, END)
