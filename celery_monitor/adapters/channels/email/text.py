"""The filters of the templates: make hostile text safe to show, and format numbers.

Anybody who can send an event controls names and messages. Jinja2's autoescape handles markup. This module handles what
escaping leaves: characters that change the reading direction, control characters, lone surrogates, very long names, and
words that mail programs turn into links (``tasks.py`` is a domain in Paraguay).
"""

import datetime as dt
import re
import unicodedata
from typing import Final

from markupsafe import Markup, escape

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
NAME_WIDTH: Final = 76
"""Maximum number of characters of a name that are shown."""
BARS: Final = " ▁▂▃▄▅▆▇█"

_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MARKS: Final = 2
"""Maximum number of combining marks on a letter: enough for every language."""
_LINKABLE: Final = re.compile(r"(?<=\w)([.@])(?=\w)|(:)(?=//)")


def printable_text(text: str, *, lines: bool = False) -> str:
    """The text with control characters, direction marks and lone surrogates replaced by a visible character.

    ``lines``: keep line feeds, and replace tabs with spaces.
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
    """A printable line of at most ``width`` characters, shortened in the middle: both ends of a task's name matter."""
    # Cut first, to avoid cleaning a megabyte for nothing. Losing some combining marks does not matter.
    if len(text) > width:
        head = (width - 1) // 2
        text = f"{text[:head]}…{text[head + 1 - width :]}"
    return printable_text(text)


def short_class(name: str) -> str:
    """A class name without its module. Text that is not a dotted name is unchanged."""
    parts = name.split(".")
    return parts[-1] if all(part.isidentifier() for part in parts) else name


def unlinked(text: str) -> Markup:
    """HTML that splits words that mail programs turn into links, with elements that only allow a line break."""
    # HTML entities contain none of these characters, so the text can be escaped first.
    return Markup(_LINKABLE.sub(r"<span>\g<0></span><wbr>", str(escape(text))))  # noqa: S704 - escaped first


def count(value: float) -> str:
    """A count with thousands separators; a mean has one decimal if that is significant."""
    if value >= 10 or value == round(value):  # noqa: PLR2004  # two digits are enough
        return f"{value:,.0f}"
    return f"{value:,.1f}"


def percent(rate: float | None) -> str:
    """A rate as a percentage with two or three digits; never rounded to 0% or 100%."""
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
    """The number with its noun: ``1 failure``, ``2 failures``."""
    return f"{count(number)} {singular if number == 1 else plural_form or singular + 's'}"


def long_date(date: dt.date) -> str:
    """As in ``Sunday 22 November 2026``, in English regardless of the process's locale."""
    return f"{_DAYS[date.weekday()]} {date.day} {_MONTHS[date.month - 1]} {date.year}"


def short_date(date: dt.date) -> str:
    """As in ``Sunday 22 Nov``."""
    return f"{_DAYS[date.weekday()]} {date.day} {_MONTHS[date.month - 1][:3]}"


def bar(value: float, largest: float) -> str:
    """A block character whose height shows the value; a value above zero is always visible."""
    return BARS[scaled(value, largest, len(BARS) - 1)]


def scaled(value: float, largest: float, height: int) -> int:
    """The value as a height of at most ``height``; at least 1 for a value above zero."""
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
