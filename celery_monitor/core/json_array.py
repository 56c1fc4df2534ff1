"""Splits a large JSON body into its events, as slices of bytes, before a parser builds objects from it.

It looks only at brackets, commas and strings, and bounds their number: a parser would take half a gigabyte and four
seconds for 8 MB of ``[{},{},…]``. A slice need not be valid JSON; the parser detects that.
"""

import re
from collections.abc import Iterator
from typing import Final

MAX_SCANNED_TOKENS: Final = 100_000
"""Brackets, commas and strings that are scanned in one body: about 35 ms. A Celery event has 60."""

_MARK: Final = re.compile(rb'["\[\]{},]')
_TEXT: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_WINDOW: Final = 1 << 18
"""Bytes of a string that one search scans: a search holds the interpreter lock."""
_START: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*(\[\s*\]?)?")
_QUOTE, _OPENING, _CLOSING = b'"', (b"[", b"{"), (b"]", b"}")


def split_array(body: bytes) -> Iterator[bytes | None]:
    """The elements of a list, or the body itself if it is not a list.

    The last item is None if an element does not end within ``MAX_SCANNED_TOKENS``.
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
    """Position at which the value that begins at ``at`` ends, -1 if it does not; and the number of tokens left."""
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
    """Position after the string that contains ``at``; -1 if it does not end."""
    while True:
        end = _TEXT.match(body, at, at + _WINDOW).end()  # type: ignore[union-attr]  # it always matches, possibly the empty string
        if body[end : end + 1] == _QUOTE:
            return end + 1
        if end == at:
            return -1
        at = end
