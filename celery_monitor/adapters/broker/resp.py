"""Parses Redis' pub/sub protocol to deliveries, without I/O. Covers only the parts of RESP 2 and 3 for subscribers.

A message is an array (RESP 3: a push) ``pmessage, pattern, channel, data``. The data is kombu's envelope: JSON with a
body in Base64 (``kombu.transport.virtual``). Other data is delivered unchanged and without a content type, so that it
is counted as discarded. Data that is too large is dropped as it arrives.
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
"""Decodes the body, too, in a third of the time of ``binascii``."""
_REFUSALS: Final = (msgspec.DecodeError, ValueError, RecursionError)
"""``binascii`` and ``str.encode`` raise ValueError."""
_MESSAGE: Final = {b"pmessage": 4, b"message": 3}
_USUAL: Final = re.compile(
    rb"[*>]4\r\n\$8\r\npmessage\r\n\$(\d{1,9})\r\n([^\r]*)\r\n\$(\d{1,9})\r\n([^\r]*)\r\n\$(\d{1,9})\r\n"
)
"""The beginning of a message up to its data. Does not match names with a carriage return."""
_SIZE: Final = re.compile(rb"(\d{1,9})\r\n")
_BULK, _ARRAY, _PUSH, _ERROR, _LEAVES = 0x24, 0x2A, 0x3E, 0x2D, b":+_,#("
_HEADERS: Final = 1 << 16
"""Maximum bytes of an envelope without its body."""
_MAX_LINE_LENGTH: Final = 1 << 16
_MAX_BULK_LENGTH: Final = 1 << 30
"""Bytes. Twice the default of Redis (``proto-max-bulk-len``)."""
_MAX_ITEMS: Final = 64
_MAX_TAG: Final = 64
"""Maximum characters of a delivery tag. kombu uses UUIDs."""
NO_TAG: Final = "-"


class RespReader:
    """Parses the bytes of a subscribed connection to deliveries. ``max_bytes``: maximum size of a body."""

    def __init__(self, max_bytes: int) -> None:
        self.subscribed = False
        """Whether the server has confirmed the subscription."""
        self.pong = b""
        """The answer to the last PING: its argument."""
        self._max_bytes = max_bytes
        self._longest = max_bytes * 4 // 3 + _HEADERS
        self._rest: list[bytes] = []
        self._length = 0
        """Bytes in ``_rest``."""
        self._need = 0
        """Bytes that ``_rest`` needs before the next value is complete."""
        self._skip = 0
        """Remaining bytes of a value that is being dropped."""
        self._items: list[bytes] = []
        self._pending = 0
        """Number of missing values of the current array."""
        self._too_large = False
        self._head = b""
        """The beginning of the last message up to the size of its data. Nearly all messages begin the same way."""

    @property
    def is_mid_message(self) -> bool:
        """Whether only a part of a value has arrived."""
        return bool(self._need or self._skip)

    def feed(self, data: bytes, limit: int, deliveries: list[Delivery]) -> None:
        """Append complete messages to ``deliveries``, until it contains ``limit``. Keeps the remaining bytes.

        Raises ResponseError for an error of the server, and InvalidResponse if the data is not RESP.
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
                after = -1 if self._pending or self._skip else self._fast_path(data, at, deliveries)
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

    def _fast_path(self, buffer: bytes, at: int, deliveries: list[Delivery]) -> int:
        """Parse the message that begins at ``at`` in a third of the time that parsing its values takes.

        Returns the end of the message; -1 if it is not a complete message of the usual form.
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
        """Match the beginning of a message that differs from the last one's, and remember it."""
        head = _USUAL.match(buffer, at)
        if head is None:
            return None
        pattern, pattern_text, channel, channel_text, _ = head.groups()
        if len(pattern_text) != int(pattern) or len(channel_text) != int(channel):
            return None
        self._head = buffer[at : head.start(5)]
        return head

    def _next(self, buffer: bytes, at: int) -> int:  # noqa: PLR0911 - one for each kind of value
        """Parse the value, or the beginning of an array, at ``at``. Returns its end; -1 if it is incomplete."""
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
            end = after + max(size, -2)  # -1 is a null value, which has neither bytes nor an end of line
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
        """Begin an array of ``number`` values. A nested array is replaced by its values."""
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
        """Keep only the beginning of a value that is too large."""
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
        elif items[0] == b"pong" or len(items) == 1:  # RESP 2 or RESP 3
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
    """The envelope and its decoded body. Raises _REFUSALS."""
    try:
        encoded = _base64_envelope.decode(data)
    except _REFUSALS:
        pass  # the body may not be Base64, or in a variant that msgspec rejects
    else:
        if encoded.properties.body_encoding == "base64":
            return encoded, encoded.body
    envelope = _envelope.decode(data)
    if envelope.properties.body_encoding == "base64":
        return envelope, binascii.a2b_base64(envelope.body, strict_mode=True)
    return envelope, envelope.body.encode()
