"""Servers below every protocol: a test determines each byte."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

QUIET = 0.1
"""Seconds after which nothing more comes from the other side."""
WAIT_SECONDS = 30.0
"""Seconds for the first word of a side that is the first to speak."""


@contextmanager
def misbehaving(speak: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """A port on which ``speak`` is called for each connection, until the event is set."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)

        def accept() -> None:
            while not over.is_set():
                with suppress(TimeoutError), suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        speak(connection, over)

        thread = threading.Thread(target=accept, name="misbehaving")
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            thread.join()


def talking(*answers: bytes, quiet: float = QUIET) -> Callable[[socket.socket, threading.Event], None]:
    """Answers in turn to what comes, the first unasked; then, or when nothing comes, the connection is closed.

    ``quiet``: seconds without a word after which nothing comes. Longer for a side that always has something to say.
    """

    def speak(connection: socket.socket, over: threading.Event) -> None:
        connection.settimeout(quiet if answers[0] else WAIT_SECONDS)
        with suppress(OSError):
            for number, answer in enumerate(answers):
                if number and not connection.recv(65_536):
                    return
                if answer:
                    connection.settimeout(quiet)
                connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass

    return speak
