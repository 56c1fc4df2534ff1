"""Finds regular tasks from the times at which they started."""

import random
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from celery_monitor.core.model import TaskStarts
from celery_monitor.core.regular import suggestion
from celery_monitor.core.start_history import MAX_TASKS, STARTS_PER_TASK, TASKS_PER_FLUSH, StartHistory

BERLIN = ZoneInfo("Europe/Berlin")


def daily(times: list[str], days: range, weekdays: str = "0123456", late: float = 2.0) -> list[float]:
    """Starts at these local times, up to ``late`` seconds late, from a Monday before a change of clocks."""
    shake, first = random.Random(3), datetime(2026, 3, 16, tzinfo=BERLIN)
    found: list[float] = []
    for day in days:
        date = first + timedelta(days=day)
        if str(date.weekday()) in weekdays:
            for time in times:
                hour, minute = map(int, time.split(":"))
                found.append(
                    date.replace(hour=hour, minute=minute).timestamp() + (shake.random() if found else 1.0) * late
                )
    return found


@pytest.mark.parametrize(
    ("starts", "cron", "evidence"),
    [
        (daily(["03:00"], range(21)), "0 3 * * *", "03:00 ± 2 s, 21 of 21 days"),
        (daily(["00:30"], range(40), "01234"), "30 0 * * 1-5", "00:30 ± 2 s, 30 of 30 days"),
        (daily(["09:05", "17:05"], range(14)), "5 9,17 * * *", "2 times a day ± 2 s, 14 of 14 days"),
        (daily(["04:00"], range(35), "6"), "0 4 * * 0", "04:00 ± 2 s, 5 of 5 days"),
        (daily(["23:59"], range(10), late=45.0), "59 23 * * *", "23:59 ± 45 s, 10 of 10 days"),
    ],
)
def test_times_of_the_day(starts: list[float], cron: str, evidence: str) -> None:
    """Local times are found across a change of clocks."""
    found = suggestion("a", starts, BERLIN)
    assert found is not None
    assert (found.cron, found.every) == (cron, None)
    assert found.evidence == evidence


@pytest.mark.parametrize(("every", "drift"), [(1, 0.01), (10, 0.1), (300, 0.1), (900, 2.0), (7200, 5.0)])
def test_intervals(every: int, drift: float) -> None:
    """Intervals are found despite celery beat's drift and a missing start."""
    shake, now, starts = random.Random(5), 1_000_000.123, []
    for number in range(60):
        now += every + shake.random() * drift
        if number != 17:
            starts.append(now)
    found = suggestion("a", starts, BERLIN)
    assert found is not None
    assert (found.cron, found.every) == (None, float(every))
    assert found.evidence.endswith("of 58 times")


def test_what_is_not_regular() -> None:
    """Few runs, random runs, bursts, and a task that runs as often by hand as by a schedule."""
    shake = random.Random(7)
    assert suggestion("a", [], BERLIN) is None
    assert suggestion("a", [1.0, 301.0, 601.0], BERLIN) is None
    assert suggestion("a", sorted(shake.random() * 1e6 for _ in range(100)), BERLIN) is None
    assert suggestion("a", [1000.0 + number * 0.01 for number in range(100)], BERLIN) is None
    assert suggestion("a", [5.0] * 100, BERLIN) is None
    mixed = daily(["03:00"], range(20)) + [1_773_700_000 + shake.random() * 1.7e6 for _ in range(20)]
    assert suggestion("a", sorted(mixed), BERLIN) is None


def test_the_history_is_bounded_and_written_seldom() -> None:
    """The newest starts of a bounded number of tasks are written; at the end, immediately."""
    history = StartHistory([TaskStarts("old", (1.0, 2.0))], 0.0)
    for number in range(1_000):
        history.note("old", 10.0 + number)
    for number in range(MAX_TASKS + 10):
        history.note(f"t{number}", 5.0)
    assert history.take(299.0, force=False) == []
    taken = []
    while portion := history.take(300.0, force=False):
        assert len(portion) <= TASKS_PER_FLUSH
        taken += portion
    assert len(taken) == MAX_TASKS
    assert taken[0].starts == tuple(10.0 + number for number in range(1_000 - STARTS_PER_TASK, 1_000))
    history.note("old", 2000.0)
    assert history.take(301.0, force=False) == []
    assert [one.name for one in history.take(301.0, force=True)] == ["old"]
    assert history.take(900.0, force=True) == []
