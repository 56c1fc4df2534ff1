"""A large JSON body → its events, as slices of its bytes, before any parser builds objects from it.

Brackets, commas and strings are all that is looked at, and the number of them is bounded: ``[{},{},…]`` in 8 MB would
take a parser half a gigabyte and four seconds. A slice need not be JSON; whoever parses it finds out.
"""

import re
from collections.abc import Iterator
from typing import Final

MAX_SCANNED_TOKENS: Final = 100_000
"""Brackets, commas and strings that are looked at in one body: some 35 ms. An event of Celery has 60."""

_MARK: Final = re.compile(rb'["\[\]{},]')
_TEXT: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_WINDOW: Final = 1 << 18
"""Bytes of a string that one search goes through: it holds the interpreter's lock."""
_START: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*(\[\s*\]?)?")
_QUOTE, _OPENING, _CLOSING = b'"', (b"[", b"{"), (b"]", b"}")


def split_array(body: bytes) -> Iterator[bytes | None]:
    """The elements of a list, or the body itself when it is none.

    The last one is None where an element does not end, or not within ``MAX_SCANNED_TOKENS``.
    """
    start = _START.match(body)
    at = start.end() if start is not None else 0
    if start is None or start[1] is None:
        yield body if body.startswith(b"{", at) and _end(body, at, MAX_SCANNED_TOKENS)[0] >= 0 else None
        return
    tokens_left, closed = MAX_SCANNED_TOKENS, start[1].endswith(b"]")
    while not closed:
        end, tokens_left = _end(body, at, tokens_left)
        if end < 0:
            yield None
            return
        yield body[at:end]
        closed, at = body[end : end + 1] != b",", end + 1


def _end(body: bytes, at: int, tokens_left: int) -> tuple[int, int]:
    """Where the value that begins at ``at`` ends, -1 when it does not; and how many marks are left then."""
    depth = 0
    while tokens_left > 0:
        mark = _MARK.search(body, at)
        if mark is None:
            return (len(body) if depth == 0 else -1), tokens_left
        tokens_left, at, token = tokens_left - 1, mark.end(), mark[0]
        if token == _QUOTE:
            at = _after_string(body, at)
            if at < 0:
                break
        elif token in _OPENING:
            depth += 1
        elif depth == 0:  # the comma behind it, or the end of the list
            return mark.start(), tokens_left
        elif token in _CLOSING:
            depth -= 1
    return -1, tokens_left


def _after_string(body: bytes, at: int) -> int:
    """Where the string goes on to whose inside ``at`` is; -1 when it does not end."""
    while True:
        end = _TEXT.match(body, at, at + _WINDOW).end()  # type: ignore[union-attr]  # it matches nothing, too
        if body[end : end + 1] == _QUOTE:
            return end + 1
        if end == at:
            return -1
        at = end
