"""Screenshots of the page: ``python -m tests.adapters.web.screenshots URL DIRECTORY``.

Of a site that runs, such as that of ``celery-monitor demo``: each page at five
widths and in the dark. Those of the documentation (``docs/images``) are the tops of three of them.
"""

import re
import sys
from pathlib import Path

import httpx
from playwright.sync_api import Browser, sync_playwright

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
    ("incident", 1440, "light"): ("incident.png", 1300, 950),
    ("incident", 390, "light"): ("incident-phone.png", 390, 844),
}
"""Name, width and height of the pictures of the documentation."""
_CUT = """() => [...document.querySelectorAll('main div, main pre, main td')]
    .filter((one) => one.scrollWidth > one.clientWidth + 1 && one.clientWidth).map((one) => one.className)"""
"""What would have to be scrolled sideways."""


def main(url: str, directory: Path) -> None:
    """Write ``PAGE-WIDTH-SCHEME.png``, and print what does not fit."""
    directory.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        for name, path in pages(url).items():
            for width, scheme in SIZES:
                shoot(browser, f"{url}/{path}", directory, (name, width, scheme))
        browser.close()


def pages(url: str) -> dict[str, str]:
    """What there is to see, with the newest incident and failure."""
    incident = re.search(r'href="\./(incidents/[^"]+)"', httpx.get(f"{url}/", timeout=60).text)
    failure = re.search(r'href="\./(failures/[^"]+)"', httpx.get(f"{url}/failures", timeout=60).text)
    return {
        "overview": "",
        "tasks": "tasks",
        "task": "tasks/shop.payments.charge?span=7d",
        "failures": "failures?task=charge",
        "incidents": "incidents",
        "running": "runs",
        "workers": "workers",
        "schedules": "schedules",
        "silences": "silences",
        "report": "reports/today",
        "wrong": "failures?since=soon",
        "nothing": "tasks?q=chrage",
        **({"incident": incident[1]} if incident else {}),
        **({"failure": failure[1]} if failure else {}),
    }


def shoot(browser: Browser, url: str, directory: Path, view: tuple[str, int, str]) -> None:
    """One picture, and that of the documentation where it is wanted."""
    name, width, scheme = view
    dark = scheme == "dark"
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
    page.goto(url)
    if cut := page.evaluate(_CUT):
        print(f"{name} at {width}: does not fit: {cut}")  # noqa: T201 - a command's answer
    page.screenshot(path=directory / f"{name}-{width}-{scheme}.png", full_page=True)
    if top := TOPS.get(view):
        page.set_viewport_size({"width": top[1], "height": top[2]})
        page.screenshot(path=directory / top[0])
    page.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
