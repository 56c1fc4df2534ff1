"""Formats numbers, times and names for the page."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from urllib.parse import quote, urlencode

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from celery_monitor.core.model import Reason
from celery_monitor.core.text import path_part

NONE: Final = "\N{EN DASH}"
_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_TENTHS_BELOW: Final = 10.0
"""Durations from this many seconds on are shown without tenths."""
_INSIDE_FIGURE: Final = re.compile(
    r"(?<=\d) (?=(?:ms|s|min|h|days?|%)(?!\w))|(?<=<) (?=\d)|(?<=\d h) (?=\d+ min)|(?<=\d min) (?=\d+ s)"
)
"""Places where a line must not break: before a unit, and between the parts of a duration."""
_DIRECTIONS: Final = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Bidirectional control characters, which could display ``gnp.ksat`` as ``task.png``."""
_UNITS: Final = ((86_400, "day", "days"), (3600, "h", "h"), (60, "min", "min"), (1, "s", "s"))

_FORMS: Final = {"": "%Y-%m-%d %H:%M:%S", "minutes": "%Y-%m-%d %H:%M", "clock": "%H:%M", "day": "%m-%d"}

REASONS: Final[dict[str, str]] = {
    Reason.OPENED: "it opened its incident",
    Reason.JOINED: "its incident was already open; nobody is paged twice",
    Reason.REOPENED: "its incident had been resolved and was reopened",
    Reason.BELOW_THRESHOLD: "its rule pages only after more failures within the hour",
    Reason.SILENCED: "its rule does not page, or the task had recovered when its silence ended",
    Reason.MUTED: "a silence or a mute window covered it; it pages when that ends, unless the task has succeeded since",
    Reason.TOO_OLD: "it was older than alerts.max_age when it was read",
    Reason.STORM_OPENED: "many tasks failed at once; it opened one incident for all of them",
    Reason.STORM_JOINED: "many tasks failed at once; one incident covers all of them",
}
"""Why a failure did or did not page, as the end of a sentence."""


def number(value: float | None) -> str:
    """``12,345``, as in mails and headlines."""
    return NONE if value is None else f"{value:,.0f}"


def percent(value: float | None) -> str:
    """``2.5 %``; a small rate above 0 is shown as ``< 0.1 %``."""
    if value is None:
        return NONE
    if 0 < value < 0.001:  # noqa: PLR2004 - what one decimal can show
        return "< 0.1 %"
    return f"{value * 100:.1f} %"


def seconds(value: float | None) -> str:
    """``12 ms``, ``1.5 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    if value is None:
        return NONE
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < _MINUTE:
        return f"{value:.1f} s"
    whole = round(value)
    if value < _HOUR:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def elapsed(value: float) -> str:
    """Like ``seconds``, but in whole seconds: for ages."""
    return f"{value:.0f} s" if round(value) < _MINUTE else seconds(value)


@pass_context
def time(context: Context, text: str | None, form: str = "") -> Markup | str:
    """An API time as ``2026-11-23 14:05:09 UTC`` in the page's zone; the script converts it to the viewer's zone.

    ``form``: minutes (without seconds), clock (only ``14:05``) or day (only ``11-23``), if the zone is shown nearby.
    """
    if text is None:
        return NONE
    moment = datetime.fromisoformat(text).astimezone(context["zone"])
    shown, zone = escape(moment.strftime(_FORMS[form])), f"<span> {escape(moment.tzname() or '')}</span>"
    kind, zone = (f' data-form="{escape(form)}"', zone if form == "minutes" else "") if form else ("", zone)
    # Without Markup.format, which takes ten times as long: a page can have hundreds of times.
    return Markup(f'<time datetime="{escape(text)}"{kind}>{shown}{zone}</time>')  # noqa: S704 - all of it is escaped


def ago(text: str | None, now: str) -> str:
    """The age of an API time: ``2 min ago``; ``in 2 min`` if clocks differ, "" for None."""
    if text is None:
        return ""
    seconds = (datetime.fromisoformat(now) - datetime.fromisoformat(text)).total_seconds()
    for size, one, many in _UNITS:
        number = int(abs(seconds) // size)
        if number:
            span = f"{number} {one if number == 1 else many}"
            return f"{span} ago" if seconds > 0 else f"in {span}"
    return "just now"


def address(path: str, **parameters: str | None) -> str:
    """A path with a query string of the parameters that are not None."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"{path}?{urlencode(given, quote_via=quote, errors='replace')}" if given else path


def query(given: Mapping[str, str], **changes: str | None) -> str:
    """A query string of the nonempty parameters with changes, for links on a filtered list."""
    merged = {name: value for name, value in {**given, **changes}.items() if value}
    return f"?{urlencode(merged, quote_via=quote, errors='replace')}"


def days(value: float) -> str:
    """A period in days or hours: ``30 days``, ``12 h``."""
    if value >= 2 * _UNITS[0][0]:
        return f"{value / _UNITS[0][0]:.3g} days"
    return f"{value / _HOUR:.3g} h"


def duration(begin: str | None, end: str | None) -> str:
    """The duration between two API times; "" if one of them is None."""
    if begin is None or end is None:
        return ""
    took = max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds())
    return elapsed(took) if took >= _TENTHS_BELOW else seconds(took)


def reason(value: str) -> str:
    """The explanation of a reason."""
    return REASONS.get(value, "")


def path(name: str) -> str:
    """A name as an escaped part of a path."""
    return quote(path_part(name), safe="", errors="replace")


def with_break_points(name: str) -> Markup:
    """A name that may break before its parts. Bidirectional control characters are made visible."""
    shown = _DIRECTIONS.sub("\N{REPLACEMENT CHARACTER}", name)
    return Markup(re.sub(r"([._/])(?=\w)", r"\1<wbr>", str(escape(shown))))  # noqa: S704 - escaped first


def unbroken(text: str) -> str:
    """A text in which quantities such as ``3 min 20 s`` or ``2.5 %`` are not broken across lines."""
    return _INSIDE_FIGURE.sub("\N{NO-BREAK SPACE}", text)


def words(value: str) -> str:
    """``below_threshold`` as ``below threshold``."""
    return value.replace("_", " ")
