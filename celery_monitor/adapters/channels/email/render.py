"""Renders a summary as HTML and as text of limited size, with the two templates.

Mail programs limit the HTML: Outlook uses Word for the layout (tables, padding on cells, no flex, grid or SVG), Gmail
removes ``data:`` images and clips mails after 102 kB, and dark modes invert elements that do not set their own colours.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from urllib.parse import quote
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from celery_monitor.adapters.channels.email import phrases, text
from celery_monitor.core.summary import Summary
from celery_monitor.core.text import path_part

MAX_BYTES: Final = 80_000
MAX_PATH: Final = 500


@dataclass(frozen=True, slots=True)
class Size:
    """The maximum number of rows of each list; the remaining rows are only counted."""

    tasks: int
    errors: int
    tracebacks: int
    undelivered: int
    """Also the limit for notes."""


SIZES: Final = (Size(25, 12, 6, 5), Size(15, 8, 3, 5), Size(10, 4, 1, 3), Size(3, 1, 0, 1))
"""From the preferred size to the smallest, which fits regardless of the names."""
PAGE_SIZE: Final = Size(100, 50, 20, 100)
"""The size for a page of the site, to which the mail links for the remaining rows."""
_ONE_PAGE: Final = {"number": 1, "pages": 1}


def render_html(
    summary: Summary, external_url: str | None = None, *, size: Size | None = None, notes: tuple[str, ...] = ()
) -> str:
    """The day as a whole HTML document smaller than MAX_BYTES.

    ``external_url`` is the base URL of links to the page; None for no links. ``notes`` are appended at the end.
    """
    return _sized("report.html", summary, external_url, size, notes)


def render_text(
    summary: Summary, external_url: str | None = None, *, size: Size | None = None, notes: tuple[str, ...] = ()
) -> str:
    """The day as plain text with 80 columns. Otherwise like `render_html`."""
    return _sized("report.txt", summary, external_url, size, notes)


def render_part(summary: Summary, root: str, number: int = 1) -> str:
    """The day as part of an HTML document, with its own styles.

    ``root`` is the prefix of links within the site. ``number`` is the page number, for a day with long lists; a number
    after the last page means the last page.
    """
    pages = _pages(summary, PAGE_SIZE)
    context = _context(summary, root, PAGE_SIZE)
    number = min(max(number, 1), pages)
    return _environment().get_template("report.html").render(context, notes=(), whole=False, number=number, pages=pages)


def _pages(summary: Summary, size: Size) -> int:
    """The number of pages that the longest list needs."""
    lists = (
        (summary.tasks, size.tasks),
        (summary.lost, size.tasks),
        (summary.schedules, size.tasks),
        (summary.errors, size.errors),
        (summary.incidents.undelivered, size.undelivered),
    )
    return max(1, *(-(-len(rows) // per_page) for rows, per_page in lists))


def fit_to_size(make: Callable[[Size], bytes], limit: int = MAX_BYTES) -> bytes:
    """The result of ``make`` for the first of SIZES with which it is smaller than ``limit``."""
    rendered = b""
    for size in SIZES:
        rendered = make(size)
        if len(rendered) < limit:
            break
    return rendered


def _sized(template: str, summary: Summary, external_url: str | None, size: Size | None, notes: tuple[str, ...]) -> str:
    def make(size: Size) -> bytes:
        context = _context(summary, external_url, size)
        return _environment().get_template(template).render(context, notes=notes, whole=True, **_ONE_PAGE).encode()

    return (make(size) if size else fit_to_size(make)).decode()


def _context(summary: Summary, external_url: str | None, size: Size) -> Mapping[str, Any]:
    zone = ZoneInfo(summary.timezone)

    def clock(at: float) -> str:
        """The local time of day; the end of the day is 24:00."""
        return "24:00" if at == summary.end else f"{dt.datetime.fromtimestamp(at, zone):%H:%M}"

    def url(*path: str) -> str:
        """The URL of a page; "" if there is none, or if its name is too long for a URL."""
        quoted = "/".join(quote(path_part(part), safe="", errors="replace") for part in path)
        return f"{external_url.rstrip('/')}/{quoted}" if external_url and len(quoted) <= MAX_PATH else ""

    return {
        "s": summary,
        "size": size,
        "headline": phrases.headline(summary),
        "introduction": phrases.introduction(summary),
        "earlier": phrases.earlier(summary),
        "tone": phrases.tone(summary),
        "watch": phrases.watch(summary),
        "caveats": tuple(phrases.caveats(summary)),
        "subject": phrases.subject(summary),
        "clock": clock,
        "url": url,
        "peak_failed": max(hour.failed for hour in summary.hours),
        "peak_executed": max(hour.executed for hour in summary.hours),
    }


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("celery_monitor.adapters.channels.email"),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        bar=text.bar,
        printable_text=text.printable_text,
        count=text.count,
        duration=text.duration,
        long_date=text.long_date,
        percent=text.percent,
        plural=text.plural,
        scaled=text.scaled,
        short_class=text.short_class,
        shorten=text.shorten,
        unlinked=text.unlinked,
    )
    return environment
