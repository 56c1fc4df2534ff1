"""Free loopback ports."""

import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

_FIRST, _END = 10_240, 32_768
_BLOCK = 128
_claims: list[socket.socket] = []
_drawing = threading.Lock()


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 that nobody listens on, and that no process of the tests was given before.

    It lies below the ephemeral range, so that no outgoing connection takes it between now and the server's
    start, also while the server is down for a restart.
    """
    with _drawing:
        return next(_ports)


def _free_ports() -> Iterator[int]:
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    # A machine may have a range that begins so low that hardly anything is left below it.
    end = min(_END, first_ephemeral) if first_ephemeral >= _FIRST + 32 * _BLOCK else _END
    blocks = list(range(_FIRST, end - _BLOCK + 1, _BLOCK))
    random.SystemRandom().shuffle(blocks)
    for block in blocks:
        if _claim(block):
            yield from filter(_is_free, range(block, block + _BLOCK))
    message = "all blocks of ports are taken"
    raise RuntimeError(message)


def _claim(block: int) -> bool:
    """Take a block of ports from all other processes of the tests, until the end of this one."""
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0celery-monitor-tests-ports-{block}")
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


_ports = _free_ports()


def answers(port: int, timeout: float = 0.5) -> bool:
    """Tell whether something accepts connections on this loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout):
            return True
    except OSError:
        return False
