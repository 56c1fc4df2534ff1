"""Timeouts and limits of a connection, which uvicorn leaves to a proxy.

Each connection has one timer, for one of three things: receiving a complete request, sending the answer, or waiting for
the next request. When it expires, the connection is reset. If there are too many connections, the one that has waited
longest is closed, so that a new one (a scrape, a probe) is always accepted.

An invalid or too large request is answered, and then the connection stays open for a moment and ignores further data:
closing a connection with unread data resets it, and the client would not see the answer.
"""

import asyncio
import http
import resource
import socket
import struct
from typing import Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS: Final = 10.0
"""Time for a client to send a request, from the connection or from the request's first byte."""
RESPONSE_SECONDS: Final = 60.0
"""Time to create an answer and for the client to receive it."""
IDLE_SECONDS: Final = 90.0
"""Time between two requests: longer than usual scrape intervals, because Prometheus keeps its connection open."""
LINGER_SECONDS: Final = 2.0
"""Time for a refused client to stop sending and to read the answer."""
MAX_HEAD_BYTES: Final = 16 * 1024
"""Maximum size of the request line and headers."""
MAX_CONNECTIONS: Final = 200
MIN_CONNECTIONS: Final = 8
RESERVED_FILES: Final = 48
"""Open files that are reserved for the broker, the store and notifications."""
MAX_STALLED: Final = 8
"""Maximum number of clients that read too slowly. Each may keep an answer of several megabytes in memory."""

_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with 0 seconds."""


def _refusal(status: bytes, text: str) -> bytes:
    body = f"{text}\n".encode()
    head = b"HTTP/1.1 %b\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return head % (status, len(body)) + body


_NO_REQUEST: Final = _refusal(b"400 Bad Request", "Malformed HTTP request.")
_TOO_LARGE: Final = _refusal(
    b"431 Request Header Fields Too Large",
    f"The request line and headers exceed {MAX_HEAD_BYTES // 1024} KiB.",
)


def max_connections() -> int:
    """Maximum number of connected clients, within the process's limit of open files."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = MAX_CONNECTIONS if files == resource.RLIM_INFINITY else files - RESERVED_FILES
    return min(MAX_CONNECTIONS, max(MIN_CONNECTIONS, room))


class _Requests(h11.Connection):
    """Limits the size of a complete request head; h11 itself only limits incomplete ones."""

    too_large = False
    """Whether the error was caused by the size."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEAD_BYTES)

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Like h11's. Raises RemoteProtocolError."""
        if self.their_state is not h11.IDLE:
            return super().next_event()
        before = self._waiting()
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as exc:
            self.too_large = exc.error_status_hint == http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise
        if isinstance(event, h11.Request) and before - self._waiting() > MAX_HEAD_BYTES:
            self.too_large = True
            raise h11.RemoteProtocolError("the request head is too large")
        return event

    def _waiting(self) -> int:
        """Bytes that were received but not parsed yet."""
        return len(self.trailing_data[0])


class Connection(H11Protocol):
    """One client's connection."""

    _requests: _Requests
    _refused = False
    """Whether its request was refused, so that further data is ignored."""
    _timer: asyncio.TimerHandle | None = None
    _limit: float = 0.0
    """The present timeout in seconds."""
    since: float = 0.0
    """Loop time at which the present wait began."""
    stalled_since: float = 0.0
    """Loop time at which the client stopped reading fast enough."""

    @property
    def answering(self) -> bool:
        """Whether a complete request has not been answered completely."""
        # In spite of its annotation, uvicorn's cycle is None before the first request.
        return bool(self.cycle) and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected; close another connection if there are too many."""
        super().connection_made(transport)
        self.conn = self._requests = _Requests()
        self._wait(REQUEST_SECONDS)
        others = [connection for connection in self._open() if connection is not self]
        if len(others) >= max_connections():
            min(others, key=lambda connection: (connection.answering, connection.since)).cut()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process received data, valid or not."""
        if self._refused:
            return
        answering = self.answering
        super().data_received(data)
        if self.answering and not answering:
            self._wait(RESPONSE_SECONDS)
        elif self._limit == IDLE_SECONDS:
            self._wait(REQUEST_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """The request is invalid or too large: answer if still possible, and ignore further data."""
        del msg
        self._refused = True
        self._unset_keepalive_if_required()
        if self.conn.our_state is h11.SEND_BODY:
            self.cut()
            return
        if self.answering:
            self.cycle.disconnected = True  # the application's answer is discarded
            self.cycle.message_event.set()
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            self.transport.write(_TOO_LARGE if self._requests.too_large else _NO_REQUEST)
        self.transport.write_eof()
        self.flow.resume_reading()
        self._wait(LINGER_SECONDS)

    def shutdown(self) -> None:
        """Close the connection because the server stops."""
        if self._refused:
            self.transport.close()
        else:
            super().shutdown()

    def on_response_complete(self) -> None:
        """The answer was written, though perhaps not received yet; the next request may have arrived already."""
        self._wait(REQUEST_SECONDS if self.transport.is_closing() else IDLE_SECONDS)
        super().on_response_complete()
        if self.answering:
            self._wait(RESPONSE_SECONDS)

    def pause_writing(self) -> None:
        """The client does not read fast enough."""
        super().pause_writing()
        self.stalled_since = self.loop.time()
        stalled = [connection for connection in self._open() if connection.flow.write_paused]
        if len(stalled) > MAX_STALLED:
            min(stalled, key=lambda connection: connection.stalled_since).cut()

    def cut(self) -> None:
        """Close it with a reset, because the kernel would keep megabytes for a client that does not read."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def _open(self) -> "list[Connection]":
        # Aborted connections stay in the set until the loop's next iteration.
        return [
            connection
            for connection in self.connections
            if isinstance(connection, Connection) and not connection.transport.is_closing()
        ]

    def _wait(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._limit = seconds
        self.since = self.loop.time()
        self._timer = self.loop.call_later(seconds, self.cut)
