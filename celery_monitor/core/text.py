"""Makes untrusted text safe to store: replaces what databases, terminals and UTF-8 cannot represent."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Protocol

REPLACEMENT: Final = "\ufffd"
REDACTED: Final = "[redacted]"
UNREAD: Final = "[redacted: the patterns took too long]"
"""Replaces a text if a pattern timed out, because it may still contain what should be redacted."""
OTHER: Final = "other"
"""The name under which everything that exceeds a bound is counted."""
MAX_HOST_LENGTH: Final = 255
_DOTS: Final = re.compile(r"\.\.?~*")
_RANDOM_END: Final = re.compile(
    r"(?:^|(?<=\.))[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$|(?<=^amq\.gen-).+$", re.ASCII | re.IGNORECASE
)


def storable_text(text: str) -> str:
    """The text without characters that UTF-8 or a database cannot represent (lone surrogates, NUL)."""
    if "\x00" in text:
        text = text.replace("\x00", REPLACEMENT)
    if text.isascii():  # known without reading the text
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def printable(text: str, longest: int) -> str:
    """The first ``longest`` characters, unprintable ones replaced: for names and labels."""
    text = text[:longest]
    return text if text.isprintable() else "".join(c if c.isprintable() else REPLACEMENT for c in text)


def path_part(name: str) -> str:
    """The name as a part of the path of a page, without percent-encoding. ``name_of_part`` returns the name.

    Browsers and proxies remove the parts ``.`` and ``..`` from paths, also percent-encoded, so these names get a ``~``.
    """
    return f"{name}~" if _DOTS.fullmatch(name) else name


def name_of_part(part: str) -> str:
    """The name that ``path_part`` has changed to this, or the part itself."""
    return part.removesuffix("~") if _DOTS.fullmatch(part) else part


def size_of(text: str) -> int:
    """Bytes in memory: a single character beyond Latin-1 makes all characters wide."""
    return text.__sizeof__()


def host_of(hostname: str) -> str:
    """``box`` for ``celery@box``; a name without ``@`` is the host itself."""
    return printable(hostname.partition("@")[2] or hostname, MAX_HOST_LENGTH)


class Pattern(Protocol):
    """A compiled regular expression."""

    def sub(self, repl: str, string: str, /) -> str:
        """``string`` with every match replaced. Raises TimeoutError if that takes too long."""


def redacted(text: str, patterns: Sequence[Pattern]) -> str:
    """The text with all matches of all patterns replaced; UNREAD if a pattern takes too long."""
    try:
        for pattern in patterns:
            text = pattern.sub(REDACTED, text)
    except TimeoutError:
        return UNREAD
    return text


@lru_cache(maxsize=4096)
def shared(queue: str) -> str:
    """A queue's name with ``*`` for a suffix that differs in each process: a UUID, or RabbitMQ's ``amq.gen-``.

    Celery's Broadcast gives each worker a queue ``bcast.<uuid>`` (``kombu.common``), and a restart makes a new one.
    """
    return _RANDOM_END.sub("*", queue)
