"""Hostile text made safe to show, and numbers made readable: the filters of the templates.

Names and messages come from whoever can send an event. Markup is the business of Jinja2's autoescape; here it is what
survives escaping: characters that turn the reading direction, controls, half characters, endless names, and words
that mail programs make into links (``tasks.py`` is a domain in Paraguay).
"""

import datetime as dt
import re
import unicodedata
from typing import Final

from markupsafe import Markup, escape

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
NAME_WIDTH: Final = 76
"""Characters of a name that are shown."""
BARS: Final = " ▁▂▃▄▅▆▇█"

_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MARKS: Final = 2
"""Combining marks that a letter may carry: enough for every language, not for towers of them."""
_LINKABLE: Final = re.compile(r"(?<=\w)([.@])(?=\w)|(:)(?=//)")


def printable_text(text: str, *, lines: bool = False) -> str:
    """Without controls, direction marks and half characters, each replaced by one that shows that it was there.

    ``lines`` keeps line feeds, and tabs as spaces.
    """
    if lines:
        return "\n".join(printable_text(line.replace("\t", "    ")) for line in text.replace("\r\n", "\n").split("\n"))
    if text.isascii() and text.isprintable():
        return text
    out, marks = [], 0
    for char in text:
        category = unicodedata.category(char)
        marks = marks + 1 if category in {"Mn", "Me"} else 0
        if marks <= _MARKS:
            out.append(REPLACEMENT if category in _UNSAFE else char)
    return "".join(out)


def shorten(text: str, width: int = NAME_WIDTH) -> str:
    """A clean line of at most ``width`` characters, cut in the middle: a task's name tells at both ends."""
    # Cut first, so that a megabyte is not cleaned for nothing; marks that fall away are no loss.
    if len(text) > width:
        head = (width - 1) // 2
        text = f"{text[:head]}…{text[head + 1 - width :]}"
    return printable_text(text)


def short_class(name: str) -> str:
    """A class without its module; what is no dotted name stays as it is."""
    parts = name.split(".")
    return parts[-1] if all(part.isidentifier() for part in parts) else name


def unlinked(text: str) -> Markup:
    """For HTML: what a mail program would make into a link is broken by elements that only allow a line to wrap."""
    # What escaping makes ends with a semicolon and holds none of these characters, so it can come first.
    return Markup(_LINKABLE.sub(r"<span>\g<0></span><wbr>", str(escape(text))))  # noqa: S704 - escaped first


def count(value: float) -> str:
    """A count with separators of thousands; a mean keeps one digit where that tells something."""
    if value >= 10 or value == round(value):  # noqa: PLR2004  # two digits are enough
        return f"{value:,.0f}"
    return f"{value:,.1f}"


def percent(rate: float | None) -> str:
    """A rate as per cent in two or three digits; never rounded to nothing or to all."""
    if not rate:
        return "\N{EN DASH}" if rate is None else "0 %"
    for digits, limit in ((2, 0.01), (1, 0.1), (0, 1.0)):
        if rate < limit:
            formatted = f"{rate * 100:.{digits}f}"
            if float(formatted) == 0:
                return "<0.01 %"
            return ">99 %" if formatted == "100" else f"{formatted} %"
    return "100 %"


def duration(seconds: float) -> str:
    """A duration in its two largest units."""
    if round(seconds) < 60:  # noqa: PLR2004  # a minute
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h"] if hours else []
    return " ".join([*parts, *([f"{minutes} min"] if minutes else [])])


def plural(number: float, singular: str, plural_form: str | None = None) -> str:
    """The number and its noun: ``1 failure``, ``2 failures``."""
    return f"{count(number)} {singular if number == 1 else plural_form or singular + 's'}"


def long_date(date: dt.date) -> str:
    """As in ``Sunday 22 November 2026``, in English whatever the process's locale is."""
    return f"{_DAYS[date.weekday()]} {date.day} {_MONTHS[date.month - 1]} {date.year}"


def short_date(date: dt.date) -> str:
    """As in ``Sunday 22 Nov``."""
    return f"{_DAYS[date.weekday()]} {date.day} {_MONTHS[date.month - 1][:3]}"


def bar(value: float, largest: float) -> str:
    """One character as high as the value; a value above zero is never invisible."""
    return BARS[scaled(value, largest, len(BARS) - 1)]


def scaled(value: float, largest: float, height: int) -> int:
    """The value as a height of at most ``height``, 1 at the least when there is anything."""
    return max(1, round(value / largest * height)) if value > 0 else 0


_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
