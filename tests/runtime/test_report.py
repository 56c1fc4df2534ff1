import datetime as dt
import math
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from celery_monitor.adapters.channels.email.render import PAGE_SIZE
from celery_monitor.core.model import BUCKET_SECONDS, FailingRow, GroupRow, HistoryRow, IncidentRow
from celery_monitor.core.paging import Page
from celery_monitor.core.summarize import day_bounds
from celery_monitor.runtime.report import DayReport

DATE = dt.date(2026, 11, 1)
ZONE = ZoneInfo("America/Los_Angeles")
START, END = day_bounds(DATE, ZONE)


@dataclass
class Recorder:
    """A Reader that notes what it is asked, and holds one failure in every hour."""

    fleet_of: list[tuple[float, float]] = field(default_factory=list)
    failing_of: list[tuple[float, float]] = field(default_factory=list)
    failed_of: list[tuple[float, float]] = field(default_factory=list)
    groups_of: list[tuple[float, float]] = field(default_factory=list)
    incidents_of: list[tuple[float | None, float | None]] = field(default_factory=list)
    counters_at: list[float] = field(default_factory=list)

    def history(self, since: float, until: float, *, step: int) -> list[HistoryRow]:
        assert step == BUCKET_SECONDS  # days of every zone begin at one
        self.fleet_of.append((since, until))
        counts = (0, 0, 0, 3, 1, 0, 0, 0)
        return [HistoryRow("", start, counts, 0.0, 0) for start in range(int(since), int(until), 3600)]

    def failing(self, since: float, until: float) -> list[FailingRow]:
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
    assert reader.failing_of == [(START, END)]
    assert [end for _, end in reader.failed_of] == [*(start for start, _ in reader.failed_of[1:]), START]
    assert reader.failed_of[0][0] == START - 7 * 86_400
    assert reader.groups_of == reader.incidents_of == [(START, END)]
    assert reader.counters_at == [math.inf, START, END]


def test_a_day_that_is_not_over_is_watched_until_now() -> None:
    """The counters of its end are those of now."""
    reader = Recorder()
    assert summary(reader, START + 3_600.0)[2] == 3_600.0
    assert reader.counters_at == [math.inf, START, START + 3_600.0]


def test_the_newest_counter_tells_how_far_the_stream_was_read() -> None:
    """What was read after midnight belongs to the day too, also when a mail of that time is made again much later."""

    class Behind(Recorder):
        def counters(self, at: float) -> dict[str, float]:
            return {
                "uptime_seconds": at - START + 5.0,
                "read_until": END - 7_200.0 if at > END + 60.0 else END - 9_000.0,
            }

    made = DayReport(Behind(), "shop", ZONE, paging=True).summary(DATE, END + 60.0)  # type: ignore[arg-type]
    assert made.health.unread == 7_200.0
    assert not made.health.complete


def test_earlier_days_are_read_once_an_hour() -> None:
    """They hardly change, and a page of today asks for seven of them; a day that has just ended is read each time."""
    reader = Recorder()
    report = DayReport(reader, "shop", ZONE, paging=True)  # type: ignore[arg-type]
    for later, read in ((3_600.0, 7), (3_700.0, 8), (10_800.0, 15), (10_860.0, 16), (14_400.0, 22)):
        report.summary(DATE, START + later)
        assert len(reader.failed_of) == read, later
    report.summary(DATE, START + 14_401.0)
    assert len(reader.failed_of) == 22
