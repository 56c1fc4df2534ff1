"""Free loopback ports."""

import secrets
import socket

_FIRST, _LAST = 10_240, 32_767
_given: set[int] = set()


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 that nobody listens on, and that this process was not given before.

    It lies below the ephemeral range, so that no outgoing connection takes it between now and the server's
    start, also while the server is down for a restart.
    """
    while True:
        port = _FIRST + secrets.randbelow(_LAST - _FIRST)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


def answers(port: int, timeout: float = 0.5) -> bool:
    """Tell whether something accepts connections on this loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout):
            return True
    except OSError:
        return False
