"""Hostile text made safe to keep: what databases, terminals and UTF-8 cannot hold is replaced."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Protocol

REPLACEMENT: Final = "\ufffd"
REDACTED: Final = "[redacted]"
UNREAD: Final = "[redacted: the patterns took too long]"
"""Replaces a text when a pattern timed out: it may still hold what the patterns should have removed."""
OTHER: Final = "other"
"""The name under which everything beyond a bound is counted."""
MAX_HOST_LENGTH: Final = 255
_RANDOM_END: Final = re.compile(
    r"(?:^|(?<=\.))[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$|(?<=^amq\.gen-).+$", re.ASCII | re.IGNORECASE
)


def storable_text(text: str) -> str:
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


def size_of(text: str) -> int:
    """Bytes that it takes in memory: one character beyond Latin-1 makes all of them wide."""
    return text.__sizeof__()


def host_of(hostname: str) -> str:
    """``box`` of ``celery@box``; what has no ``@`` is the host itself."""
    return printable(hostname.partition("@")[2] or hostname, MAX_HOST_LENGTH)


class Pattern(Protocol):
    """A compiled regular expression."""

    def sub(self, repl: str, string: str, /) -> str:
        """``string`` with every match replaced. Raises TimeoutError when that would take too long."""


def redacted(text: str, patterns: Sequence[Pattern]) -> str:
    """The text with every match of every pattern replaced; nothing of it when a pattern takes too long."""
    try:
        for pattern in patterns:
            text = pattern.sub(REDACTED, text)
    except TimeoutError:
        return UNREAD
    return text


@lru_cache(maxsize=4096)
def shared(queue: str) -> str:
    """A queue's name with ``*`` for an end that is another one in each process: a UUID, or RabbitMQ's ``amq.gen-``.

    Celery's Broadcast gives each worker a queue ``bcast.<uuid>`` (``kombu.common``), and a restart makes a new one.
    """
    return _RANDOM_END.sub("*", queue)
