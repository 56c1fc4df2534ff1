"""The page, for people."""

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from celery_monitor.core.model import Changes, IncidentState, Reason
from celery_monitor.errors import StoreUnavailableError
from celery_monitor.ports import Health
from tests.adapters.web.conftest import Served
from tests.adapters.web.fleet import GROUP, NOW, Fleet, bucket, failure, group, incident, worker

Commit = Callable[[Changes], None]

PAGES = ("/", "/tasks/shop.charge", "/failures", "/failures/id-1", "/incidents", "/workers", "/reports/today")
EVIL = "<script>alert(1)</script>\"'&{{7*7}}"


class Links(HTMLParser):
    """Collects what a document links to, and the elements it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.elements: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.links |= {value for name, value in attrs if name in {"href", "src", "action"} and value}


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_there(site: Served, path: str) -> None:
    """Each page answers with HTML."""
    answer = site.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.text.startswith("<!doctype html>")


def test_every_link_leads_somewhere(site: Served) -> None:
    """Whatever a page links to exists, and nothing is from elsewhere."""
    seen, ahead = set(), {"/"}
    while ahead:
        path = ahead.pop()
        seen.add(path)
        answer = site.get(path)
        assert answer.status_code == 200, path
        if answer.headers["content-type"].startswith("text/html"):
            found = {link.partition("#")[0] for link in Links(answer.text).links} - {""}
            assert all(link.startswith("/") for link in found), path
            ahead |= found - seen
    assert set(PAGES) - {"/reports/today"} <= seen


def test_overview(site: Served) -> None:
    """The overview shows what failed, the queues and all tasks, with links."""
    text = site.get("/").text
    assert "Events arrive and are kept." in text
    assert 'href="/tasks/shop.charge"' in text
    assert "40.0 %" in text
    assert "2026-11-23 14:04:39<span> UTC</span>" in text


def test_overview_says_what_is_wrong(site: Served, fleet: Fleet) -> None:
    """What keeps the monitor from counting stands on top."""
    fleet.ready = Health({"broker": "connection refused", "store": None})
    assert "broker: connection refused" in site.get("/").text


def test_overview_while_starting(site: Served, fleet: Fleet) -> None:
    """While the monitor starts the overview shows what the store holds."""
    fleet.starting = True
    assert site.get("/").status_code == 200


def test_a_task_called_storm_is_not_shown_as_one(site: Served, commit: Commit) -> None:
    """The page leads to the task, and tells a storm from it."""
    storm = incident("storm/h/*", task="storm", reason=Reason.STORM_OPENED, tasks={"a": 1, "b": 2})
    commit(Changes(now=NOW, sequence=2, incidents=[storm, incident("storm/h", task="storm")]))
    answer = site.get("/incidents")
    assert answer.text.count("A storm of 2 tasks") == answer.text.count("A storm of") == 1
    assert "/tasks/storm" in Links(answer.text).links


def test_hostile_texts_stay_text(site: Served, fleet: Fleet, commit: Commit) -> None:
    """Names, messages and tracebacks of a hostile fleet are shown as they are, and are no markup on any page."""
    kind = "f" * 16
    commit(
        Changes(
            now=NOW,
            sequence=2,
            buckets=[bucket(EVIL, EVIL, failed=1)],
            groups=[group(EVIL, kind, EVIL)],
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
    for path in ("/", f"/tasks/{quoted}", "/failures", f"/failures/{quoted}", "/incidents", "/workers", f"/{quoted}"):
        text = site.get(path).text
        assert "script" not in Links(text).elements, path
        assert path == f"/{quoted}" or "&lt;script&gt;" in text.replace("<wbr>", ""), path
    assert "script" not in Links(site.get("/failures", params={"task": EVIL, "since": "1h"}).text).elements


def test_failures_by_the_form(site: Served) -> None:
    """The form's fields filter, stay filled, and may be empty."""
    text = site.get("/failures", params={"task": "", "exception": "KeyError", "since": "", "until": ""}).text
    assert re.search(r'name="exception"[^>]*value="KeyError"', text)
    assert "/failures/id-2" in text
    assert "/failures/id-1" not in text


def test_the_next_page_keeps_the_filters(site: Served, commit: Commit) -> None:
    """Following the links of a filtered list gives all of it."""
    more = [failure(f"more-{number}", at=NOW - number, exception="A&B") for number in range(150)]
    for sequence, start in enumerate(range(0, 150, 3), 2):
        kept = [failure(one.uuid, at=one.at, exception="A&B", group=f"{start:016x}") for one in more[start : start + 3]]
        kinds = [group("shop.charge", f"{start:016x}", "A&B")]
        commit(Changes(now=NOW, sequence=sequence, groups=kinds, failures=kept))
    path, found = "/failures?exception=A%26B", set()
    while path:
        answer = site.get(path)
        assert answer.status_code == 200
        found |= set(re.findall(r'href="/failures/(more-\d+)"', answer.text))
        links = [link for link in Links(answer.text).links if "cursor=" in link]
        path = links[0] if links else ""
    assert len(found) == 150


def test_the_report_brings_its_styles(site: Served) -> None:
    """The report's page may use the styles that are inside of it, and nothing else may run or load."""
    answer = site.get("/reports/2026-11-23")
    assert "<title>2026-11-23</title>" in answer.text
    assert "style-src 'unsafe-inline'" in answer.headers["content-security-policy"]
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/nothing", 404), ("/tasks/none", 404), ("/failures/none", 404), ("/reports/x", 400), ("/failures?since=x", 400)],
)
def test_errors_are_pages(site: Served, path: str, status: int) -> None:
    """What goes wrong on a page is told by a page."""
    answer = site.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


def test_store_away(site: Served, fleet: Fleet) -> None:
    """While the store cannot be read the page says so."""
    fleet.trouble = StoreUnavailableError("the disk is full")
    answer = site.get("/")
    assert answer.status_code == 503
    assert "the disk is full" in answer.text


def test_a_sample_leads_to_its_traceback(site: Served) -> None:
    """From a task one comes to a kind of failure, and from there to a traceback."""
    text = site.get("/tasks/shop.charge").text
    assert "shop.py:charge" in text
    sample = re.search(r'href="(/failures/id-\d)">traceback', text)
    assert sample is not None
    assert "Traceback (most recent call last)" in site.get(sample[1]).text
    assert GROUP not in text
