"""How the page writes numbers, times and names."""

import re
from typing import Final
from urllib.parse import quote

from markupsafe import Markup, escape

NONE: Final = "\N{EN DASH}"
_MINUTE: Final = 60.0
_HOUR: Final = 3600.0


def number(value: float | None) -> str:
    """``12 345``: thousands apart by a thin space."""
    return NONE if value is None else f"{value:,.0f}".replace(",", "\N{THIN SPACE}")


def percent(value: float | None) -> str:
    """``2.5 %``; a rate that is not 0 never looks like it."""
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


def time(text: str | None) -> Markup | str:
    """A time of the API as ``2026-11-23 14:05:09 UTC``."""
    if text is None:
        return NONE
    return Markup('<time datetime="{}">{} {}<span> UTC</span></time>').format(text, text[:10], text[11:19])


def path(name: str) -> str:
    """A name as a part of a path, whatever it holds."""
    return quote(name, safe="", errors="replace")


def breakable(name: str) -> Markup:
    """A name that breaks where its parts begin."""
    return Markup(re.sub(r"([._/])(?=\w)", r"\1<wbr>", str(escape(name))))  # noqa: S704 - escaped first


def words(value: str) -> str:
    """``below_threshold`` as ``below threshold``."""
    return value.replace("_", " ")
