"""Silences and schedules on the page and in the API."""

import httpx
import pytest

from celery_monitor.adapters.store import SqlStore
from celery_monitor.core.model import CounterFamily, Outcome, ReportedBy, ScheduledRun, ScheduleState, Silence
from tests.adapters.web.conftest import Serve, Served
from tests.adapters.web.fleet import NOW, Fleet
from tests.servers.unencrypted import NO_TLS

ASKED = {"match": ["shop.billing.*"], "for": "2h", "reason": "deploy <4711>"}
SIGNED = ("ops", "secret")
FORM = {"match": "shop.* other.task", "queues": "bulk", "for": "90m", "reason": "deploy <b>"}


@pytest.fixture
def guarded(serve: Serve) -> Served:
    """A server with a password."""
    return serve(username=SIGNED[0], password=SIGNED[1])


def post(site: Served, path: str, **options: object) -> httpx.Response:
    """A POST like that of a program."""
    return httpx.post(site.url + path, timeout=60, verify=NO_TLS, **options)  # type: ignore[arg-type]


def test_the_api_adds_lists_and_ends(guarded: Served, store: SqlStore) -> None:
    """With the user's name; ended ones are listed separately."""
    made = post(guarded, "/api/v1/silences", json=ASKED, auth=SIGNED)
    assert made.status_code == 201
    one = made.json()
    assert one | {"id": ""} == {
        "id": "",
        "match": ["shop.billing.*"],
        "queues": [],
        "reason": "deploy <4711>",
        "created_by": "ops",
        "starts_at": "2026-11-23T14:05:09.250Z",
        "ends_at": "2026-11-23T16:05:09.250Z",
        "active": True,
    }
    assert [each.id for each in store.silences.current(NOW)] == [one["id"]]
    assert guarded.get("/api/v1/silences", auth=SIGNED).json() == {"items": [one], "next": None}
    page = guarded.get("/silences?match=shop.%3Cb%3E*", auth=SIGNED).text
    assert "deploy &lt;4711&gt;" in page
    assert 'name="match" value="shop.&lt;b&gt;*"' in page
    ended = httpx.delete(f"{guarded.url}/api/v1/silences/{one['id']}", auth=SIGNED)
    assert (ended.status_code, ended.json()["active"]) == (200, False)
    assert httpx.delete(f"{guarded.url}/api/v1/silences/{one['id']}", auth=SIGNED).status_code == 404
    assert guarded.get("/api/v1/silences?ended=true", auth=SIGNED).json()["items"][0]["id"] == one["id"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"for": "31d"}, "for: must be from 1s to 30d"),
        ({"for": "0"}, "for: must be from 1s to 30d"),
        ({"for": None}, "for"),
        ({"for": ...}, "for"),
        ({"reason": ""}, "reason: give a reason of 1 to 500 characters"),
        ({"reason": ...}, "reason"),
        ({"match": []}, "match: give a glob of task names"),
        ({"match": "shop.*"}, "match"),
        ({"match": ["\x07"]}, "match"),
        ({"until": "never"}, "until"),
    ],
)
def test_no_silence_without_an_end_and_a_reason(
    guarded: Served, store: SqlStore, change: dict[str, object], expected: str
) -> None:
    """400 with the problem, and nothing is stored."""
    asked = {key: value for key, value in (ASKED | change).items() if value is not ...}
    refused = post(guarded, "/api/v1/silences", json=asked, auth=SIGNED)
    assert refused.status_code == 400
    assert expected in refused.json()["error"]
    assert store.silences.current(NOW) == []


def test_without_a_sign_in_nothing_can_be_changed(site: Served, store: SqlStore) -> None:
    """Everybody who reaches the port could suppress pages; the page names the alternatives."""
    store.silences.add(Silence("a1", ("x",), "because", NOW - 5, NOW + 5))
    for answer in (
        post(site, "/api/v1/silences", json=ASKED),
        httpx.delete(f"{site.url}/api/v1/silences/a1"),
        post(site, "/silences", data=FORM, headers={"sec-fetch-site": "same-origin"}),
        post(site, "/silences/a1/end", data={}, headers={"sec-fetch-site": "same-origin"}),
    ):
        assert answer.status_code == 403
    assert [one.id for one in store.silences.current(NOW)] == ["a1"]
    page = site.get("/silences").text
    assert "because" in page
    assert "celery-monitor silence add" in page
    assert 'method="post"' not in page


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"sec-fetch-site": "cross-site"}, "form"),
        ({"sec-fetch-site": "same-site"}, "form"),
        ({"origin": "https://evil.example.com"}, "form"),
        ({"origin": "null"}, "form"),
        ({}, "form"),
        ({"sec-fetch-site": "cross-site"}, "json"),
        ({"origin": "https://evil.example.com"}, "json"),
        ({"content-type": "text/plain"}, "json"),
        ({"content-type": "application/x-www-form-urlencoded"}, "json"),
    ],
)
def test_no_other_site_can_use_a_persons_browser(
    guarded: Served, store: SqlStore, headers: dict[str, str], kind: str
) -> None:
    """The browser adds the password to requests of other sites, which are still refused."""
    if kind == "form":
        answer = post(guarded, "/silences", data=FORM, headers=headers, auth=SIGNED)
    else:
        answer = post(guarded, "/api/v1/silences", json=ASKED, headers=headers, auth=SIGNED)
    assert answer.status_code in {403, 415}
    assert store.silences.current(NOW) == []


@pytest.mark.parametrize(
    ("external_url", "origin", "status"),
    [
        ("http://ops.example.com/celery", "http://ops.example.com", 303),
        ("https://ops.example.com:443/celery/", "https://ops.example.com", 303),
        ("http://ops.example.com:8080", "http://ops.example.com:8080", 303),
        ("https://ops.example.com", "http://ops.example.com", 403),
        ("http://ops.example.com", "http://ops.example.com:8080", 403),
        ("http://ops.example.com", "http://ops.example.com.evil.example", 403),
        ("http://ops.example.com", "null", 403),
        ("http://ops.example.com", "http://[", 403),
        (None, "http://ops.example.com", 403),
    ],
)
def test_behind_a_proxy_that_changes_the_host(serve: Serve, external_url: str, origin: str, status: int) -> None:
    """Browsers send no Sec-Fetch-Site over HTTP, and nginx sends its own Host: the page is identified by its URL."""
    site = serve(username=SIGNED[0], password=SIGNED[1], external_url=external_url)
    answer = post(site, "/silences", data=FORM, headers={"origin": origin, "host": "monitor:9808"}, auth=SIGNED)
    assert answer.status_code == status


def test_the_page_adds_and_ends(guarded: Served, store: SqlStore) -> None:
    """The forms work without a script; after a mistake they keep their values."""
    same = {"sec-fetch-site": "same-origin"}
    added = post(guarded, "/silences", data=FORM, headers=same, auth=SIGNED)
    assert (added.status_code, added.headers["location"]) == (303, "./silences")
    (one,) = store.silences.current(NOW)
    assert (one.match, one.queues, one.ends_at - one.starts_at) == (("shop.*", "other.task"), ("bulk",), 5400.0)
    wrong = post(guarded, "/silences", data=FORM | {"for": "soon"}, headers=same, auth=SIGNED)
    assert wrong.status_code == 400
    assert 'value="deploy &lt;b&gt;"' in wrong.text
    assert "for: is not a duration" in wrong.text
    ended = post(guarded, f"/silences/{one.id}/end", headers=same, auth=SIGNED, data={"x": ""})
    assert (ended.status_code, ended.headers["location"]) == (303, "../../silences")
    assert store.silences.current(NOW) == []


def test_long_and_broken_bodies(guarded: Served) -> None:
    """They are refused before they are stored."""
    long = post(guarded, "/api/v1/silences", content=b"x" * 100_000, headers={"content-type": "application/json"},
                auth=SIGNED)  # fmt: skip
    assert long.status_code == 413
    for body in (b"", b"[]", b"{", b"\xff"):
        answer = post(guarded, "/api/v1/silences", content=body, headers={"content-type": "application/json"},
                      auth=SIGNED)  # fmt: skip
        assert answer.status_code == 400


def test_schedules(site: Served, fleet: Fleet) -> None:
    """The expected start and the runs of each, newest first, with hostile names."""
    runs = (
        ScheduledRun("u1", NOW - 90_000, "w@box", Outcome.SUCCEEDED, NOW - 89_959),
        ScheduledRun("<u2>", NOW - 3600, "w@box"),
    )
    nightly = ScheduleState("night<ly>", "0 3 * * * UTC", "shop.report", NOW + 60, 0.0, runs=runs)
    late = ScheduleState("sync", "every 5m", "shop.sync", NOW, 0.0, NOW - 300, 2, ReportedBy.OWN_INCIDENT)
    fleet.schedules, fleet.missed = (nightly, late), {CounterFamily.MISSED.counter("sync"): 7.0}
    items = site.get("/api/v1/schedules").json()["items"]
    assert [(one["name"], one["missing"], one["missed_total"]) for one in items] == [
        ("night<ly>", 0, 0),
        ("sync", 2, 7),
    ]
    assert [run["seconds"] for run in items[0]["runs"]] == [None, 41.0]
    page = site.get("/schedules").text
    assert "night&lt;ly&gt;" in page
    assert "missed 2" in page
