"""The page in a real browser, for people, keyboards and screen readers."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from celery_monitor.adapters.oidc import OidcProvider
from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.adapters.web import Site, WebServer
from celery_monitor.core.model import Changes, Delivery
from celery_monitor.ports import OtherFleet
from celery_monitor.settings.secret import Secret
from celery_monitor.settings.sign_in import OidcSettings
from celery_monitor.settings.web import WebSettings
from tests.adapters.web.conftest import Served, served
from tests.adapters.web.corners import HOSTILE, UNICODE_ID, corners
from tests.adapters.web.fleet import NOW, Fleet, bucket, busy, failure, group, incident, usual
from tests.builders import body, raw
from tests.fakes import ManualClock
from tests.servers.openid import CLIENT_ID, SECRET, Provider
from tests.servers.ports import free_port
from tests.servers.process import require

KEY = "incidents/shop.charge%2F2026-11-23T14Z"
PAGES = (
    "",
    "tasks",
    "tasks?q=nothing",
    "tasks/shop.charge",
    "errors",
    "errors?by=exception",
    "errors?since=soon",
    "failures",
    "failures?since=soon",
    "failures/id-1",
    "incidents",
    "incidents?state=resolved",
    KEY,
    "runs",
    "runs?state=all",
    "runs?q=nothing",
    "runs?state=ended",
    "runs/run-1",
    "runs/id-1",
    "runs/never",
    "workers?sort=-load",
    "workers/celery%40box",
    "queues",
    "queues/billing",
    "silences",
    "schedules",
    "reports/today",
    "nothing",
)
CORNERS = (
    *(("empty", page) for page in ("", "tasks", "runs", "errors", "incidents")),
    *(("hostile", page) for page in ("", "tasks", "errors", "incidents", "workers", "schedules", "silences")),
    ("hostile", f"tasks/{quote(HOSTILE[1], '')}"),
    ("hostile", f"incidents/{HOSTILE[0]}%2Fh"),
    ("hostile", "incidents/condition%2Fh"),
    ("hostile", f"failures/{HOSTILE[0]}-1"),
    ("hostile", f"runs/{quote(UNICODE_ID, '')}1"),
    ("hostile", f"workers/celery@{HOSTILE[0]}"),
    ("hostile", f"queues/{HOSTILE[0]}"),
    ("hostile", f"queues/{quote(HOSTILE[3], '')}"),
    ("broken", "tasks"),
    ("header", ""),
)
"""Pages of ``corners``."""
LONG = "shop." + "a_very_long_name_of_a_task_without_any_place_to_break_it" * 3
TRACEBACK = f"""Traceback (most recent call last):
  File "/venv/lib/python3.12/site-packages/celery/app/trace.py", line 453, in trace_task
    R = retval = fun(*args, **kwargs)
                 ^^^^^^^^^^^^^^^^^^^^
  File "/srv/shop/charge.py", line 8, in charge
    raise CardError("{"no such card " * 30}")
shop.errors.CardError: no such card"""


@dataclass
class Visit:
    """A page of the site in a browser."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    """What the console said."""

    def go(self, path: str) -> Page:
        """Open a path from the root."""
        self.page.goto(f"{self.url}/{path}")
        return self.page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    chromium = require("chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP monitor.test 127.0.0.1"],
        )
        yield started
        started.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlStore]:
    """A store with long texts."""
    directory = tmp_path_factory.mktemp("browser")
    made = open_store(f"sqlite:///{directory / 'store.db'}", retention=30 * 86_400.0, fingerprint_window=100)
    made.start()
    made.commit(usual())
    made.commit(
        Changes(
            now=NOW,
            sequence=2,
            buckets=[bucket(LONG, LONG, started=9, succeeded=8, failed=1)],
            groups=[group(LONG, "f" * 16, "x" * 120)],
            failures=[
                failure("id-3", traceback=TRACEBACK, args="(1, 2)" * 100),
                failure("u" * 200, name=LONG, queue=LONG, exception="x" * 120, message="m" * 500, group="f" * 16),
            ],
            incidents=[
                incident(traceback=TRACEBACK, last_uuid="id-3", workers={"celery@box": 2}, queues={"billing": 2}),
                incident(f"{LONG}/h", task=LONG, message="m" * 500, first_at=NOW - 50),
            ],
        )
    )
    yield made
    made.stop()


@pytest.fixture(scope="module")
def shown(filled: SqlStore) -> Iterator[tuple[Served, Fleet]]:
    """A site with it, and its data."""
    fleet = Fleet(filled, links={"Logs": "https://logs.example.com/?q={task_id}"}, notice="Staging " + "x" * 200)
    with served(WebServer(Site(WebSettings(), fleet.sources()), host="127.0.0.1", port=0)) as server:
        yield server, fleet


Visiting = Callable[..., Visit]


@pytest.fixture
def visit(browser: Browser, shown: tuple[Served, Fleet]) -> Iterator[Visiting]:
    """Opens pages in separate contexts; a script error fails the test."""
    opened: list[Visit] = []

    def open_page(width: int = 1440, **options: object) -> Visit:
        context = browser.new_context(viewport={"width": width, "height": 900}, timezone_id="Asia/Tokyo", **options)  # type: ignore[arg-type]
        made = Visit(context.new_page(), shown[0].url)
        made.page.on("pageerror", lambda error: made.errors.append(str(error)))
        made.page.on("console", lambda said: made.errors.append(said.text) if said.type == "error" else None)
        opened.append(made)
        return made

    yield open_page
    for one in opened:
        one.page.context.close()
        # The browser itself notes answers such as 400 and 404.
        assert [error for error in one.errors if "the server responded with a status of" not in error] == []


def violations(page: Page, *rules: str) -> list[tuple[str, list[str]]]:
    """The violations that axe reports: rule and elements."""
    if not page.evaluate("typeof window.axe === 'object'"):
        page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    only = {"runOnly": {"type": "rule", "values": list(rules)}} if rules else {}
    found = page.evaluate(f"axe.run(document, {json.dumps({'resultTypes': ['violations'], **only})})")
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]]


def test_nobody_is_left_out(visit: Visiting) -> None:
    """On every page axe finds nothing, contrast is sufficient in the dark, and nothing is cut off on a phone."""
    opened = visit()
    found = {}
    for path in PAGES:
        page = opened.go(path)
        found["wide", path] = violations(page)
        page.emulate_media(color_scheme="dark")
        found["dark", path] = violations(page, "color-contrast", "link-in-text-block")
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 390, "height": 900})
        found["phone", path] = violations(page, "color-contrast", "scrollable-region-focusable", "target-size")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        page.set_viewport_size({"width": 1440, "height": 900})
    assert {where: what for where, what in found.items() if what} == {}


def test_corners(browser: Browser, tmp_path: Path) -> None:
    """Also on empty pages, with long and hostile names, and without answers."""
    found = {}
    with corners(tmp_path) as sites, browser.new_context(viewport={"width": 320, "height": 900}) as context:
        page = context.new_page()
        for site, path in CORNERS:
            page.goto(f"{sites[site]}{path}")
            found[site, path] = violations(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= 320, (site, path)
    assert {where: what for where, what in found.items() if what} == {}


def test_from_the_pager_to_the_cause(visit: Visiting, tmp_path: Path) -> None:
    """An incident's link shows the application's frame, and one click leads to the whole failure."""
    page = visit().go(KEY)
    assert page.locator("h1").inner_text() == "shop.charge failed 2 times"
    frame = page.locator("pre .own")
    assert frame.is_visible()
    assert "/srv/shop/charge.py" in frame.inner_text()
    assert page.get_by_role("link", name="Logs").get_attribute("href") == "https://logs.example.com/?q=id-3"
    page.get_by_role("link", name="Full failure").click()
    page.wait_for_url("**/failures/id-3")
    assert page.get_by_role("link", name="Logs").is_visible()


def test_figures_stay_in_one_piece(visit: Visiting) -> None:
    """Ages and workers' names do not break in an incident's figures, also on a tablet."""
    lines = """() => [...document.querySelectorAll('.figures .age, .figures .names span')]
        .filter((one) => one.getBoundingClientRect().height > 1.8 * parseFloat(getComputedStyle(one).fontSize))
        .map((one) => one.textContent)"""
    page = visit(768).go(KEY)
    assert page.locator(".figures .age").count() == 2
    assert page.evaluate(lines) == []


def test_search_and_sort(visit: Visiting) -> None:
    """A part of a name finds a task from every page; a column's header sorts, and the address has the state."""
    page = visit().go("workers")
    page.get_by_role("searchbox").fill("SHOP.")
    page.keyboard.press("Enter")
    page.wait_for_url("**/tasks?q=SHOP.")
    names = page.locator("td.name > a")
    assert names.count() == 3
    page.get_by_role("link", name="Executed").click()
    page.wait_for_url("**sort=executed**")
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("Executed")
    assert [re.sub("_.*", "", name) for name in names.all_inner_texts()] == ["shop.a", "shop.mail", "shop.charge"]
    page.get_by_role("link", name="Never failed").click()
    page.wait_for_url("**state=clean**")
    assert names.all_inner_texts() == ["shop.mail"]
    assert "q=SHOP." in page.url
    assert "sort=executed" in page.url


def test_a_mistake_keeps_the_form(visit: Visiting) -> None:
    """The error is next to its field, and the other fields keep their values."""
    page = visit().go("failures?task=charge&since=soon")
    assert page.get_by_label("Task", exact=True).input_value() == "charge"
    wrong = page.get_by_label("Since")
    assert wrong.get_attribute("aria-invalid") == "true"
    assert wrong.is_visible()
    assert "must be a time such as" in page.locator(f"#{wrong.get_attribute('aria-describedby')}").inner_text()
    wrong.fill("1h")
    page.get_by_role("button", name="Find").click()
    page.wait_for_url("**since=1h**")
    assert page.locator("tbody tr").count() == 3


def test_a_slip_finds_what_was_meant(visit: Visiting) -> None:
    """If nothing is found, the intended name is one click away."""
    page = visit().go("failures?task=shop.chrage")
    page.get_by_role("link", name="shop.charge").click()
    page.wait_for_url("**task=shop.charge")
    assert page.locator("tbody tr").count() == 3


def test_times_are_the_viewers(visit: Visiting) -> None:
    """Times are in the browser's zone, with its name; without the script, in the configured zone."""
    page = visit().go("failures/id-1")
    assert page.locator("dd time").first.inner_text() == "2026-11-23 23:04:09 GMT+9"
    assert "Times in Asia/Tokyo" in page.locator("footer").inner_text()
    plain = visit(java_script_enabled=False).go("failures/id-1")
    assert plain.locator("dd time").first.inner_text() == "2026-11-23 14:04:09 UTC"
    assert not plain.locator("button.copy").first.is_visible()


def test_a_page_stays_current(visit: Visiting, shown: tuple[Served, Fleet]) -> None:
    """Changes appear automatically, but not while somebody types or selects, and the focus is kept."""
    page = visit().go("workers")
    page.get_by_role("link", name="Overview").focus()
    _, fleet = shown
    before = list(fleet.workers)
    refresh = "document.dispatchEvent(new Event('visibilitychange'))"
    try:
        fleet.workers.pop()
        page.evaluate("getSelection().selectAllChildren(document.querySelector('td.name'))")
        page.evaluate(refresh)
        assert page.get_by_text("celery@gone").is_visible()
        page.evaluate("getSelection().removeAllRanges()")
        page.evaluate(refresh)
        page.get_by_text("celery@gone").wait_for(state="detached")
        assert page.evaluate("document.activeElement.textContent") == "Overview"
        assert "0 down" not in page.locator("#states").inner_text()
        page.evaluate("void (window.fetch = () => Promise.reject(new TypeError('Failed to fetch')))")
        page.evaluate(refresh)
        page.get_by_text("not updated: the monitor does not respond, or your session has ended").wait_for()
    finally:
        fleet.workers[:] = before


def test_a_running_task_is_seen_to_its_end(visit: Visiting, shown: tuple[Served, Fleet]) -> None:
    """The search finds it by ID, its page shows its state, and its end appears automatically."""
    _, fleet = shown
    before = fleet.monitor
    fleet.monitor = busy()
    try:
        page = visit().go("")
        page.get_by_role("searchbox").fill("run-1")
        page.keyboard.press("Enter")
        page.wait_for_url("**/runs/run-1")
        assert page.locator("aside .badge").inner_text() == "running"
        end = raw("succeeded", "run-1", NOW - 1, runtime=87.0) | {"hostname": "celery@box"}
        fleet.monitor.receive([Delivery(body(end))], NOW)
        page.evaluate("document.activeElement.blur()")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.locator("aside .badge", has_text="succeeded").wait_for()
        page.get_by_role("link", name="shop.mail").last.click()
        page.wait_for_url("**/runs/done-1")
    finally:
        fleet.monitor = before


def test_copying(visit: Visiting) -> None:
    """A click copies an ID, and a traceback as it was sent."""
    one = visit(permissions=["clipboard-read", "clipboard-write"])
    page = one.go("failures/id-3")
    page.get_by_role("button", name="Copy the task ID").click()
    page.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "id-3"
    page.get_by_role("button", name="Copy the traceback").click()
    page.wait_for_function("document.querySelectorAll('.copy')[0].textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()").rstrip("\n") == TRACEBACK


def test_by_keyboard_alone(visit: Visiting) -> None:
    """From the first Tab to an incident: the skip link skips the navigation, and each focus is visible."""
    page = visit().go("")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    for _ in range(30):
        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        if page.evaluate("document.activeElement.getAttribute('href')") == f"./{KEY}":
            break
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/{KEY}")


def test_without_scripts(visit: Visiting) -> None:
    """Every page works without the script: from the overview to a traceback, the search, the filters."""
    page = visit(java_script_enabled=False).go("")
    page.get_by_role("searchbox").fill("char")
    page.keyboard.press("Enter")
    page.locator("td.name a", has_text="charge").first.click()
    assert page.locator("svg[role=img]").count() == 3  # runs, run times, waiting times
    page.get_by_role("link", name="7 days").click()
    page.wait_for_url("**span=7d")
    assert "7 days" in str(page.locator("svg[role=img]").first.get_attribute("aria-label"))
    page.get_by_role("link", name="ValueError").first.click()
    page.wait_for_url("**/failures/*")
    assert "Traceback" in page.locator("pre").first.inner_text()


def test_signing_in_and_out(browser: Browser, filled: SqlStore) -> None:
    """A page leads to the provider and back; signing out ends it; axe finds nothing, nothing is cut off."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    clock = ManualClock(time=NOW)
    fleets = [OtherFleet("mail", "https://mail.example.com")]
    sources = replace(Fleet(filled).sources(), clock=clock, fleets=lambda: fleets)
    with ExitStack() as running:
        provider = running.enter_context(Provider(clock.now, back=f"{base}/sign-in/callback"))
        settings = WebSettings(
            external_url=base,
            operators=("ops",),
            oidc=OidcSettings(issuer=provider.issuer, client_id=CLIENT_ID, client_secret=Secret(SECRET)),
        )
        site = Site(settings, sources, OidcProvider(settings, clock))
        running.enter_context(served(WebServer(site, host="127.0.0.1", port=port)))
        context = running.enter_context(browser.new_context(viewport={"width": 390, "height": 800}))
        page, errors = context.new_page(), list[str]()
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.goto(f"{base}/tasks?q=charge")
        assert page.url == f"{base}/tasks?q=charge"
        assert page.locator(".person").inner_text().startswith("anna")
        page.get_by_text("1 other fleet").click()
        assert page.get_by_role("link", name="mail").is_visible()
        assert violations(page) == []
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("heading", name="Signed out").wait_for()
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        # Another way back would be at once, because the provider asks nobody: not before somebody wants it.
        assert page.evaluate("fetch('/tasks', {mode: 'same-origin'}).then((answer) => answer.status)") == 401
        page.get_by_role("link", name="Sign in").press("Enter")
        page.locator(".person").wait_for()
        assert page.url == f"{base}/"
        assert [line for line in errors if "401" not in line] == []


def test_forms_over_plain_http(browser: Browser, filled: SqlStore) -> None:
    """For other hosts a browser sends no Sec-Fetch-Site over HTTP: only its Origin identifies the form."""
    settings = WebSettings(username="operator", password=Secret("p"))
    site = Site(settings, Fleet(filled).sources())
    with served(WebServer(site, host="127.0.0.1", port=0)) as server:
        credentials = {"username": "operator", "password": "p"}
        with browser.new_context(http_credentials=credentials) as context:  # type: ignore[arg-type]
            page = context.new_page()
            page.goto(f"http://monitor.test:{server.server.port}/silences")
            for name, value in {"match": "shop.*", "for": "1h", "reason": "deploy"}.items():
                page.locator(f"[name={name}]").fill(value)
            page.get_by_role("button", name="Silence", exact=True).click()
            page.get_by_role("button", name="End the silence of shop.*").click()
            page.get_by_text("No silence is in effect").wait_for()
