"""Deadlines and bounds of a connection, which uvicorn leaves to a proxy in front of it.

Each connection has exactly one timer, and it waits for one of three things: a complete request, an answer that is
given and taken, or the next request. Whoever needs longer is cut off. When there are too many connections, the one
that has waited longest goes, so that a newcomer (a scrape, a probe) always gets in.
"""

import asyncio
import socket
import struct
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS: Final = 10.0
"""For a client to send a request, from the connection or from the request's first byte."""
RESPONSE_SECONDS: Final = 60.0
"""For us to answer and for the client to take it."""
IDLE_SECONDS: Final = 90.0
"""Between two requests: longer than the usual scrape intervals, because Prometheus keeps its connection."""
MAX_CONNECTIONS: Final = 200
"""Far below the usual limit of 1,024 open files, which the connections to the broker and the store need too."""
MAX_STALLED: Final = 8
"""Clients that are behind in reading. Each may hold an exposition of some megabytes."""

_RESET: Final = struct.pack("ii", 1, 0)
"""To linger for 0 seconds."""


class Connection(H11Protocol):
    """One client's connection."""

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
        self._wait(REQUEST_SECONDS)
        others = [one for one in self._open() if one is not self]
        if len(others) >= MAX_CONNECTIONS:
            min(others, key=lambda one: (one.answering, one.since)).cut()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A part of a request, or of something that should be one."""
        answering = self.answering
        super().data_received(data)
        if self.answering and not answering:
            self._wait(RESPONSE_SECONDS)
        elif self._limit == IDLE_SECONDS:
            self._wait(REQUEST_SECONDS)

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
        stalled = [one for one in self._open() if one.flow.write_paused]
        if len(stalled) > MAX_STALLED:
            min(stalled, key=lambda one: one.stalled_since).cut()

    def cut(self) -> None:
        """End it now, by a reset: else the kernel would go on offering megabytes to a client that does not read."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def _open(self) -> "list[Connection]":
        # Those that were aborted stay in the set until the loop's next turn.
        return [one for one in self.connections if isinstance(one, Connection) and not one.transport.is_closing()]

    def _wait(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._limit = seconds
        self.since = self.loop.time()
        self._timer = self.loop.call_later(seconds, self.cut)
