"""A connected socket: reading what is there, bounded writing, and cutting it from another thread."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator

_CHUNK = 1 << 18
POLL_BYTES = 32 << 20
"""What one poll reads at most, but for a single message that is longer. Thousands of messages with long tracebacks or
arguments would take more memory than the process may have, and after its end they would come again."""
WRITE_TIMEOUT = 5.0


class Wire:
    """Owns the reading of a socket that somebody else has connected and will close."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.drained = False
        """The last receive took all that was there; another one at once would find nothing."""
        self._records = isinstance(sock, ssl.SSLSocket)  # TLS gives 16 KiB at a time, whatever there is
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
        self.drained = len(data) < _CHUNK and not self._records
        return data

    def writing(self) -> None:
        """Bound the next writes, whoever does them."""
        self._sock.settimeout(WRITE_TIMEOUT)

    def send(self, data: bytes) -> None:
        """Write all of it. Raises OSError."""
        self.writing()
        self._sock.sendall(data)

    @contextlib.contextmanager
    def bounded(self, seconds: float) -> Iterator[None]:
        """Cut the connection if what is done takes longer in all, and raise TimeoutError then.

        For those who wait for one answer and take any frame, such as a heartbeat, for a reason to wait on.
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
        """End the connection without a word; wakes up a thread that waits in it. Never blocks."""
        with contextlib.suppress(OSError):
            # Not SSLSocket.shutdown, which takes the TLS object away under the hands of the reading thread.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
