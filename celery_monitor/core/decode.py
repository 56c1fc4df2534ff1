"""Decodes the bytes of a message into events, or the reason why it is refused.

There are two decoders. The fast one lets msgspec read the whole body into structs. Bodies that it refuses are read by
the lenient one: the standard library's parser, then field by field, so that a bad event does not affect the others in
its list, and harmless oddities (a lone surrogate in an exception's text, ``NaN``, a string instead of a number in an
unused field) are ignored. Only events that cannot be counted are refused: those without a type or a usable timestamp,
and task events without a uuid.

The caller holds a lock, and both parsers hold the interpreter lock, so the work for one message is bounded regardless
of its contents: at most ``MAX_EVENTS`` of its events are read, and a large body is split into its events before a
parser builds objects from it (see ``split_array``).
"""

import json
import math
from typing import Final, cast

import msgspec

from celery_monitor.core.json_array import split_array
from celery_monitor.core.model import (
    LATEST_TIMESTAMP,
    MAX_INT,
    MAX_RUNTIME,
    MAX_TYPE_LENGTH,
    MAX_UUID_LENGTH,
    Delivery,
    Event,
)
from celery_monitor.core.text import storable_text

_JSON: Final = "application/json"
MALFORMED: Final = "malformed"
CONTENT_TYPE: Final = "content_type"
TOO_LARGE: Final = "too_large"
"""The message is longer than ``broker.max_message_bytes``."""
COMPRESSED: Final = "compressed"
"""The message is compressed. Celery never compresses events."""
TOO_MANY_EVENTS: Final = "too_many_events"
"""The rest of a message with more events than ``MAX_EVENTS``."""
POISON: Final = "poison"
"""The process died twice while applying this message."""

MAX_EVENTS: Final = 1_000
"""Maximum number of events per message. A Celery worker sends at most 24 (``EventDispatcher.buffer_limit``)."""
_LARGE: Final = 1 << 16
"""Size in bytes above which a body is split before a parser builds objects from it."""
_MAX_LENIENT: Final = 2 << 20
"""Maximum bytes of one message that the lenient decoder reads, which takes about 30 ms."""


class Discarded(msgspec.Struct, frozen=True):
    """An event or a whole message that is not counted, and the reason (a label of events_discarded_total)."""

    reason: str


_fast = msgspec.json.Decoder(list[Event] | Event).decode  # also checks the bounds of Event's fields
_fast_one = msgspec.json.Decoder(Event).decode
_fast_msgpack = msgspec.msgpack.Decoder(list[Event] | Event).decode
_REFUSALS: Final = (msgspec.MsgspecError, RecursionError, UnicodeError, ValueError, TypeError, MemoryError)
"""The exceptions that msgspec raises for any input."""
_TEXTS: Final = (
    "name", "queue", "eta", "expires", "exception", "traceback", "args", "kwargs", "sw_ident", "sw_ver", "sw_sys",
)  # fmt: skip
_MAX_INT_DIGITS: Final = 20
_INTS: Final = ("active", "processed", "pid", "retries")
_IDS: Final = ("root_id", "parent_id")
_ARRAY_16, _ARRAY_32, _FIXARRAY = 0xDC, 0xDD, range(0x90, 0xA0)


def events_of(delivery: Delivery) -> list[Event | Discarded]:
    """All events of one message in order, or the reason why it is refused. Never raises."""
    body = delivery.body
    if delivery.refused is not None:
        return [Discarded(delivery.refused)]
    if delivery.content_type != _JSON or len(body) > _LARGE:
        return decode(body, delivery.content_type)
    try:
        decoded = _fast(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return _decode_leniently(body)
    if type(decoded) is not list:
        return [decoded]
    return decoded if len(decoded) <= MAX_EVENTS else _limited(decoded)


def decode(body: bytes, content_type: str) -> list[Event | Discarded]:
    """All events of one message in order. Never raises, whatever the body contains.

    Only JSON and MessagePack are read: a pickle can contain code, and aliases in YAML can expand without limit.
    """
    if content_type != _JSON:
        kind = content_type.partition(";")[0].strip().lower()
        if kind == "application/x-msgpack":
            return _decode_msgpack(body)
        if kind != _JSON:
            return [Discarded(CONTENT_TYPE)]
    if len(body) > _LARGE and body.count(b"{") > MAX_EVENTS:
        return _decode_pieces(body)
    return _decode_json(body)


def _decode_json(body: bytes) -> list[Event | Discarded]:
    try:
        decoded = _fast(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return _decode_leniently(body) if len(body) <= _LARGE else _decode_pieces(body)
    if type(decoded) is not list:
        return [cast("Event", decoded)]
    # The list contains no Discarded, but copying it to satisfy the type would cost as much as all checks.
    return cast("list[Event | Discarded]", decoded) if len(decoded) <= MAX_EVENTS else _limited(decoded)


def _limited(events: "list[Event] | list[Event | Discarded]") -> "list[Event | Discarded]":
    return [*events[:MAX_EVENTS], Discarded(TOO_MANY_EVENTS)] if len(events) > MAX_EVENTS else [*events]


def _decode_pieces(body: bytes) -> list[Event | Discarded]:
    """Decode one event at a time, so that never more than one is built at once."""
    events: list[Event | Discarded] = []
    lenient = 0
    for piece in split_array(body):
        if len(events) == MAX_EVENTS:
            events.append(Discarded(TOO_MANY_EVENTS))
            break
        if piece is None:
            events.append(Discarded(MALFORMED))
            break
        try:
            events.append(_fast_one(piece))
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            lenient += len(piece)
            events.append(_read(_parse(piece)) if lenient <= _MAX_LENIENT else Discarded(MALFORMED))
    return events


def _decode_msgpack(body: bytes) -> list[Event | Discarded]:
    """Decode MessagePack, as written by kombu's serializer ``msgpack``."""
    if _array_length(body) > MAX_EVENTS:
        return [Discarded(TOO_MANY_EVENTS)]
    try:
        decoded = _fast_msgpack(body)
    except _REFUSALS:
        try:
            loose = msgspec.msgpack.decode(body) if len(body) <= _LARGE else None
        except _REFUSALS:
            loose = None
        return [_read(item) for item in loose] if isinstance(loose, list) else [_read(loose)]
    return cast("list[Event | Discarded]", decoded) if type(decoded) is list else [cast("Event", decoded)]


def _array_length(body: bytes) -> int:
    """The length of an array according to the body's head; 0 for any other body."""
    head = body[0] if body else 0
    if head in _FIXARRAY:
        return head - _FIXARRAY.start
    size = {_ARRAY_16: 2, _ARRAY_32: 4}.get(head, 0)
    return int.from_bytes(body[1 : 1 + size], "big")


def _decode_leniently(body: bytes) -> list[Event | Discarded]:
    decoded = _parse(body)
    if not isinstance(decoded, list):
        return [_read(decoded)]
    return _limited([_read(item) for item in decoded[: MAX_EVENTS + 1]])


def _parse(body: bytes) -> object:
    """Parse JSON with the standard library. Returns None, which is not an event, for invalid JSON."""
    try:
        return json.loads(body.decode("utf-8-sig", "replace"), parse_int=_parse_int)
    except (ValueError, RecursionError):
        return None


def _parse_int(digits: str) -> float:
    """Parse an integer. Python refuses thousands of digits, which would discard the message. No field needs 20."""
    return int(digits) if len(digits) <= _MAX_INT_DIGITS else float(digits)


def _read(raw: object) -> Event | Discarded:
    if not isinstance(raw, dict):
        return Discarded(MALFORMED)
    kind, uuid, timestamp = raw.get("type"), raw.get("uuid", ""), _float(raw.get("timestamp"))
    if not (
        isinstance(kind, str)
        and isinstance(uuid, str)
        and timestamp is not None
        and len(kind) <= MAX_TYPE_LENGTH
        and len(uuid) <= MAX_UUID_LENGTH
        and 0.0 <= timestamp <= LATEST_TIMESTAMP
    ):
        return Discarded(MALFORMED)
    fields: dict[str, object] = {name: _text(raw.get(name)) for name in _TEXTS}
    fields |= {name: _int(raw.get(name)) for name in _INTS} | {name: _id(raw.get(name)) for name in _IDS}
    runtime, requeue = _float(raw.get("runtime")), raw.get("requeue")
    return Event(
        type=storable_text(kind),
        timestamp=timestamp,
        hostname=_text(raw.get("hostname")) or "",
        uuid=storable_text(uuid),
        runtime=runtime if runtime is not None and 0.0 <= runtime <= MAX_RUNTIME else None,
        loadavg=_loads(raw.get("loadavg")),
        requeue=requeue if isinstance(requeue, bool) else None,
        **fields,  # type: ignore[arg-type]  # each was checked for its kind above
    )


def _text(value: object) -> str | None:
    return storable_text(value) if isinstance(value, str) else None


def _id(value: object) -> str | None:
    """The ID of another task. It is only shown, so an ID that is too long is dropped without discarding the event."""
    return storable_text(value) if isinstance(value, str) and len(value) <= MAX_UUID_LENGTH else None


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_INT else None


def _loads(value: object) -> tuple[float, float, float] | None:
    numbers = [_float(number) for number in value] if isinstance(value, list) and len(value) == 3 else [None]  # noqa: PLR2004
    return None if None in numbers else cast("tuple[float, float, float]", tuple(numbers))


def _float(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
