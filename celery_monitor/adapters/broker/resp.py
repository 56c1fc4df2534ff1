"""Redis' pub/sub protocol → deliveries, without I/O: as much of RESP 2 and 3 as a subscriber sees.

A message is an array (RESP 3: a push) ``pmessage, pattern, channel, data``. The data is kombu's envelope, JSON with
the body in base64 (``kombu.transport.virtual``). Data that is no envelope is given away as it is, without a content
type, so that it is counted as discarded and not lost from sight.
"""

import binascii
from typing import Final

import msgspec
from redis.exceptions import InvalidResponse, NoPermissionError, ResponseError

from celery_monitor.core.model import Delivery


class _Properties(msgspec.Struct, gc=False):
    body_encoding: str | None = None


class _Envelope(msgspec.Struct, gc=False):
    body: str
    properties: _Properties = msgspec.field(default_factory=_Properties)
    content_type: str | None = msgspec.field(default=None, name="content-type")


_envelope: Final = msgspec.json.Decoder(_Envelope)
_MESSAGE: Final = {b"pmessage": 4, b"message": 3}
_MORE: Final = -1


class RespReader:
    """Turns the bytes of a subscribed connection into deliveries."""

    def __init__(self) -> None:
        self._rest = b""
        self.subscribed = False
        """The server has confirmed the subscription."""

    def feed(self, data: bytes, limit: int, found: list[Delivery]) -> None:
        """Append to ``found`` what ``data`` and what was kept complete, until it holds ``limit``; keep the rest.

        Raises ResponseError for an error of the server, InvalidResponse for what is not RESP.
        """
        buffer = self._rest + data if self._rest else data
        at = 0
        try:
            while len(found) < limit:
                items: list[bytes] = []
                after = _item(buffer, at, items)
                if after == _MORE:
                    break
                at = after
                if _MESSAGE.get(items[0]) == len(items):
                    found.append(_delivery(items[-1]))
                elif items[0] == b"psubscribe":
                    self.subscribed = True
        finally:
            self._rest = buffer[at:]


def _item(buffer: bytes, at: int, items: list[bytes]) -> int:  # noqa: PLR0911 - one for each kind of value
    """Append the leaves of the value at ``at``; the place after it, or _MORE when it is not complete."""
    line = buffer.find(b"\r\n", at)
    if line < 0:
        return _MORE
    kind, head, after = buffer[at : at + 1], buffer[at + 1 : line], line + 2
    if kind == b"$":
        size = int(head)
        if size < 0:
            items.append(b"")
            return after
        if len(buffer) < after + size + 2:
            return _MORE
        items.append(buffer[after : after + size])
        return after + size + 2
    if kind in {b"*", b">"}:
        for _ in range(int(head)):
            after = _item(buffer, after, items)
            if after == _MORE:
                return _MORE
        return after
    if kind == b"-":
        error = NoPermissionError if head.startswith(b"NOPERM") else ResponseError
        raise error(head.decode(errors="replace"))
    if kind in {b":", b"+", b"_"}:
        items.append(head)
        return after
    raise InvalidResponse("the server does not speak RESP")


def _delivery(data: bytes) -> Delivery:
    try:
        envelope = _envelope.decode(data)
        if envelope.properties.body_encoding == "base64":
            body = binascii.a2b_base64(envelope.body, strict_mode=True)
        else:
            body = envelope.body.encode()
    except (msgspec.DecodeError, binascii.Error, UnicodeError, RecursionError):
        return Delivery(data, "")
    return Delivery(body, envelope.content_type or "")
