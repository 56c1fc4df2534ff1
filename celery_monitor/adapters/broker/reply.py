"""Parses a worker's reply, which any process could have sent.

The size, the number of values and the depth of each reply are limited (msgspec limits the depth), so that an invalid
reply cannot exhaust memory. Compressed replies are rejected: Celery never compresses replies, and a decompression bomb
of 1.8 kB would take gigabytes.
"""

import binascii
import enum
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

import msgspec

from celery_monitor.core.names import shortened_name

MAX_BYTES: Final = 4 << 20
"""Maximum bytes of a reply. A worker with a hundred tasks with long arguments sends some hundred kilobytes."""
MAX_VALUES: Final = 200_000
"""Maximum values in a reply. Four megabytes of ``{},`` would take a hundred times as much memory."""
MAX_NAME_LENGTH: Final = 255
MAX_TEXT_LENGTH: Final = 4_096
_JSON: Final = frozenset({"application/json", "application/x-json"})


class UnreadableReason(enum.StrEnum):
    """Why a reply was discarded."""

    COMPRESSED = "compressed"
    CONTENT_TYPE = "content_type"
    """Not JSON: the worker has another ``task_serializer``."""
    LATE = "late"
    """It answers no current request: the worker is slow, or there was no request."""
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"
    """More workers answered than the monitor accepts."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as received. Only the type of ``body`` is checked."""

    ticket: object
    compression: object
    content_type: object
    body: bytes


class _ReplyHeaders(msgspec.Struct, gc=False):
    ticket: str | None = None
    compression: object = None


class _ReplyProperties(msgspec.Struct, gc=False):
    body_encoding: str | None = None


class _ReplyEnvelope(msgspec.Struct, gc=False):
    body: str
    headers: _ReplyHeaders = msgspec.field(default_factory=_ReplyHeaders)
    properties: _ReplyProperties = msgspec.field(default_factory=_ReplyProperties)
    content_type: str | None = msgspec.field(default=None, name="content-type")


_envelope: Final = msgspec.json.Decoder(_ReplyEnvelope)


def unwrap(data: bytes) -> Reply | UnreadableReason:
    """The reply in an envelope of kombu's virtual transports (``kombu.transport.virtual``)."""
    if len(data) > 2 * MAX_BYTES:
        return UnreadableReason.TOO_LARGE
    try:
        envelope = _envelope.decode(data)
        encoding = (envelope.properties.body_encoding or "utf-8").lower()
        if encoding == "base64":
            body = binascii.a2b_base64(envelope.body)
        elif encoding == "utf-8":
            body = envelope.body.encode()
        else:
            return UnreadableReason.MALFORMED
    except (msgspec.DecodeError, ValueError, RecursionError):
        return UnreadableReason.MALFORMED
    return Reply(envelope.headers.ticket, envelope.headers.compression, envelope.content_type, body)


def read(reply: Reply) -> tuple[str, Any] | UnreadableReason:
    """(hostname of the worker as the core stores it, its answer: JSON of any shape), or why the reply is discarded."""
    if reply.compression:
        return UnreadableReason.COMPRESSED
    if not isinstance(reply.content_type, str) or reply.content_type.lower() not in _JSON:
        return UnreadableReason.CONTENT_TYPE
    body = reply.body
    if len(body) > MAX_BYTES or body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_VALUES:
        return UnreadableReason.TOO_LARGE
    try:
        answers = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return UnreadableReason.MALFORMED
    if not isinstance(answers, dict) or len(answers) != 1:
        return UnreadableReason.MALFORMED
    [(hostname, answer)] = answers.items()
    return (shortened_name(hostname), answer) if is_name(hostname) else UnreadableReason.MALFORMED


def is_name(value: object) -> TypeGuard[str]:
    """Whether the value can be the name of a worker or a queue, or an ID."""
    return isinstance(value, str) and 0 < len(value.encode(errors="replace")) <= MAX_NAME_LENGTH


def is_text(value: object) -> TypeGuard[str]:
    """Whether the value can be the name of a task."""
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT_LENGTH
