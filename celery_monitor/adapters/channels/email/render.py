"""Summary → HTML and text, by the two templates, within a size.

Mail programs set the rules of the HTML: Outlook lays out with Word (tables, padding on cells, no flex, grid or SVG),
Gmail drops ``data:`` images and clips after 102 kB, and dark modes invert what does not say its own colours.
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

MAX_BYTES: Final = 80_000
MAX_PATH: Final = 500


@dataclass(frozen=True, slots=True)
class Size:
    """How many rows are shown of what can be endless; the rest is counted."""

    tasks: int
    errors: int
    tracebacks: int
    undelivered: int
    """Also of notes."""


SIZES: Final = (Size(25, 12, 6, 5), Size(15, 8, 3, 5), Size(10, 4, 1, 3), Size(3, 1, 0, 1))
"""From the wanted one down; the last fits whatever the names are."""
PAGE_SIZE: Final = Size(100, 50, 20, 100)
"""Of a page of the site, to which a mail leads for the rest."""
_ONE_PAGE: Final = {"number": 1, "pages": 1}


def render_html(
    summary: Summary, external_url: str | None = None, *, size: Size | None = None, notes: tuple[str, ...] = ()
) -> str:
    """The day as a whole HTML document below MAX_BYTES.

    ``external_url`` is the base of links to the page, without one there are none; ``notes`` go to the end.
    """
    return _sized("report.html", summary, external_url, size, notes)


def render_text(
    summary: Summary, external_url: str | None = None, *, size: Size | None = None, notes: tuple[str, ...] = ()
) -> str:
    """The day as plain text for 80 columns; else as `render_html`."""
    return _sized("report.txt", summary, external_url, size, notes)


def render_part(summary: Summary, root: str, number: int = 1) -> str:
    """The day as a part of an HTML document, with its own styles.

    ``root`` is what links within the site begin with. ``number``: which page of a day with long lists; beyond the last
    one it is the last.
    """
    pages = _pages(summary, PAGE_SIZE)
    context = _context(summary, root, PAGE_SIZE)
    number = min(max(number, 1), pages)
    return _environment().get_template("report.html").render(context, notes=(), whole=False, number=number, pages=pages)


def _pages(summary: Summary, size: Size) -> int:
    """How many pages the longest list takes."""
    lists = (
        (summary.tasks, size.tasks),
        (summary.lost, size.tasks),
        (summary.schedules, size.tasks),
        (summary.errors, size.errors),
        (summary.incidents.undelivered, size.undelivered),
    )
    return max(1, *(-(-len(rows) // per_page) for rows, per_page in lists))


def fit_to_size(make: Callable[[Size], bytes], limit: int = MAX_BYTES) -> bytes:
    """What ``make`` gives for the first of SIZES at which it is smaller than ``limit``."""
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
        """The local time of the day; its last moment is 24:00."""
        return "24:00" if at == summary.end else f"{dt.datetime.fromtimestamp(at, zone):%H:%M}"

    def url(*path: str) -> str:
        """Address of a page; "" when there is none, or its name is too long to be an address."""
        quoted = "/".join(quote(part, safe="", errors="replace") for part in path)
        return f"{external_url.rstrip('/')}/{quoted}" if external_url and len(quoted) <= MAX_PATH else ""

    return {
        "s": summary,
        "size": size,
        "headline": phrases.headline(summary),
        "lede": phrases.introduction(summary),
        "earlier": phrases.earlier(summary),
        "tone": phrases.tone(summary),
        "watch": phrases.watch(summary),
        "doubts": tuple(phrases.caveats(summary)),
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
