"""Bytes of a message → events, or the reason why not.

Two ways. The fast one lets msgspec read the whole body into structs. Whatever it refuses takes the lenient one: the
standard library's parser, then field by field, so that one bad event of a list costs only itself, and a harmless
oddity (a lone surrogate in an exception's text, ``NaN``, a string where a number should be in a field nobody needs)
costs nothing. Refused is only what cannot be counted: no type, no usable timestamp, a task event without its uuid.
"""

import json
import math
from typing import Final, cast

import msgspec

from celery_monitor.core.model import LARGEST_INT, LATEST_TIMESTAMP, LONGEST_RUNTIME, LONGEST_TYPE, LONGEST_UUID, Event
from celery_monitor.core.text import clean

MALFORMED: Final = "malformed"
CONTENT_TYPE: Final = "content_type"


class Discarded(msgspec.Struct, frozen=True):
    """One event, or a whole message, that is not counted, and why (a label of events_discarded_total)."""

    reason: str


_fast = msgspec.json.Decoder(list[Event] | Event).decode  # checks the bounds of Event's fields, too
_TEXTS: Final = ("name", "queue", "eta", "exception", "traceback", "args", "kwargs", "sw_ident", "sw_ver", "sw_sys")
_LONGEST_INT: Final = 20
_INTS: Final = ("active", "processed", "pid")


def decode(body: bytes, content_type: str) -> list[Event | Discarded]:
    """All events of one message, in their order. Never raises, whatever the body.

    Only JSON is read: a pickle is code.
    """
    if content_type != "application/json" and not _is_json(content_type):
        return [Discarded(CONTENT_TYPE)]
    try:
        found = _fast(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return _decode_leniently(body)
    # No Discarded comes out of it, but copying the list to please its type would cost as much as all checks.
    return cast("list[Event | Discarded]", found) if type(found) is list else [cast("Event", found)]


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"


def _decode_leniently(body: bytes) -> list[Event | Discarded]:
    try:
        found = json.loads(body.decode("utf-8-sig", "replace"), parse_int=_parse_int)
    except (ValueError, RecursionError):
        return [Discarded(MALFORMED)]
    return [_read(item) for item in found] if isinstance(found, list) else [_read(found)]


def _parse_int(digits: str) -> float:
    """Python refuses to read thousands of digits, which would cost the whole message; no number here needs twenty."""
    return int(digits) if len(digits) <= _LONGEST_INT else float(digits)


def _read(raw: object) -> Event | Discarded:
    if not isinstance(raw, dict):
        return Discarded(MALFORMED)
    kind, uuid, timestamp = raw.get("type"), raw.get("uuid", ""), _float(raw.get("timestamp"))
    if not (
        isinstance(kind, str)
        and isinstance(uuid, str)
        and timestamp is not None
        and len(kind) <= LONGEST_TYPE
        and len(uuid) <= LONGEST_UUID
        and 0.0 <= timestamp <= LATEST_TIMESTAMP
    ):
        return Discarded(MALFORMED)
    fields: dict[str, object] = {name: _text(raw.get(name)) for name in _TEXTS}
    fields |= {name: _int(raw.get(name)) for name in _INTS}
    runtime, requeue = _float(raw.get("runtime")), raw.get("requeue")
    return Event(
        type=clean(kind),
        timestamp=timestamp,
        hostname=_text(raw.get("hostname")) or "",
        uuid=clean(uuid),
        runtime=runtime if runtime is not None and 0.0 <= runtime <= LONGEST_RUNTIME else None,
        requeue=requeue if isinstance(requeue, bool) else None,
        **fields,  # type: ignore[arg-type]  # each was checked for its kind above
    )


def _text(value: object) -> str | None:
    return clean(value) if isinstance(value, str) else None


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_INT else None


def _float(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
