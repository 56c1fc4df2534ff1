"""Screenshots of the mail: ``python -m tests.adapters.channels.email.screenshots DIRECTORY [DAY …]``.

Of each day in two widths, light and dark, by Debian's Chromium; the text version beside them. Those of the
documentation (``docs/images``) are the tops of two of them: ``mail.png`` and ``mail-phone.png``.
"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from celery_monitor.adapters.channels.email.render import render_html, render_text
from tests.adapters.channels.email.days import DAYS

WIDTHS = (600, 360)
TOPS = {("normal", 600, "light"): ("mail.png", 745), ("normal", 360, "dark"): ("mail-phone.png", 680)}
"""Name and height of the pictures of the documentation."""


def main(directory: Path, names: list[str]) -> None:
    """Write ``DAY-WIDTH-SCHEME.png``, ``DAY.html`` and ``DAY.txt``."""
    directory.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        for name in names or DAYS:
            summary = DAYS[name]()
            html = render_html(summary, "https://monitor.shop.example")
            (directory / f"{name}.html").write_text(html)
            (directory / f"{name}.txt").write_text(render_text(summary, "https://monitor.shop.example"))
            for width in WIDTHS:
                for scheme in ("light", "dark"):
                    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
                    page.set_content(html)
                    page.screenshot(path=directory / f"{name}-{width}-{scheme}.png", full_page=True)
                    if top := TOPS.get((name, width, scheme)):
                        page.set_viewport_size({"width": width, "height": top[1]})
                        page.screenshot(path=directory / top[0])
                    page.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
