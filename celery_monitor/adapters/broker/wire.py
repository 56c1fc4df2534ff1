"""Reads and writes a connected socket with timeouts, and shuts it down from another thread."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator

_CHUNK = 1 << 18
POLL_BYTES = 32 << 20
"""Maximum bytes that one poll reads, unless a single message is longer. Thousands of messages with long tracebacks or
arguments could exceed the memory limit of the process, and after its end they would be delivered again."""
WRITE_TIMEOUT = 5.0


class Wire:
    """Reads a socket that a library has connected and will close."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.drained = False
        """Whether the last ``receive`` returned everything that had arrived, so that another would return nothing."""
        self._records = isinstance(sock, ssl.SSLSocket)  # TLS returns at most 16 KiB, even if more has arrived
        self.last_received = time.monotonic()
        """Monotonic time at which data was last received."""

    def receive(self, timeout: float) -> bytes | None:
        """The bytes that have arrived, after waiting at most ``timeout`` seconds for any; None if there are none.

        Raises OSError, also if the peer has closed the connection.
        """
        self._sock.settimeout(timeout)
        try:
            data = self._sock.recv(_CHUNK)
        except (BlockingIOError, TimeoutError, ssl.SSLWantReadError):
            return None
        if not data:
            raise ConnectionResetError("the broker closed the connection")
        self.last_received = time.monotonic()
        self.drained = len(data) < _CHUNK and not self._records
        return data

    def writing(self) -> None:
        """Set the timeout for writes that follow, by this object or by a library."""
        self._sock.settimeout(WRITE_TIMEOUT)

    def send(self, data: bytes) -> None:
        """Write all of it. Raises OSError."""
        self.writing()
        self._sock.sendall(data)

    @contextlib.contextmanager
    def bounded(self, seconds: float) -> Iterator[None]:
        """Cut the connection and raise TimeoutError if the block takes longer in total.

        A library that waits for an answer restarts its timeout with any frame, such as a heartbeat. This does not.
        """
        late = threading.Event()

        def end() -> None:
            late.set()
            self.cut()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except OSError as exc:
            if late.is_set():
                raise TimeoutError from exc
            raise
        finally:
            timer.cancel()

    def cut(self) -> None:
        """Shut down the socket, which wakes up a thread that waits for it. Never blocks."""
        with contextlib.suppress(OSError):
            # Not SSLSocket.shutdown, which discards the TLS object while another thread reads with it.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
