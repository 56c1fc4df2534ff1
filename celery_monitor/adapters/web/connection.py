"""Deadlines and bounds of a connection, which uvicorn leaves to a proxy in front of it.

Each connection has exactly one timer, and it waits for one of three things: a complete request, an answer that is
given and taken, or the next request. Whoever needs longer is cut off. When there are too many connections, the one
that has waited longest goes, so that a newcomer (a scrape, a probe) always gets in.

What is no request, and what is too large for one, is answered and then no more than heard out for a moment: a
connection that is closed with something unread is reset, and the client would never see why.
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
"""For a client to send a request, from the connection or from the request's first byte."""
RESPONSE_SECONDS: Final = 60.0
"""For us to answer and for the client to take it."""
IDLE_SECONDS: Final = 90.0
"""Between two requests: longer than the usual scrape intervals, because Prometheus keeps its connection."""
LINGER_SECONDS: Final = 2.0
"""For a client that was refused to stop sending and read why."""
MAX_HEAD_BYTES: Final = 16 * 1024
"""Of a request: its first line and its headers."""
MAX_CONNECTIONS: Final = 200
MIN_CONNECTIONS: Final = 8
RESERVED_FILES: Final = 48
"""Open files that are kept for the broker, the store, pages and mails, whatever comes to the web server."""
MAX_STALLED: Final = 8
"""Clients that are behind in reading. Each may hold an exposition of some megabytes."""

_RESET: Final = struct.pack("ii", 1, 0)
"""To linger for 0 seconds."""


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
    """How many clients may be connected at once, as far as the process's limit of open files has room for them."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = MAX_CONNECTIONS if files == resource.RLIM_INFINITY else files - RESERVED_FILES
    return min(MAX_CONNECTIONS, max(MIN_CONNECTIONS, room))


class _Requests(h11.Connection):
    """Reads requests with a bound on a whole head: h11's own bound is on what is incomplete after a read."""

    too_large = False
    """It is why there was an error."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEAD_BYTES)

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """As in h11. Raises RemoteProtocolError."""
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
        """How much was received and is not read, in bytes."""
        return len(self.trailing_data[0])


class Connection(H11Protocol):
    """One client's connection."""

    _requests: _Requests
    _refused = False
    """It was told that it sent no request, and is heard out."""
    _timer: asyncio.TimerHandle | None = None
    _limit: float = 0.0
    """Of what it waits for now, in seconds."""
    since: float = 0.0
    """When it began to wait, in the loop's time."""
    stalled_since: float = 0.0
    """When the client fell behind in reading."""

    @property
    def answering(self) -> bool:
        """A request is complete and its answer is not."""
        # uvicorn has no cycle before the first request, whatever its annotation says.
        return bool(self.cycle) and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come: make room for it if need be."""
        super().connection_made(transport)
        self.conn = self._requests = _Requests()
        self._wait(REQUEST_SECONDS)
        others = [connection for connection in self._open() if connection is not self]
        if len(others) >= max_connections():
            min(others, key=lambda connection: (connection.answering, connection.since)).cut()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A part of a request, or of something that should be one."""
        if self._refused:
            return
        answering = self.answering
        super().data_received(data)
        if self.answering and not answering:
            self._wait(RESPONSE_SECONDS)
        elif self._limit == IDLE_SECONDS:
            self._wait(REQUEST_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """What came is no request, or too large: say so if an answer can still be given, and hear the client out."""
        del msg
        self._refused = True
        self._unset_keepalive_if_required()
        if self.conn.our_state is h11.SEND_BODY:
            self.cut()
            return
        if self.answering:
            self.cycle.disconnected = True  # what the application will say goes nowhere
            self.cycle.message_event.set()
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            self.transport.write(_TOO_LARGE if self._requests.too_large else _NO_REQUEST)
        self.transport.write_eof()
        self.flow.resume_reading()
        self._wait(LINGER_SECONDS)

    def shutdown(self) -> None:
        """The server stops."""
        if self._refused:
            self.transport.close()
        else:
            super().shutdown()

    def on_response_complete(self) -> None:
        """An answer is given, though perhaps not taken; the next request may be here already."""
        self._wait(REQUEST_SECONDS if self.transport.is_closing() else IDLE_SECONDS)
        super().on_response_complete()
        if self.answering:
            self._wait(RESPONSE_SECONDS)

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        super().pause_writing()
        self.stalled_since = self.loop.time()
        stalled = [connection for connection in self._open() if connection.flow.write_paused]
        if len(stalled) > MAX_STALLED:
            min(stalled, key=lambda connection: connection.stalled_since).cut()

    def cut(self) -> None:
        """End it now, by a reset: else the kernel would go on offering megabytes to a client that does not read."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def _open(self) -> "list[Connection]":
        # Those that were aborted stay in the set until the loop's next turn.
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
