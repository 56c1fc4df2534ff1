"""Parses AMQP 0-9-1 frames to deliveries, without I/O. Covers only what a broker sends to a consumer.

A delivery consists of a method frame (Basic.Deliver), a header frame, and as many body frames as its size requires; no
other frames of the channel come in between. The frames of a body that is too large are dropped as they arrive. Other
methods end the stream (the queue was deleted, or the channel or connection closed) or are ignored, like heartbeats.
"""

import struct
from struct import Struct
from typing import Final

from amqp.exceptions import AMQPError, error_for_code

from celery_monitor.core.decode import COMPRESSED, TOO_LARGE
from celery_monitor.core.model import HEAD, Delivery

_FRAME = Struct(">BHI")
_METHOD = Struct(">HH")
_TAG = Struct(">Q?")
_SIZE = Struct(">4xQ")
_FLAGS = Struct(">H")
_REPLY = Struct(">HB")
_DELIVER_FRAME: Final = Struct(">BxxIIB")
"""Kind and size of a frame, its method, and the length of the consumer tag, which follows."""
_HEADER_FRAME: Final = Struct(">BBxxI4xQ")
"""End marker of the previous frame, kind and size of this frame, and size of the body. The flags follow."""
_BODY_FRAME: Final = Struct(">BBxxI")
"""End marker of the previous frame, and kind and size of this frame. The body follows."""

_KIND_METHOD, _KIND_HEADER, _KIND_BODY, _FRAME_END = 1, 2, 3, 0xCE
_DELIVER, _CANCEL = (60, 60), (60, 30)
_DELIVER_METHOD: Final = 60 << 16 | 60
_CHANNEL_CLOSE, _CONNECTION_CLOSE, _CONNECTION_CLOSED = (20, 40), (10, 50), (10, 51)
_HAS_CONTENT_TYPE, _HAS_HEADERS = 0x8000, 0x2000
_COMPRESSION = b"\x0bcompression"
"""The name of kombu's header, encoded as in a table."""
_MAX_REMEMBERED, _MAX_REMEMBERED_LENGTH = 1_000, 300
"""Maximum sets of properties to remember, and bytes of each. Usually, there is one per event type and worker."""
MAX_FRAME_SIZE = 1 << 20
"""Bytes. py-amqp negotiates 128 KiB with the broker by default."""


class ConsumerCancelledError(Exception):
    """The broker has canceled the consumer, because the queue was deleted or its leader is unavailable."""


class StreamClosedError(Exception):
    """The broker has confirmed that the connection is closed."""


class FrameReader:
    """Parses the bytes of a connection to deliveries. ``tag``: delivery tag of the last delivery that was returned.

    ``max_bytes``: maximum size of a body. ``max_frame_size``: maximum size of a frame, in bytes.
    """

    def __init__(self, max_bytes: int, max_frame_size: int = MAX_FRAME_SIZE) -> None:
        self.tag = 0
        self._max_bytes = max_bytes
        self._max_frame_size = max_frame_size
        self._rest = b""
        self._tag = 0
        self._redelivered = False
        self._content_type = ""
        self._refused: str | None = None
        self._size = 0
        self._body: list[bytes] = []
        self._properties_seen: dict[bytes, tuple[str, str | None]] = {}
        """Encoded properties → the result of ``_parse``."""

    @property
    def is_mid_message(self) -> bool:
        """Whether only a part of a message's body has arrived."""
        return bool(self._body)

    def feed(self, data: bytes, limit: int, deliveries: list[Delivery]) -> None:
        """Append complete messages to ``deliveries``, until it contains ``limit``. Keeps the remaining bytes.

        Raises AMQPError if the broker closes the channel or the connection, ConsumerCancelledError, and
        StreamClosedError.
        """
        buffer = self._rest + data if self._rest else data
        at, end = 0, len(buffer)
        unpack = _FRAME.unpack_from
        try:
            while len(deliveries) < limit:
                after = -1 if self._size else self._fast_path(buffer, at, deliveries)
                if after >= 0:
                    at = after
                    continue
                if end - at <= _FRAME.size:
                    break
                kind, _, size = unpack(buffer, at)
                start = at + _FRAME.size
                stop = start + size
                if stop >= end:
                    if size > self._max_frame_size:
                        raise AMQPError("the broker sent a frame larger than the negotiated maximum")
                    break
                if buffer[stop] != _FRAME_END:
                    raise AMQPError("the broker sent a frame without an end marker")
                if kind == _KIND_BODY:
                    self._on_body(buffer[start:stop], deliveries)
                elif kind == _KIND_HEADER:
                    self._on_header(buffer, start, stop, deliveries)
                elif kind == _KIND_METHOD:
                    self._on_method(buffer, start)
                at = stop + 1
        finally:
            self._rest = buffer[at:]

    def _fast_path(self, buffer: bytes, at: int, deliveries: list[Delivery]) -> int:
        """Parse the message that begins at ``at`` in half of the time that parsing its frames takes.

        Returns the end of the message; -1 if it is not a complete message with one body frame and remembered
        properties.
        """
        try:
            kind, size, method, length = _DELIVER_FRAME.unpack_from(buffer, at)
            if method != _DELIVER_METHOD or kind != _KIND_METHOD:
                return -1
            tag, redelivered = _TAG.unpack_from(buffer, at + _DELIVER_FRAME.size + length)
            at += _FRAME.size + size
            method_end, kind, size, length = _HEADER_FRAME.unpack_from(buffer, at)
            properties = at + _HEADER_FRAME.size
            at += 1 + _FRAME.size + size
            known = self._properties_seen.get(buffer[properties:at])
            header_end, body_kind, size = _BODY_FRAME.unpack_from(buffer, at)
            start = at + _BODY_FRAME.size
            stop: int = start + size
            if (
                known is None
                or known[1] is not None
                or not 0 < size == length <= self._max_bytes
                or kind != _KIND_HEADER
                or body_kind != _KIND_BODY
                or not method_end == header_end == buffer[stop] == _FRAME_END
            ):
                return -1
        except (struct.error, IndexError):  # the message is incomplete
            return -1
        self.tag = tag
        deliveries.append(Delivery(buffer[start:stop], known[0], redelivered))
        return stop + 1

    def _on_method(self, buffer: bytes, start: int) -> None:
        method = _METHOD.unpack_from(buffer, start)
        arguments = start + _METHOD.size
        if method == _DELIVER:
            # consumer tag (short string), delivery tag, redelivered, exchange, routing key
            self._tag, self._redelivered = _TAG.unpack_from(buffer, arguments + 1 + buffer[arguments])
        elif method in {_CHANNEL_CLOSE, _CONNECTION_CLOSE}:
            code, length = _REPLY.unpack_from(buffer, arguments)
            text = buffer[arguments + _REPLY.size :][:length].decode(errors="replace")
            raise error_for_code(code, text, method, AMQPError)
        elif method == _CANCEL:
            raise ConsumerCancelledError
        elif method == _CONNECTION_CLOSED:
            raise StreamClosedError

    def _on_header(self, buffer: bytes, start: int, stop: int, deliveries: list[Delivery]) -> None:
        (self._size,) = _SIZE.unpack_from(buffer, start)
        properties = buffer[start + _SIZE.size : stop]
        self._content_type, self._refused = self._properties_seen.get(properties) or self._parse(properties)
        if self._size > self._max_bytes:
            self._refused = TOO_LARGE
        if self._body:
            self._body.clear()
        if not self._size:
            self._on_body(b"", deliveries)

    def _parse(self, properties: bytes) -> tuple[str, str | None]:
        """(content type, why the message is refused or None)."""
        (flags,) = _FLAGS.unpack_from(properties)
        content_type, refused = "", None
        if flags & _HAS_CONTENT_TYPE:  # the first property, if it is there
            begin = _FLAGS.size + 1
            content_type = properties[begin : begin + properties[_FLAGS.size]].decode("latin-1")
        if flags & _HAS_HEADERS and _COMPRESSION in properties:
            refused = COMPRESSED
        if len(properties) <= _MAX_REMEMBERED_LENGTH:
            if len(self._properties_seen) >= _MAX_REMEMBERED:
                self._properties_seen.clear()
            self._properties_seen[properties] = content_type, refused
        return content_type, refused

    def _on_body(self, body: bytes, deliveries: list[Delivery]) -> None:
        if len(body) < self._size:
            self._size -= len(body)
            if self._refused is None:
                self._body.append(body)
            elif not self._body:
                self._body.append(body[:HEAD])
            return
        self._size = 0
        if self._body:
            body = b"".join([*self._body, body])
            self._body.clear()
        self.tag = self._tag
        if self._refused is None:
            deliveries.append(Delivery(body, self._content_type, self._redelivered))
        else:
            deliveries.append(Delivery(body[:HEAD], self._content_type, self._redelivered, self._refused))
