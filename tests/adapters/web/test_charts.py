"""Charts, and their text alternatives."""

import re
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING, cast
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

import pytest

from celery_monitor.adapters.web.charts import Bar, Point, line, sparkline, strip
from celery_monitor.adapters.web.trends import HOUR, LATE_HOURS, FleetHistory, quantile, trend, window
from celery_monitor.core.model import COUNTS, FAILED, SUCCEEDED, Histogram, HistoryRow

if TYPE_CHECKING:
    from celery_monitor.ports import Reader

NOW = 1_795_442_709.25
"""2026-11-23T14:05:09.25Z."""
HOSTILE = "<script>\"'&"


def row(start: int, succeeded: int = 0, failed: int = 0, seconds: float = 0.0) -> HistoryRow:
    """An hour."""
    counts = [0] * len(COUNTS)
    counts[SUCCEEDED], counts[FAILED] = succeeded, failed
    return HistoryRow("", start, tuple(counts), seconds, succeeded + failed)


def heights(picture: str, kind: str) -> list[float]:
    """The heights of the bars of a kind."""
    return [float(each) for each in re.findall(rf'class="{kind}"[^>]*height="([\d.]+)"', picture)]


def test_bars_are_in_proportion() -> None:
    """The tallest bar fills the chart, the failed part is within it, and the smallest is visible."""
    picture = strip([Bar("a", 1000, 500), Bar("b", 500, 0), Bar("c", 1, 1), Bar("d", 0, 0)], "told")
    assert heights(picture, "run") == [96.0, 48.0]
    assert heights(picture, "fail") == [48.0, 2.0]


@pytest.mark.parametrize(
    "picture",
    [
        strip([Bar(HOSTILE, 5, 1, marked=True), Bar("b", 0, 0)], HOSTILE),
        line([Point(HOSTILE, 1.0), Point("", None), Point("", 0.0)], HOSTILE),
        sparkline([(5, 1), (0, 0)], HOSTILE),
    ],
)
def test_a_picture_is_whole_and_told(picture: str) -> None:
    """Each chart is well-formed, is an image with a text, and treats hostile texts as text."""
    root = ET.fromstring(picture)  # noqa: S314 - our own
    assert (root.get("role"), root.get("aria-label")) == ("img", HOSTILE)
    assert {each.tag for each in root.iter()} <= {"svg", "g", "title", "rect", "path"}
    assert not [each for each in root.iter() if each.get("style") or each.get("onload")]


@pytest.mark.parametrize(
    "picture", [strip([], ""), line([Point("", None)], ""), sparkline([(0, 0)], ""), sparkline([], "")]
)
def test_nothing_makes_no_picture(picture: str) -> None:
    """Without data there is no empty frame."""
    assert picture == ""


def test_a_gap_stays_a_gap() -> None:
    """A line is interrupted in hours without data."""
    path = re.search(r'class="trace" d="([^"]*)"', line([Point("", 1.0), Point("", None), Point("", 1.0)], ""))
    assert path is not None
    assert path[1].count("M") == 2


def test_the_last_hours() -> None:
    """A window ends with the current hour; its description has the sums and the worst hour."""
    shown = window(NOW, 24)
    assert (shown.end - shown.first, shown.end) == (24 * HOUR, 1_795_442_400 // HOUR * HOUR + HOUR)
    rows = [row(shown.end - HOUR, 30, 10, 80.0), row(shown.first, 5), row(shown.first - HOUR, 99, 99)]
    found = trend(rows, shown, UTC)
    assert (found.executed, found.failed, found.peak, len(found.bars)) == (45, 10, 40, 24)
    assert found.description == (
        "Last 24 hours: 45 executed, 10 failed. Most failures in an hour: 11-23 14:00 to 15:00 UTC: 40 executed, "
        "10 failed."
    )
    assert (found.runtime_peak, found.runtime[-1].title) == (2.0, "11-23 14:00 to 15:00 UTC: 2.0 s")
    assert [mark.form for mark in found.marks] == ["clock"] * 4


def test_hours_are_named_in_the_zone() -> None:
    """Also in a zone with a fractional offset from UTC."""
    bar = trend([row(window(NOW, 24).first, 1)], window(NOW, 24), ZoneInfo("Asia/Kolkata")).bars[0]
    assert bar.title.startswith("11-22 20:30 to 21:30 IST")


def test_what_the_picture_is_about_stands_out() -> None:
    """The hours of an incident are marked, even if it began and ended within one."""
    shown = window(NOW, 24)
    found = trend([], shown, UTC, (shown.end - 100.0, shown.end - 50.0))
    assert [bar.marked for bar in found.bars] == [False] * 23 + [True]


@dataclass
class CountingReader:
    """A Reader's history with one run per hour, which records the queries."""

    asked: list[tuple[float, float]] = field(default_factory=list)

    def history(self, since: float, until: float, *, step: int) -> list[HistoryRow]:
        self.asked.append((since, until))
        return [row(start, len(self.asked)) for start in range(int(since), int(until), step)]


def test_settled_hours_are_read_once() -> None:
    """An updated page reads the newest hours; another span or the next hour reads the missing ones."""
    reader = CountingReader()
    history = FleetHistory(cast("Reader", reader))
    day = window(NOW, 24)
    assert [each.start for each in history.rows(day, NOW)] == list(day.starts)
    again = history.rows(day, NOW + 10)
    assert [each.counts[SUCCEEDED] for each in again] == [1] * 21 + [2] * 3
    week = window(NOW, 24 * 7)
    assert [each.start for each in history.rows(week, NOW + 20)] == list(week.starts)
    history.rows(window(NOW + HOUR, 24), NOW + HOUR + 30)
    assert reader.asked == [
        (day.first, day.end),
        (day.end - LATE_HOURS * HOUR, day.end),
        (week.first, week.end),
        (day.first + HOUR, day.end + HOUR),
    ]


@pytest.mark.parametrize(
    ("counts", "share", "wanted"),
    [
        ((0, 0, 0), 0.5, None),
        ((10, 0, 0), 0.5, 0.5),
        ((10, 10, 0), 0.75, 1.5),
        ((1, 0, 99), 0.5, None),
        ((0, 4, 0), 1.0, 2.0),
    ],
)
def test_quantiles(counts: tuple[int, ...], share: float, wanted: float | None) -> None:
    """As estimated by Prometheus; beyond the last bound the value is unknown."""
    assert quantile(Histogram((1.0, 2.0), counts, 0.0), share) == wanted
