"""Queues: the list, and one queue as a page and as JSON."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import pytest

from celery_monitor.adapters.web.filters import NONE
from celery_monitor.adapters.web.parameters import stored_text
from celery_monitor.adapters.web.queue_history import CACHED_FOR, MAX_CACHED, QueueHistory
from celery_monitor.adapters.web.queues import QUEUES_PER_PAGE, QueuePages, QueueView
from celery_monitor.adapters.web.trends import HOUR, window
from celery_monitor.core.model import (
    COUNTS,
    BucketDelta,
    Changes,
    Checkpoint,
    Condition,
    Histogram,
    HistoryRow,
    HourRow,
    IncidentState,
    QueueStats,
    Series,
    SeriesKey,
)
from tests.adapters.web.conftest import Served
from tests.adapters.web.fleet import BUCKET, NOW, Fleet, bucket, incident

if TYPE_CHECKING:
    from celery_monitor.ports import Reader

Commit = Callable[[Changes], None]
EMPTY = Histogram((), (0,), 0.0)
THIS_HOUR = int(NOW) // HOUR * HOUR


def shown(text: str) -> str:
    """The text of a page without its elements."""
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", text.replace("<wbr>", ""))).replace("\N{NO-BREAK SPACE}", " ")


def more() -> Changes:
    """Another task in the queue ``billing`` with its own times, and the same task in another queue."""
    key, bounds = SeriesKey("shop.refund", "billing"), (0.1, 1.0)
    return Changes(
        now=NOW,
        sequence=2,
        buckets=[
            bucket("shop.refund", "billing", started=4, succeeded=4),
            bucket("shop.refund", "mail", started=9, succeeded=9),
            BucketDelta(BUCKET - 3 * 86_400, "shop.refund", "billing", bucket(failed=1).counts, 1.0, 1),
        ],
        checkpoints=[Checkpoint(THIS_HOUR, key, (), ())],
        series=[
            Series(key, (0,) * len(COUNTS), {}, Histogram(bounds, (0, 0, 4), 9.0), Histogram(bounds, (0, 4, 0), 2.0))
        ],
    )


def in_memory(name: str, queue: str, host: str, waits: tuple[int, ...], waited: float) -> Series:
    """The monitor's measurements of a task."""
    return Series(
        SeriesKey(name, queue, host), (0,) * len(COUNTS), {}, Histogram((1.0,), (1, 0), 0.5),
        Histogram((1.0,), waits, waited),
    )  # fmt: skip


def test_the_page_of_a_queue(site: Served, fleet: Fleet, commit: Commit) -> None:
    """Its numbers are the sums of its tasks, over time and by task, without other queues; with its consumers."""
    commit(more())
    fleet.series = (
        in_memory("shop.charge", "billing", "a", (2, 1), 3.0),
        in_memory("shop.charge", "billing", "b", (1, 0), 1.0),
        in_memory("shop.refund", "billing", "a", (0, 4), 8.0),
        in_memory("shop.refund", "mail", "a", (0, 9), 900.0),
    )
    page = site.get("/queues/billing").text
    text = shown(page)
    assert "Executed 10 in 30 days" in text
    assert "Failed 3 30.0 % of executed" in text
    assert "Waiting now 3 messages in the broker" in text
    assert "Consumers 1 1 worker, 8 processes" in text
    assert "Mean wait 1.5 s since counting began" in text
    assert "Last 24 hours: 9 executed, 2 failed." in page
    assert "Last 7 days: 10 executed, 3 failed." in site.get("/queues/billing?span=7d").text
    assert "at most 7 in billing, 11-23 13:00 to 14:00 UTC." in page
    rows = {row[0]: row[1:] for row in cells(page, "Tasks in this queue")}
    assert rows["shop.charge"][:6] == ["5", "2", "40.0 %", "0", "500 ms", "1.0 s"]
    assert rows["shop.refund"][:6] == ["5", "1", "20.0 %", "0", "625 ms", "2.0 s"]
    assert [row[:2] for row in cells(page, "Workers that consume")] == [["up", "celery@box"]]
    # Of both tasks: 6 and 4 runs of this hour, 3 and 4 starts.
    times = cells(page, "Percentiles of run time")
    assert [(row[1], row[5]) for row in times] == [("10", "7"), ("4", "2")]
    assert '<a href="../incidents/shop.charge%2F' not in page  # it does not name this queue


def cells(page: str, caption: str) -> list[list[str]]:
    """The rows of the table with this caption, as texts."""
    table = page.partition(f'<caption class="sr">{caption}')[2].partition("</table>")[0].partition("<tbody>")[2]
    return [
        [shown(cell).strip() for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)]
        for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)
    ]


def test_the_api_has_the_same_numbers(site: Served, fleet: Fleet, commit: Commit) -> None:
    """For one queue, and for all, including those that only the store, the broker or a worker knows."""
    commit(more())
    fleet.series = (in_memory("shop.charge", "billing", "", (2, 2), 6.0),)
    one = site.get("/api/v1/queues/billing").json()
    assert {key: one[key] for key in ("name", "length", "consumers", "workers", "processes")} == {
        "name": "billing", "length": 3, "consumers": 1, "workers": 1, "processes": 8,
    }  # fmt: skip
    assert (one["counts"]["succeeded"], one["counts"]["failed"]) == (7, 3)
    assert one["wait"] == {"count": 4, "seconds": 6.0}
    assert [(task["name"], task["wait"]["count"]) for task in one["tasks"]] == [("shop.charge", 4), ("shop.refund", 0)]
    assert [(hour["start"][11:16], hour["runtime"]["count"], hour["wait"]["count"]) for hour in one["hours"]] == [
        ("13:00", 4, 2),
        ("14:00", 10, 7),
    ]
    for since, hours in (("2026-11-23T14:00:00Z", 1), ("1d", 2), ("7d", 2), ("2000-01-01", 2), ("2100-01-01", 0)):
        assert len(site.get(f"/api/v1/queues/billing?since={since}").json()["hours"]) == hours, since
    fleet.details["celery@box"] = replace(fleet.details["celery@box"], queues=("billing", "idle"))
    listed = {item["name"]: item for item in site.get("/api/v1/queues").json()["items"]}
    assert list(listed) == sorted(listed)
    assert listed.keys() == {"billing", "celery", "idle", "mail"}
    assert listed["celery"]["oldest_waiting_at"] == "2026-11-23T14:04:49.250Z"
    assert listed["mail"]["oldest_waiting_at"] is None
    assert listed["billing"] == {key: one[key] for key in listed["billing"]}
    assert (listed["mail"]["length"], listed["mail"]["counts"]["succeeded"]) == (None, 9)


def test_the_list(site: Served, fleet: Fleet, commit: Commit) -> None:
    """Every known queue with its length and counts, with a link to its page."""
    commit(more())
    fleet.series = (in_memory("shop.charge", "billing", "a", (2, 2), 6.0),)
    fleet.details["celery@box"] = replace(fleet.details["celery@box"], queues=("billing", "idle"))
    page = site.get("/queues").text
    rows = {row[0]: row[1:] for row in cells(page, "Queues, with")}
    assert list(rows) == ["billing", "celery", "idle", "mail"]  # the longest first, those of unknown length last
    assert rows["billing"][:7] == ["3", NONE, "1", "10", "3", "30.0 %", "1.5 s"]
    assert "30 s ago" in rows["billing"][7]
    assert rows["celery"][:3] == [NONE, "20 s ago", "1"]
    assert rows["mail"][:6] == [NONE, NONE, "0", "9", "0", "0.0 %"]
    assert 'href="./queues/billing"' in page
    assert "4 queues." in shown(page)
    assert 'href="../queues">Queues</a>' in site.get("/queues/billing").text


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("", ["billing", "celery", "mail"]),
        ("name", ["billing", "celery", "mail"]),
        ("-name", ["mail", "celery", "billing"]),
        ("oldest", ["celery", "billing", "mail"]),
        ("workers", ["billing", "celery", "mail"]),
        ("executed", ["billing", "mail", "celery"]),
        ("failed", ["billing", "celery", "mail"]),
        ("rate", ["billing", "celery", "mail"]),
        ("wait", ["mail", "billing", "celery"]),
        ("last", ["billing", "celery", "mail"]),
    ],
)
def test_the_order_of_the_list(site: Served, fleet: Fleet, commit: Commit, sort: str, names: list[str]) -> None:
    """Any column, in both directions."""
    commit(more())
    fleet.series = (
        in_memory("shop.charge", "billing", "a", (2, 2), 6.0),
        in_memory("shop.refund", "mail", "a", (0, 9), 900.0),
    )
    assert [row[0] for row in cells(site.get(f"/queues?sort={sort}").text, "Queues, with")] == names


def test_a_queue_that_nobody_consumes(site: Served, fleet: Fleet) -> None:
    """It is highlighted, except if the number of consumers is unknown."""
    fleet.more_queues = [QueueStats("lonely", 9, 0, 0, 0), QueueStats("unknown", 9, None, 0, 0)]
    page = site.get("/queues").text
    rows = {row[0]: row[1:] for row in cells(page, "Queues, with")}
    assert (rows["lonely"][2], rows["unknown"][2]) == ("none", "0")
    assert page.count('class="n bad" data-label="Workers"') == 1


def test_the_list_goes_by_pages(site: Served, commit: Commit) -> None:
    """There may be many per-client queues."""
    buckets = [bucket("a", f"client-{number:03}", succeeded=1) for number in range(QUEUES_PER_PAGE + 1)]
    commit(Changes(now=NOW, sequence=2, buckets=buckets))
    total = QUEUES_PER_PAGE + 3
    first, second = (site.get(f"/queues?sort=name&page={number}").text for number in (1, 2))
    assert f"{total} queues, page 1 of 2." in shown(first)
    names = [row[0] for text in (first, second) for row in cells(text, "Queues, with")]
    assert names == sorted(names)
    assert len(names) == total
    assert 'href="?sort=name&amp;page=2"' in first


def test_no_queue_yet(site: Served, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page says what is required for a queue to appear."""
    monkeypatch.setattr(QueuePages, "_all", _none)
    fleet.silent = True
    assert "No queue is known yet." in site.get("/queues").text


async def _none(_: QueuePages) -> list[QueueView]:
    return []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"queues": {"billing": 2}}, True),
        ({"queues": {"mail": 2}}, False),
        ({"queues": {"billing": 2}, "state": IncidentState.RESOLVED}, False),
        ({"task": "*", "tasks": {"shop.charge": 1, "x": 1}, "queues": {"billing": 1, "x": 1}}, True),
        ({"task": "", "subject": "billing", "condition": Condition.NO_WORKER}, True),
        ({"task": "", "subject": "mail", "condition": Condition.NO_WORKER}, False),
        ({"task": "", "subject": "billing", "condition": Condition.LOST}, False),
    ],
)
def test_open_incidents_of_a_queue(site: Served, commit: Commit, changes: dict[str, Any], *, named: bool) -> None:
    """Those of its tasks in this queue, and those about the queue itself."""
    commit(Changes(now=NOW, sequence=2, incidents=[incident("one", **changes)]))
    assert ('href="../incidents/one"' in site.get("/queues/billing").text) is named


def test_tasks_of_a_queue_go_by_pages(site: Served, commit: Commit) -> None:
    """Sorted by any column; the order and the period are kept on the next page."""
    buckets = [bucket(f"task.{number:03}", "many", succeeded=number) for number in range(60)]
    commit(Changes(now=NOW, sequence=2, buckets=buckets))
    first = site.get("/queues/many?span=7d").text
    assert [row[0] for row in cells(first, "Tasks in this queue")][:2] == ["task.059", "task.058"]
    assert "60 tasks, page 1 of 2." in shown(first)
    second = site.get("/queues/many?span=7d&sort=name&page=2").text
    assert [row[0] for row in cells(second, "Tasks in this queue")] == [f"task.{number:03}" for number in range(50, 60)]
    assert 'href="?span=7d&amp;sort=name&amp;page=1"' in second


@pytest.mark.parametrize("name", ["", "none", "x" * 3000, "a/b", "line\nbreak"])
def test_an_unknown_queue(usual_site: Served, name: str) -> None:
    """It is reported by a page with the search, and in JSON by the API."""
    address = f"queues/{quote(name, safe='')}"
    if name:
        answer = usual_site.get(f"/{address}")
        assert answer.status_code == 404
        assert "Unknown queue" in answer.text
        assert 'role="search"' in answer.text
        assert usual_site.get(f"/api/v1/{address}").json()["error"].startswith("unknown queue")
    else:
        assert usual_site.get(f"/{address}", follow_redirects=True).url.path == "/queues"


@pytest.mark.parametrize("name", ["a/b", "..", "line\nbreak", "x" * 3000, "Straße ?#%&"])
def test_a_queue_with_any_name(site: Served, commit: Commit, name: str) -> None:
    """A queue is found whatever its name is."""
    commit(Changes(now=NOW, sequence=2, buckets=[bucket("shop.charge", stored_text(name), succeeded=11)]))
    quoted = "".join(f"%{byte:02X}" for byte in name.encode())
    found = site.get(f"/api/v1/queues/{quoted}").json()
    assert found["counts"]["succeeded"] == 11
    page = site.get(f"/queues/{quoted}")
    assert page.status_code == 200
    assert "Executed 11 " in shown(page.text)


def test_a_queue_while_the_monitor_starts(site: Served, fleet: Fleet) -> None:
    """The stored data is shown before there is data in memory."""
    fleet.starting = True
    assert site.get("/queues/billing").status_code == 200
    assert site.get("/api/v1/queues/billing").json()["wait"] == {"count": 0, "seconds": 0}


@dataclass
class CountingReader:
    """A Reader of runs and times that records the queries."""

    asked: list[tuple[str, str, float]] = field(default_factory=list)

    def history(self, since: float, until: float, *, step: int, queue: str) -> list[HistoryRow]:
        self.asked.append(("runs", queue, since))
        return [HistoryRow("", start, (0,) * len(COUNTS), 0.0, 0) for start in range(int(since), int(until), step)]

    def queue_hours(self, queue: str, since: float, until: float) -> list[HourRow]:
        self.asked.append(("times", queue, since))
        return [HourRow(start, EMPTY, EMPTY) for start in range(int(since), int(until), HOUR)]


def test_hours_of_a_queue_are_read_once() -> None:
    """The newest are read again; all of them after some hours, and for a queue that was evicted."""
    reader = CountingReader()
    history, week = QueueHistory(cast("Reader", reader)), window(NOW, 24 * 7)

    def asked(queue: str, now: float = NOW) -> list[tuple[str, str, float]]:
        reader.asked.clear()
        found = history.of(queue)(window(now, 24 * 7), now)
        assert [row.start for row in found.times] == [row.start for row in found.runs] == list(window(now, 168).starts)
        return list(reader.asked)

    assert asked("a") == [("runs", "a", week.first), ("times", "a", week.first)]
    newest = [("runs", "a", week.end - 3 * HOUR), ("times", "a", week.end - 2 * HOUR)]
    assert asked("a", NOW + 5) == newest
    assert asked("b")[0] == ("runs", "b", week.first)
    assert asked("a", NOW + CACHED_FOR)[1] == ("times", "a", week.first + CACHED_FOR)
    for number in range(MAX_CACHED):
        asked(f"other-{number}")
    assert asked("a", NOW + CACHED_FOR + 5)[1] == ("times", "a", week.first + CACHED_FOR)
