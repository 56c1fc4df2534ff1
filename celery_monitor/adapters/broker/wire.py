"""A connected socket: reading what is there, bounded writing, and cutting it from another thread."""

import contextlib
import socket
import ssl
import time

_CHUNK = 1 << 18
WRITE_TIMEOUT = 5.0


class Wire:
    """Owns the reading of a socket that somebody else has connected and will close."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.last_received = time.monotonic()
        """When the peer was last heard, by the monotonic clock."""

    def receive(self, timeout: float) -> bytes | None:
        """What is there, waiting at most ``timeout`` seconds for it (0: not at all); None when nothing is.

        Raises OSError, also when the peer has closed the connection.
        """
        self._sock.settimeout(timeout)
        try:
            data = self._sock.recv(_CHUNK)
        except (BlockingIOError, TimeoutError, ssl.SSLWantReadError):
            return None
        if not data:
            raise ConnectionResetError("the broker closed the connection")
        self.last_received = time.monotonic()
        return data

    def writing(self) -> None:
        """Bound the next writes, whoever does them."""
        self._sock.settimeout(WRITE_TIMEOUT)

    def send(self, data: bytes) -> None:
        """Write all of it. Raises OSError."""
        self.writing()
        self._sock.sendall(data)

    def cut(self) -> None:
        """End the connection without a word; wakes up a thread that waits in it. Never blocks."""
        with contextlib.suppress(OSError):
            # Not SSLSocket.shutdown, which takes the TLS object away under the hands of the reading thread.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
