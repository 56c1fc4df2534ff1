"""Redis' pub/sub protocol → deliveries, without I/O: as much of RESP 2 and 3 as a subscriber sees.

A message is an array (RESP 3: a push) ``pmessage, pattern, channel, data``. The data is kombu's envelope, JSON with
the body in base64 (``kombu.transport.virtual``). Data that is no envelope is given away as it is, without a content
type, so that it is counted as discarded and not lost from sight. Data that is too long is dropped as it arrives.
"""

import binascii
import re
from typing import Any, Final, Generic, TypeVar

import msgspec
from redis.exceptions import InvalidResponse, NoPermissionError, ResponseError

from celery_monitor.core.decode import COMPRESSED, TOO_LARGE
from celery_monitor.core.model import HEAD, Delivery

_Body = TypeVar("_Body", str, bytes)


class _Headers(msgspec.Struct, gc=False):
    compression: msgspec.Raw = msgspec.Raw(b"null")


class _Properties(msgspec.Struct, gc=False):
    body_encoding: str | None = None
    delivery_tag: msgspec.Raw = msgspec.Raw(b"")


class _Envelope(msgspec.Struct, Generic[_Body], gc=False):
    body: _Body
    properties: _Properties = msgspec.field(default_factory=_Properties)
    headers: _Headers | None = None
    content_type: str | None = msgspec.field(default=None, name="content-type")


_envelope: Final = msgspec.json.Decoder(_Envelope[str])
_base64_envelope: Final = msgspec.json.Decoder(_Envelope[bytes])
"""Decodes the body, too, in a third of the time that ``binascii`` takes."""
_REFUSALS: Final = (msgspec.DecodeError, ValueError, RecursionError)
"""ValueError is what ``binascii`` and encodings raise, also for what is not ASCII."""
_MESSAGE: Final = {b"pmessage": 4, b"message": 3}
_USUAL: Final = re.compile(
    rb"[*>]4\r\n\$8\r\npmessage\r\n\$(\d{1,9})\r\n([^\r]*)\r\n\$(\d{1,9})\r\n([^\r]*)\r\n\$(\d{1,9})\r\n"
)
"""A message up to its data, unless a name has a carriage return in it."""
_SIZE: Final = re.compile(rb"(\d{1,9})\r\n")
_BULK, _ARRAY, _PUSH, _ERROR, _LEAVES = 0x24, 0x2A, 0x3E, 0x2D, b":+_,#("
_HEADERS: Final = 1 << 16
"""Bytes of an envelope beside its body."""
_MAX_LINE_LENGTH: Final = 1 << 16
_MAX_BULK_LENGTH: Final = 1 << 30
"""Twice what Redis takes (``proto-max-bulk-len``)."""
_MAX_ITEMS: Final = 64
_MAX_TAG: Final = 64
"""Characters of a delivery tag; kombu's are UUIDs."""
NO_TAG: Final = "-"


class RespReader:
    """Turns the bytes of a subscribed connection into deliveries; bodies have at most ``max_bytes``."""

    def __init__(self, max_bytes: int) -> None:
        self.subscribed = False
        """The server has confirmed the subscription."""
        self.pong = b""
        """What the server answered to the last PING: its argument."""
        self._max_bytes = max_bytes
        self._longest = max_bytes * 4 // 3 + _HEADERS
        self._rest: list[bytes] = []
        self._length = 0
        """Of ``_rest``, in bytes."""
        self._need = 0
        """Bytes that ``_rest`` must have before it is worth another look."""
        self._skip = 0
        """Bytes of a value that are dropped."""
        self._items: list[bytes] = []
        self._pending = 0
        """Values that the present array still lacks."""
        self._too_large = False
        self._head = b""
        """The last message up to the size of its data: nearly all begin with the same bytes."""

    @property
    def is_mid_message(self) -> bool:
        """Part of a value has come, and the rest has not."""
        return bool(self._need or self._skip)

    def feed(self, data: bytes, limit: int, deliveries: list[Delivery]) -> None:
        """Append to ``deliveries`` what ``data`` and what was kept complete, until it holds ``limit``; keep the rest.

        Raises ResponseError for an error of the server, InvalidResponse for what is not RESP.
        """
        if self._rest:
            self._rest.append(data)
            self._length += len(data)
            if self._length < self._need:
                return
            data = b"".join(self._rest)
            self._rest = []
        at, end, self._need = 0, len(data), 0
        try:
            while at < end and len(deliveries) < limit:
                after = -1 if self._pending or self._skip else self._usual(data, at, deliveries)
                if after >= 0:
                    at = after
                    continue
                after = self._next(data, at)
                if after < 0:
                    break
                at = after
                if not (self._pending or self._skip):
                    self._complete(deliveries)
        except ValueError as exc:
            raise InvalidResponse("the server does not speak RESP") from exc
        finally:
            if at < end:
                self._rest = [data[at:]]
                self._length = end - at

    def _usual(self, buffer: bytes, at: int, deliveries: list[Delivery]) -> int:
        """The place after the message that begins at ``at``, in a third of the time that it would take value by value.

        -1 for whatever is not a whole message of the usual kind.
        """
        head: re.Match[bytes] | None
        if self._head and buffer.startswith(self._head, at):
            head = _SIZE.match(buffer, at + len(self._head))
        else:
            head = self._new_head(buffer, at)
        if head is None:
            return -1
        begin = head.end()
        end = begin + int(head.groups()[-1])
        if len(buffer) < end + 2 or end - begin > self._longest:
            return -1
        deliveries.append(self._delivery(buffer[begin:end]))
        return end + 2

    def _new_head(self, buffer: bytes, at: int) -> re.Match[bytes] | None:
        """The head of a message that begins in another way than the last one."""
        head = _USUAL.match(buffer, at)
        if head is None:
            return None
        pattern, pattern_text, channel, channel_text, _ = head.groups()
        if len(pattern_text) != int(pattern) or len(channel_text) != int(channel):
            return None
        self._head = buffer[at : head.start(5)]
        return head

    def _next(self, buffer: bytes, at: int) -> int:  # noqa: PLR0911 - one for each kind of value
        """Take the value that begins at ``at``, or the head of an array; the place after it, -1 when more must come."""
        if self._skip:
            return self._drop(buffer, at)
        line = buffer.find(b"\r\n", at)
        if line < 0:
            if len(buffer) - at > _MAX_LINE_LENGTH:
                raise InvalidResponse("the server does not speak RESP")
            return -1
        kind, after = buffer[at], line + 2
        if kind == _BULK:
            size = int(buffer[at + 1 : line])
            if size > self._longest:
                return self._refuse(buffer, after, size)
            end = after + max(size, -2)  # -1 is a value without bytes, and without an end of the line
            if len(buffer) < end + 2:
                self._need = end + 2 - at
                return -1
            self._take(buffer[after:end])
            return end + 2 if size >= 0 else after
        if kind in {_ARRAY, _PUSH}:
            self._begin(int(buffer[at + 1 : line]))
            return after
        if kind == _ERROR:
            head = buffer[at + 1 : line]
            error = NoPermissionError if head.startswith(b"NOPERM") else ResponseError
            raise error(head.decode(errors="replace"))
        if kind in _LEAVES:
            self._take(buffer[at + 1 : line])
            return after
        raise InvalidResponse("the server does not speak RESP")

    def _begin(self, number: int) -> None:
        """An array of so many values; inside another one, its values take its place."""
        if number > _MAX_ITEMS or self._pending > _MAX_ITEMS:
            raise InvalidResponse("the server sent an unexpected array to a subscriber")
        if self._pending:
            self._pending += max(number, 0) - 1
        else:
            self._pending, self._items = max(number, 0), []

    def _take(self, value: bytes) -> None:
        if self._pending:
            self._items.append(value)
            self._pending -= 1
        else:
            self._items = [value]

    def _refuse(self, buffer: bytes, at: int, size: int) -> int:
        """A value that is too long: keep its head only."""
        if size > _MAX_BULK_LENGTH:
            raise InvalidResponse("the server announced a value longer than Redis allows")
        self._take(buffer[at : min(at + HEAD, at + size)])
        self._too_large = True
        self._skip = size + 2
        return self._drop(buffer, at)

    def _drop(self, buffer: bytes, at: int) -> int:
        number = min(self._skip, len(buffer) - at)
        self._skip -= number
        return at + number if number else -1

    def _complete(self, deliveries: list[Delivery]) -> None:
        items, too_large = self._items, self._too_large
        self._items, self._too_large = [], False
        if not items:
            return
        if _MESSAGE.get(items[0]) == len(items):
            if too_large:
                deliveries.append(Delivery(items[-1], "", refused=TOO_LARGE, tag=NO_TAG))
            else:
                deliveries.append(self._delivery(items[-1]))
        elif items[0] == b"psubscribe":
            self.subscribed = True
        elif items[0] == b"pong" or len(items) == 1:  # RESP 2, and RESP 3
            self.pong = items[-1]

    def _delivery(self, data: bytes) -> Delivery:
        try:
            envelope, body = _opened(data)
        except _REFUSALS:
            return Delivery(data, "", tag=NO_TAG)
        content_type, refused, raw = envelope.content_type or "", None, bytes(envelope.properties.delivery_tag)
        tag = raw[1:-1].decode("ascii", "replace") if len(raw) <= _MAX_TAG else ""
        if len(body) > self._max_bytes:
            refused = TOO_LARGE
        elif envelope.headers is not None and bytes(envelope.headers.compression) != b"null":
            refused = COMPRESSED
        return Delivery(body if refused is None else body[:HEAD], content_type, refused=refused, tag=tag or NO_TAG)


def _opened(data: bytes) -> tuple[_Envelope[Any], bytes]:
    """An envelope and its body. Raises _REFUSALS."""
    try:
        encoded = _base64_envelope.decode(data)
    except _REFUSALS:
        pass  # it may be in no Base64, or in a kind of it that msgspec refuses
    else:
        if encoded.properties.body_encoding == "base64":
            return encoded, encoded.body
    envelope = _envelope.decode(data)
    if envelope.properties.body_encoding == "base64":
        return envelope, binascii.a2b_base64(envelope.body, strict_mode=True)
    return envelope, envelope.body.encode()
