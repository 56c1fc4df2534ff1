"""Hostile text made safe to keep: what databases, terminals and UTF-8 cannot hold is replaced."""

import re
from collections.abc import Sequence
from typing import Final

REPLACEMENT: Final = "\ufffd"
REDACTED: Final = "[redacted]"
OTHER: Final = "other"
"""The name under which is counted what is beyond a bound."""
LONGEST_HOST: Final = 255


def clean(text: str) -> str:
    """The same text without what UTF-8 or a database cannot hold (lone surrogates, NUL)."""
    if "\x00" in text:
        text = text.replace("\x00", REPLACEMENT)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def printable(text: str, longest: int) -> str:
    """At most ``longest`` characters of it, each of them printable: for names and labels."""
    text = text[:longest]
    return text if text.isprintable() else "".join(c if c.isprintable() else REPLACEMENT for c in text)


def host_of(hostname: str) -> str:
    """``box`` of ``celery@box``; what has no ``@`` is the host itself."""
    return printable(hostname.partition("@")[2] or hostname, LONGEST_HOST)


def redacted(text: str, patterns: Sequence[re.Pattern[str]]) -> str:
    """The text with every match of every pattern replaced."""
    for pattern in patterns:
        text = pattern.sub(REDACTED, text)
    return text
