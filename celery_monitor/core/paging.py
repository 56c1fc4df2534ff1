"""Pagination: one convention for the store, the web pages and the API.

A list takes a ``limit`` and a ``cursor`` (None: from the start) and returns a `Page`. A cursor contains the position of
a page's last row in the order of the list. Callers pass it back unchanged; it needs no escaping in a URL.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from celery_monitor.errors import InvalidCursorError

T = TypeVar("T")
P = TypeVar("P", bound=tuple[object, ...])


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list."""

    rows: Sequence[T]
    next: str | None = None
    """The cursor of the next page; None on the last one."""


def page(rows: Sequence[T], limit: int, position: Callable[[T], tuple[object, ...]]) -> Page[T]:
    """The first ``limit`` of ``rows``. Pass one more row than ``limit``: it shows that there is a next page."""
    visible = rows[:limit]
    return Page(visible, cursor(position(visible[-1])) if visible and len(rows) > limit else None)


def cursor(position: tuple[object, ...]) -> str:
    """The cursor of the rows after a position."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def position(cursor: str, kind: type[P]) -> P:
    """The inverse of ``cursor``. ``kind``: the type of the list's positions. Raises InvalidCursorError."""
    padded = cursor + "=" * (-len(cursor) % 4)
    try:
        return msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=kind)
    except (msgspec.MsgspecError, ValueError) as exc:
        raise InvalidCursorError("cursor: not a cursor of this list") from exc
