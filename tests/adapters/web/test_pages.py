"""The page, for people."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx
import pytest
from msgspec import structs

from celery_monitor.adapters.store import SqlStore
from celery_monitor.adapters.web.filters import ago, days, percent, seconds, unbroken, with_break_points
from celery_monitor.adapters.web.views import time
from celery_monitor.core.model import Action, Changes, ErrorDelta, IncidentState, OutboxRequest, Reason
from celery_monitor.errors import StoreUnavailableError
from celery_monitor.ports import HealthReport, StoreSpace
from tests.adapters.web.conftest import Served
from tests.adapters.web.fleet import BUCKET, GROUP, NOW, Fleet, bucket, channels, failure, group, incident, worker

Commit = Callable[[Changes], None]

PAGES = (
    "/",
    "/tasks/shop.charge",
    "/errors",
    "/errors?by=exception",
    "/failures",
    "/failures/id-1",
    "/incidents",
    "/incidents/shop.charge%2F2026-11-23T14Z",
    "/runs",
    "/runs/run-1",
    "/runs/id-1",
    "/workers",
    "/workers/celery%40box",
    "/queues",
    "/queues/billing",
    "/reports/today",
)
EVIL = "<script>alert(1)</script>\"'&{{7*7}}"


class Links(HTMLParser):
    """Collects what a page links to, as paths from the root, and the elements it has.

    To the browser the site is under /some/path: a proxy strips that.
    """

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.scripts: list[dict[str, str | None]] = []
        self._here = f"/some/path{answer.url.raw_path.decode()}"
        self.feed(answer.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self.scripts.append(dict(attrs))
        for name, value in attrs:
            if name in {"href", "src", "action"} and value and not value.startswith("#"):
                link = urljoin(self._here, value)
                assert link.startswith("/some/path/"), value
                self.links.add(link.removeprefix("/some/path"))


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_there(usual_site: Served, path: str) -> None:
    """Each page answers with HTML."""
    answer = usual_site.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.text.startswith("<!doctype html>")


def test_every_link_leads_somewhere(usual_site: Served) -> None:
    """Every link of a page works, and nothing comes from another host."""
    seen, ahead = set(), {"/"}
    while ahead:
        path = ahead.pop()
        seen.add(path)
        if path < "/reports/2026-11-20" and path.startswith("/reports/2"):
            continue  # and so on to the first day
        if "sort=" in path and path.count("=") > 1:
            continue  # each order goes with each filter: one parameter beside it would be hundreds of pages
        answer = usual_site.get(path)
        assert answer.status_code == 200, path
        if answer.headers["content-type"].startswith("text/html"):
            ahead |= Links(answer).links - seen
    assert set(PAGES) - {"/reports/today"} <= seen


def test_notice_is_on_every_page(serve: Callable[[], Served], fleet: Fleet) -> None:
    """``web.notice`` is shown on every page and error, as text."""
    assert "banner" not in serve().get("/").text
    fleet.notice = EVIL
    site = serve()
    for path in (*PAGES, "/nothing"):
        text = site.get(path).text
        assert 'aria-label="Notice">&lt;script&gt;alert(1)' in text
        assert "<script>" not in text


def test_overview(site: Served) -> None:
    """The overview shows failures, queues and all tasks, with links."""
    answer = site.get("/")
    text = answer.text
    assert "Numbers: <b>current, 100 ms behind</b>" in text
    assert "Fleet: <b>1 open incident, 1 worker up, 1 down</b>" in text
    assert "/tasks/shop.charge" in Links(answer).links
    assert "40.0\N{NO-BREAK SPACE}%" in text
    assert "<code>metrics.max_series</code>" in text
    assert "exceptions" not in text  # nothing was beyond that bound
    assert "2026-11-23 14:04:39<span> UTC</span>" in text


@pytest.mark.parametrize("path", [*PAGES, "/nothing"])
def test_every_page_says_what_is_wrong(site: Served, fleet: Fleet, path: str) -> None:
    """Problems that keep the monitor from counting are at the top of every page."""
    assert "the numbers may be out of date" not in site.get(path).text
    fleet.ready = HealthReport(
        {"broker": "connection <refused>", "probe": "waiting for the event stream", "store": None}
    )
    text = site.get(path).text
    assert text.count("the numbers may be out of date") == 1
    assert "<li>broker: connection &lt;refused&gt;</li><li>probe: waiting for the event stream</li>" in text
    assert "store: ok" not in text
    assert 'class="state bad" href="#problems">Numbers: <b>may be out of date (broker)</b>' in text
    assert "Numbers: <b>current" not in text


def test_a_note_is_no_failure(site: Served, fleet: Fleet) -> None:
    """A note is at the top of every page and in /readyz, which is ready."""
    fleet.ready = HealthReport({"broker": None}, {"workers": "celery@<box> never answers"})
    assert "<li>workers: celery@&lt;box&gt; never answers</li>" in site.get("/workers").text
    assert "the numbers may be out of date" not in site.get("/workers").text
    answer = site.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["notes"] == {"workers": "celery@<box> never answers"}


def test_what_is_out_of_date_is_not_called_well(site: Served, fleet: Fleet) -> None:
    """While no events arrive, the state of the workers is unknown."""
    fleet.workers, fleet.silent = [worker()], True
    assert 'class="state good" href="./workers">Fleet: <b>no open incidents, 1 worker up</b>' in site.get("/").text
    fleet.ready = HealthReport({"broker": "it does not answer"})
    expected = "no open incidents, 1 worker up when last seen"
    assert f'class="state none" href="./workers">Fleet: <b>{expected}</b>' in site.get("/").text


def test_overview_while_starting(site: Served, fleet: Fleet) -> None:
    """While the monitor starts, the overview shows the stored data."""
    fleet.starting = True
    assert site.get("/").status_code == 200


def test_a_task_called_storm_is_not_shown_as_one(site: Served, commit: Commit) -> None:
    """The page links to the task, and distinguishes it from a storm."""
    storm = incident("storm/h/*", task="storm", reason=Reason.STORM_OPENED, tasks={"a": 1, "b": 2})
    commit(Changes(now=NOW, sequence=2, incidents=[storm, incident("storm/h", task="storm")]))
    answer = site.get("/incidents")
    assert answer.text.count("A storm of 2 tasks") == answer.text.count("A storm of") == 1
    assert "/tasks/storm" in Links(site.get("/incidents/storm%2Fh")).links
    assert "/tasks/storm" not in Links(site.get("/incidents/storm%2Fh%2F*")).links


def test_a_task_leads_to_its_open_incidents(site: Served, commit: Commit) -> None:
    """Including its storm; not to those of other tasks, nor to resolved ones."""
    storm = incident("storm/h/*", task="*", reason=Reason.STORM_OPENED, tasks={"shop.charge": 1, "shop.mail": 2})
    over = incident("shop.charge/earlier", state=IncidentState.RESOLVED, first_at=NOW - 9000)
    commit(Changes(now=NOW, sequence=2, incidents=[storm, over, incident("shop.other/h", task="shop.other")]))
    for task, keys in (
        ("shop.charge", ["shop.charge%2F2026-11-23T14Z", "storm%2Fh%2F%2A"]),
        ("shop.mail", ["storm%2Fh%2F%2A"]),
    ):
        notices = "".join(re.findall(r'<div class="notice failing">.*?</div>', site.get(f"/tasks/{task}").text))
        assert sorted(re.findall(r'href="\.\./incidents/([^"]+)"', notices)) == keys
    text = re.sub(r"<[^>]*>", "", site.get("/tasks/shop.charge").text).replace("\N{NO-BREAK SPACE}", " ")
    assert "open 2 failures, first 1 min ago, last 30 s agoValueError: no such card" in text


def test_hostile_texts_stay_text(site: Served, fleet: Fleet, commit: Commit) -> None:
    """Names, messages and tracebacks are text on every page, and never markup."""
    kind = "f" * 16
    commit(
        Changes(
            now=NOW,
            sequence=2,
            buckets=[bucket(EVIL, EVIL, failed=1)],
            groups=[group(EVIL, kind, EVIL)],
            errors=[ErrorDelta(BUCKET, kind, 1)],
            failures=[
                failure(
                    EVIL,
                    name=EVIL,
                    queue=EVIL,
                    hostname=EVIL,
                    exception=EVIL,
                    message=EVIL,
                    traceback=EVIL,
                    group=kind,
                    incident=EVIL,
                    args=EVIL,
                    kwargs=EVIL,
                )
            ],
            incidents=[incident(EVIL, task=EVIL, rule=EVIL, message=EVIL, samples=(EVIL,), state=IncidentState.OPEN)],
        )
    )
    fleet.workers = [worker(EVIL)]
    quoted = "".join(f"%{byte:02X}" for byte in EVIL.encode())
    for path in (
        "/",
        f"/tasks/{quoted}",
        "/queues",
        f"/queues/{quoted}",
        "/errors",
        "/errors?by=exception",
        "/failures",
        f"/failures/{quoted}",
        "/incidents",
        f"/incidents/{quoted}",
        "/workers",
        f"/{quoted}",
    ):
        answer = site.get(path)
        (script,) = Links(answer).scripts
        assert re.fullmatch(r"(\.\./)+app\.js\?[\d.]+|\./app\.js\?[\d.]+", script["src"] or ""), path
        assert path == f"/{quoted}" or "&lt;script&gt;" in answer.text.replace("<wbr>", ""), path
    for path in ("/errors", "/failures", "/incidents", "/tasks"):
        assert len(Links(site.get(path, params={"task": EVIL, "q": f"{EVIL}x", "since": "1h"})).scripts) == 1


def test_errors_by_the_form(site: Served, commit: Commit) -> None:
    """Parts of names and the state filter; each group links to its newest failure, its failures and incidents."""
    old = structs.replace(group("shop.mail", "a" * 16, "shop.errors.MailError"), first_at=NOW - 5 * 86_400)
    counts = {"a" * 16: 7, "b" * 16: 1}
    commit(
        Changes(
            now=NOW,
            sequence=2,
            buckets=[structs.replace(bucket(started=1), start=BUCKET - 10 * 86_400)],
            groups=[old, group("shop.other", "b" * 16)],
            errors=[ErrorDelta(BUCKET, one, count) for one, count in counts.items()],
        )
    )

    def rows(**asked: str) -> list[str]:
        text = site.get("/errors", params=asked).text.partition("<tbody>")[2].partition("</tbody>")[0]
        return [re.sub(r"<[^>]*>|\s+", " ", row) for row in text.split("<tr>")[1:]]

    mail, charge, other = rows()
    assert "MailError" in mail
    assert "new" not in mail
    assert "new" in charge
    assert [len(rows(**asked)) for asked in ({"task": "MAI"}, {"exception": "mailerr"}, {"state": "new"})] == [1, 1, 2]
    assert rows(sort="task") == [charge, mail, other]
    text = site.get("/errors", params={"task": "charge"}).text
    for link in ("failures/id-2", "failures?task=shop.charge&amp;exception=ValueError", "tasks/shop.charge"):
        assert f'href="./{link}"' in text, link
    mails, values = rows(by="exception")
    assert "shop. charge shop. other" in re.sub(r"\s+", " ", values)
    assert "3" in values
    assert "MailError" in mails
    assert rows(by="exception", sort="exception")[0] == mails
    assert "No errors found" in site.get("/errors", params={"task": "shop.chrage"}).text
    for since, until in (("0001-01-01", ""), ("9999-12-31", ""), ("9999d", "9998d"), ("", "1970-01-03"), ("", "1h")):
        answer = site.get("/errors", params={"since": since, "until": until})
        assert (answer.status_code, "from " in answer.text) == (200, bool(until)), (since, until)
    assert "MailError" in site.get("/errors", params={"since": "0001-01-01"}).text


def test_new_errors(site: Served, commit: Commit) -> None:
    """An error group is new for a day, except on the first day of counting, when all would be."""
    day, seen = 86_400, {"today": 0.5, "yesterday": 1.5, "last week": 6.0, "at first": 9.5}

    def new(**asked: str) -> list[str]:
        text = site.get("/errors", params={"since": "30d", "sort": "first", **asked}).text
        rows = [
            re.sub(r"<[^>]*>", " ", row) for row in text.partition("<tbody>")[2].partition("</tbody>")[0].split("<tr>")
        ]
        return [name for row in rows if re.search(r"\bnew\b", row) for name in seen if f" {name} " in row]

    groups = [structs.replace(group(name, name * 2), first_at=NOW - age * day) for name, age in seen.items()]
    errors = [ErrorDelta(int(BUCKET - age * day) // 900 * 900, name * 2, 1) for name, age in seen.items()]
    commit(Changes(now=NOW, sequence=2, groups=groups, errors=errors))
    assert new() == new(state="new") == []  # the usual fleet is counted since a minute ago
    commit(Changes(now=NOW, sequence=3, buckets=[structs.replace(bucket(started=1), start=BUCKET - 10 * day)]))
    assert new() == new(state="new") == ["today"]
    assert new(until="1d") == ["yesterday"]
    assert new(until="132h") == new(until="132h", state="new") == ["last week"]
    assert new(until="9d") == new(until="2020-01-01", since="2019-01-01") == []


def test_failures_by_the_form(site: Served) -> None:
    """The form's fields filter, keep their values, and may be empty."""
    text = site.get("/failures", params={"task": "", "exception": "KeyError", "since": "", "until": ""}).text
    assert re.search(r'name="exception"[^>]*value="KeyError"', text)
    assert "/failures/id-2" in text
    assert "/failures/id-1" not in text


def test_the_next_page_keeps_the_filters(site: Served, commit: Commit) -> None:
    """Following the links of a filtered list gives all of it."""
    more = [failure(f"more-{number}", at=NOW - number, exception="A&B") for number in range(150)]
    for sequence, start in enumerate(range(0, 150, 3), 2):
        batch = [
            failure(one.uuid, at=one.at, exception="A&B", group=f"{start:016x}") for one in more[start : start + 3]
        ]
        kinds = [group("shop.charge", f"{start:016x}", "A&B")]
        commit(Changes(now=NOW, sequence=sequence, groups=kinds, failures=batch))
    path, found = "/failures?exception=A%26B", set()
    while path:
        answer = site.get(path)
        assert answer.status_code == 200
        links = [link for link in Links(answer).links if "cursor=" in link]
        found |= set(re.findall(r"failures/(more-\d+)", answer.text))
        path = links[0] if links else ""
    assert len(found) == 150


def test_the_report_brings_its_styles(site: Served) -> None:
    """The report's page may use its own styles, and nothing else may run or load."""
    answer = site.get("/reports/2026-11-23")
    assert "The mail of 2026-11-23" in answer.text
    policy = answer.headers["content-security-policy"].split("; ")
    assert "style-src 'self' 'unsafe-inline'" in policy
    assert "default-src 'none'" in policy
    assert [part for part in policy if part.startswith("script-src")] == ["script-src 'self'"]
    assert "'unsafe-inline'" not in site.get("/").headers["content-security-policy"]


def test_further_pages_of_a_report(site: Served) -> None:
    """The number in the address is the page; an invalid number means the first one."""
    for asked, number in (("", 1), ("3", 3), ("0", 1), ("-2", 1), ("999999", 999_999), ("9" * 9, 1), ("\u00b2", 1)):
        assert f"of 2026-11-22</a>, part {number}" in site.get("/reports/2026-11-22", params={"page": asked}).text


def test_a_report_leads_on(site: Served) -> None:
    """A day links to the previous day, to the next one if there is one, and to all pages."""
    day = Links(site.get("/reports/2026-11-22")).links
    assert {"/reports/2026-11-21", "/reports/2026-11-23", "/", "/incidents", "/api/v1/reports/2026-11-22"} <= day
    today = Links(site.get("/reports/2026-11-23")).links
    assert "/reports/2026-11-22" in today
    assert "/reports/2026-11-24" not in today
    assert "/reports/1999-12-31" not in Links(site.get("/reports/2000-01-01")).links


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/reports/today", "Reports"),
        ("/reports/2026-11-22", "Reports"),
        ("/failures/id-1", "Failures"),
        ("/queues", "Queues"),
        ("/queues/billing", "Queues"),
        ("/", "Overview"),
    ],
)
def test_a_page_knows_its_place(usual_site: Served, path: str, named: str) -> None:
    """The navigation marks the page's section, and no other."""
    assert re.findall(r'aria-current="(?:page|true)">(\w+)<', usual_site.get(path).text)[0] == named


@pytest.mark.parametrize("path", ["/", "/queues", "/workers"])
def test_what_is_left_open_looks_again(site: Served, path: str) -> None:
    """Pages that people leave open stay current by the script, but nothing with a form or a place in a list does.

    None of them loads itself anew: that would take what somebody types, selects or reads.
    """
    assert '<body data-refresh="10">' in site.get(path).text
    assert "http-equiv" not in site.get(path).text
    for other in ("/failures", "/incidents", "/tasks", "/failures/id-1"):
        answer = site.get(other)
        assert answer.status_code == 200
        assert "data-refresh" not in answer.text


@pytest.mark.parametrize("path", ["/", "/tasks/shop.charge", "/failures", "/failures/id-2"])
def test_ages(usual_site: Served, path: str) -> None:
    """The time of a last failure is shown with its age."""
    assert re.search(r"<time[^>]*>2026-11-23 14:04:39<span> UTC</span></time>[^/]*30 s ago", usual_site.get(path).text)


def test_age_of_a_heartbeat(site: Served) -> None:
    """A heartbeat is shown with its age, too."""
    assert "2 s ago" in site.get("/workers").text


def test_a_name_cannot_turn_its_direction() -> None:
    """Direction marks in a name are shown as characters."""
    assert with_break_points("\u202egnp.ksat\u202c") == "\ufffdgnp.<wbr>ksat\ufffd"


def test_figures_stay_in_one_piece() -> None:
    """No line break between a number and its unit, nor within a duration; sentences may break elsewhere."""
    for figure in (seconds(658), seconds(7400), seconds(0.004), percent(0.0001), percent(0.2), days(86_400 * 30)):
        assert " " not in unbroken(figure)
    assert unbroken("Last 16 min 40 s: 9 of 116 runs failed (7.8 %).").split(" ") == [
        "Last", "16\N{NO-BREAK SPACE}min\N{NO-BREAK SPACE}40\N{NO-BREAK SPACE}s:", "9", "of", "116", "runs", "failed",
        "(7.8\N{NO-BREAK SPACE}%).",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "just now"),
        (0.9, "just now"),
        (1, "1 s ago"),
        (59.9, "59 s ago"),
        (60, "1 min ago"),
        (7199, "1 h ago"),
        (86_400, "1 day ago"),
        (10 * 86_400, "10 days ago"),
        (-0.5, "just now"),
        (-90, "in 1 min"),
    ],
)
def test_how_long_ago(seconds: float, expected: str) -> None:
    """An age has its largest whole unit; a future time is described as such."""
    assert ago(time(NOW - seconds), str(time(NOW))) == expected


def test_the_outbox_on_the_overview(site: Served, store: SqlStore, commit: Commit) -> None:
    """How many notifications wait and since when, how many were given up, and the remedy."""
    text = site.get("/").text
    assert "outbox retry" not in text
    expected = r'PagerDuty</td><td class="n" [^>]*>1</td><td [^>]*><span><time datetime="2026-11-23T14:05:09.250Z">'
    assert re.search(expected, text)
    commit(Changes(now=NOW, sequence=2, outbox=[OutboxRequest("email", "2026-11-22", Action.REPORT)]))
    for item in store.outbox.items(dead=False, limit=9).rows:
        store.outbox.dead(item, NOW, "400")
    text = site.get("/").text
    assert "Failed notifications: 2." in text
    assert "celery-monitor outbox retry --all-dead" in text
    assert site.get("/api/v1/summary").json()["outbox"] == [
        {"channel": channel, "configured": True, "pending": 0, "oldest_at": None, "dead": 1, "unknown": 0}
        for channel in ("pagerduty", "email")
    ]


def test_a_store_that_is_short_of_space_is_told(site: Served, fleet: Fleet) -> None:
    """The shortage, the dropped data, and a rolled-back store are shown."""
    assert "short of space" not in site.get("/").text
    given_up = {"samples": 12, "groups": 3, "buckets": 0}
    fleet.space = StoreSpace(used=9, limit=10, room=1, short=True, given_up=given_up)
    assert "The store is short of space" in site.get("/").text
    fleet.space = StoreSpace(given_up=given_up)
    text = site.get("/").text
    assert "12 failures, 3 error groups" in text
    assert "older than the last commit" not in text
    reported = site.get("/api/v1/summary").json()["store"]
    assert (reported["given_up"], reported["rolled_back"]) == (given_up, False)
    fleet.rolled_back = 1.0
    assert "older than the last commit" in site.get("/").text


def test_what_is_off_is_told(site: Served, fleet: Fleet) -> None:
    """A channel that is not configured is shown as off, which explains missing pages."""
    assert "off</span>" not in site.get("/").text
    fleet.channels[:] = channels("email")
    text = site.get("/").text
    assert text.count("off</span>") == 1
    assert "the daily mail is not sent" in text
    fleet.channels[:] = channels("pagerduty")
    assert "nobody is paged" in site.get("/").text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing", 404),
        ("/tasks/none", 404),
        ("/queues/none", 404),
        ("/failures/none", 404),
        ("/reports/x", 400),
        ("/failures?since=x", 400),
        ("/failures?cursor=YQ", 400),
    ],
)
def test_errors_are_pages(usual_site: Served, path: str, status: int) -> None:
    """Errors of a page are pages."""
    answer = usual_site.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


def test_store_away(site: Served, fleet: Fleet) -> None:
    """While the store is not readable, the page says so."""
    fleet.trouble = StoreUnavailableError("the disk is full")
    answer = site.get("/")
    assert answer.status_code == 503
    assert "The disk is full." in answer.text


def test_a_sample_leads_to_its_traceback(site: Served) -> None:
    """A task links to an error group, and that to a traceback."""
    text = site.get("/tasks/shop.charge").text
    assert "shop.py:charge" in text
    sample = re.search(r'href="../(failures/id-\d)">ValueError</a><span class="more"><code>', text)
    assert sample is not None
    assert "Traceback (most recent call last)" in site.get(f"/{sample[1]}").text
    assert GROUP not in text


def test_a_task_shows_its_percentiles_over_time(site: Served) -> None:
    """As charts with descriptions and as figures: times with their zone, and values beyond the buckets."""
    text = site.get("/tasks/shop.charge").text
    assert "Run time by hour: p50, p95 and p99." in text
    assert "the slowest hour was 11-23 14:00 to 15:00 UTC: p50 775 ms, p95 over 1.0 s, p99 over 1.0 s." in text
    assert "11-23 13:00 to 14:00 UTC: p50 50 ms, p95 95 ms, p99 99 ms" in text
    assert "Waiting time in the queue" in text
    rows = re.findall(r'<tr><td data-label="Hour from">.*?</tr>', text)
    assert [re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", row)).split(" ", 3)[3].strip() for row in rows] == [
        "UTC 6 775 ms over 1.0 s over 1.0 s 3 50 ms 95 ms 99 ms",
        "UTC 4 50 ms 95 ms 99 ms 2 50 ms 95 ms 99 ms",
    ]
    assert "13:00 to 14:00 UTC: p50" in site.get("/tasks/shop.charge?span=7d").text
    assert "Mean run time" in site.get("/tasks/shop.mail").text  # nothing was measured by hour: the mean is drawn


def test_the_overview_shows_lengths_of_queues_over_time(site: Served) -> None:
    """As a chart of the longest, and for each queue of the table."""
    for span in ("24h", "7d"):
        text = site.get(f"/?span={span}").text
        assert "at most 7 in billing, 11-23 13:00 to 14:00 UTC." in text
        assert "11-23 14:00 to 15:00 UTC: at most billing 3" in text
        assert 'data-label="Most, 24 h">7<' in text
