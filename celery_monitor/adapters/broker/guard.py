"""Limits the size of messages that py-amqp reads, because it collects the body of a message of any size in memory.

A message that is too large, or whose properties cannot be parsed, is replaced by an empty one, and its frames are
dropped as they arrive. So it costs neither memory nor the connection.
"""

from collections.abc import Callable
from struct import Struct
from typing import Any, Final

from amqp.basic_message import Message

_HEADER, _BODY = 2, 3  # types of frames
_SIZE: Final = Struct(">4xQ")
_EMPTY: Final = Struct(">HHQH").pack(60, 0, 0, 0)
"""The header of a message of class Basic without properties and without a body."""


def guard(connection: Any, limit: int, refused: Callable[[], None]) -> None:  # noqa: ANN401 - py-amqp has no types
    """On this open connection, replace invalid messages and those of more than ``limit`` bytes by empty ones.

    ``refused`` is called before the empty message is delivered.
    """
    handle = connection.on_inbound_frame
    skipped: dict[int, int] = {}
    """Channel → remaining bytes of a body that is being dropped."""

    def on_frame(frame: tuple[int, int, Any]) -> Any:  # noqa: ANN401 - as above
        kind, channel, payload = frame
        if kind == _BODY and channel in skipped:
            connection.bytes_recv += 1
            skipped[channel] -= len(payload)
            if skipped[channel] <= 0:
                del skipped[channel]
            return False
        if kind == _HEADER:
            (size,) = _SIZE.unpack_from(payload)
            if size > limit or not _readable(payload):
                refused()
                if size:
                    skipped[channel] = size
                return handle((kind, channel, _EMPTY))
        return handle(frame)

    connection.on_inbound_frame = on_frame


def _readable(header: Any) -> bool:  # noqa: ANN401 - as above
    try:
        Message().inbound_header(header)
    except Exception:  # noqa: BLE001 - any process may have written the properties
        return False
    return True
