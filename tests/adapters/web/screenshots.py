"""Screenshots of the page: ``python -m tests.adapters.web.screenshots URL DIRECTORY [START-OF-A-NAME ...]``.

Of a site that runs, such as that of ``celery-monitor demo``, and of those in ``corners.py``: each page at five widths
and in the dark. Those of the documentation (``docs/images``) are the tops of some of them.
"""

import re
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

import httpx
from playwright.sync_api import Browser, sync_playwright

from tests.adapters.web.corners import HOSTILE, LONG, UNICODE_ID, corners

SIZES = (
    (1440, "light"),
    (1440, "dark"),
    (1000, "light"),
    (768, "light"),
    (390, "light"),
    (390, "dark"),
    (320, "light"),
)
TOPS = {
    ("overview", 1440, "light"): ("page.png", 1300, 950),
    ("incident", 1440, "light"): ("incident.png", 1300, 1180),
    ("incident", 390, "light"): ("incident-phone.png", 390, 844),
}
"""Name, width and height of the pictures of the documentation. pngquant makes them a third of their size:
``pngquant --strip --quality 70-95``.
"""
_LIBRARIES = """() => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const one = texts.currentNode;
        one.data = one.data.replace(/"\\/[^"]*?(\\/lib\\/python[^"]*site-packages)/g, '"/venv$1');
    }
}"""
"""Where the libraries are on the machine that makes the pictures is nobody's concern."""
_CUT = """() => [...document.querySelectorAll('main div, main pre, main td')]
    .filter((one) => one.scrollWidth > one.clientWidth + 1 && one.clientWidth)
    .filter((one) => one.checkVisibility({contentVisibilityAuto: true}))
    .map((one) => one.className || one.textContent.slice(0, 60))"""
"""What would have to be scrolled sideways."""


def main(url: str, directory: Path, wanted: tuple[str, ...]) -> None:
    """Write ``PAGE-WIDTH-SCHEME.png``, and print what does not fit.

    ``wanted``: starts of the names of pages, none for all.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as stores, corners(Path(stores)) as sites, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        shown = {name: f"{url}/{path}" for name, path in pages(url).items()}
        shown |= {name: f"{sites[site]}{path}" for name, (site, path) in CORNERS.items()}
        for name, address in shown.items():
            if not wanted or name.startswith(wanted):
                for width, scheme in SIZES:
                    shoot(browser, address, directory, (name, width, scheme))
        browser.close()


CORNERS = {
    **{f"empty-{page or 'overview'}": ("empty", page) for page in
       ("", "tasks", "runs", "errors", "failures", "incidents", "queues", "workers", "schedules", "silences")},
    **{f"hostile-{page or 'overview'}": ("hostile", page) for page in
       ("", "tasks", "runs", "errors", "failures", "incidents", "queues", "workers", "schedules", "silences")},
    "hostile-task": ("hostile", f"tasks/{LONG}"),
    "hostile-script": ("hostile", f"tasks/{quote(HOSTILE[1], '')}"),
    "hostile-run": ("hostile", f"runs/{quote(UNICODE_ID, '')}1"),
    "hostile-no-run": ("hostile", f"runs/{LONG * 3}"),
    "hostile-worker": ("hostile", f"workers/celery@{LONG}"),
    "hostile-queue": ("hostile", f"queues/{LONG}"),
    "hostile-incident": ("hostile", f"incidents/{LONG}%2Fh"),
    "hostile-condition": ("hostile", "incidents/condition%2Fh"),
    "hostile-failure": ("hostile", f"failures/{LONG}-1"),
    "broken": ("broken", "tasks"),
    "door-header": ("header", ""),
}  # fmt: skip
"""Name → which site of ``corners``, and the path there."""


def pages(url: str) -> dict[str, str]:
    """The pages to take, with the newest incident and failure, a worker, and tasks by their IDs."""

    def first(path: str, link: str, otherwise: str = "nothing") -> str:
        found = re.search(rf'href="\./({link})"', httpx.get(f"{url}/{path}", timeout=60).text)
        return found[1] if found else otherwise

    charge = "incidents?task=shop.payments.charge"
    incident = r'incidents/shop\.payments\.charge[^"?]+'

    return {
        "overview": "",
        "tasks": "tasks",
        "task": "tasks/shop.payments.charge?span=7d",
        "errors": "errors?since=7d",
        "errors-by-exception": "errors?since=7d&by=exception",
        "failures": "failures?task=charge",
        "failure": first("failures", 'failures/[^"]+'),
        "incidents": "incidents",
        "incident": first(f"{charge}&state=open", incident, first(charge, incident)),
        "running": "runs?state=all",
        "run-running": first("runs", 'runs/[^"]+'),
        "run-failed": first("failures", 'failures/[^"]+').replace("failures/", "runs/"),
        "run-succeeded": first("schedules", 'runs/[^"]+'),
        "run-unknown": "runs/4711",
        "ended": "runs?state=ended&sort=runtime",
        "workers": "workers",
        "queues": "queues",
        "worker": first("workers", 'workers/[^"]+'),
        "queue": first("queues", 'queues/[^"]+'),
        "schedules": "schedules",
        "silences": "silences",
        "report": "reports/today",
        "wrong": "failures?since=soon",
        "nothing": "tasks?q=chrage",
        "search": "tasks?q=order",
        "missing": "no/such/page",
    }


def shoot(browser: Browser, url: str, directory: Path, view: tuple[str, int, str]) -> None:
    """One picture, and that of the documentation if requested."""
    name, width, scheme = view
    dark = scheme == "dark"
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
    page.goto(url)
    if cut := page.evaluate(_CUT):
        print(f"{name} at {width}: does not fit: {cut}")  # noqa: T201 - a command's answer
    page.screenshot(path=directory / f"{name}-{width}-{scheme}.png", full_page=True)
    if top := TOPS.get(view):
        page.set_viewport_size({"width": top[1], "height": top[2]})
        page.evaluate(_LIBRARIES)
        page.screenshot(path=directory / top[0])
    page.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), tuple(sys.argv[3:]))
