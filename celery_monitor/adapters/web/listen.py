"""Creates the listening sockets: on one address, on all addresses of a name, or on all addresses of the machine."""

import errno
import socket
from contextlib import ExitStack
from typing import Final

ANY_ADDRESS: Final = "::"
"""All addresses of this machine, IPv4 and IPv6."""
NO_SUCH_ADDRESS: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})
"""Errors of an address, or of a kind of address, that the machine does not have."""


def listen(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Sockets that listen on ``port`` of ``host``; with port 0, all on the same free port.

    ``::`` means IPv6 and IPv4, as far as the machine supports them. Addresses of a name that the machine does not have
    are skipped: ``localhost`` often has two.

    Raises:
        OSError: No address can be listened on, or another program uses one of them.
    """
    sockets = [_everywhere(port, backlog)] if host == ANY_ADDRESS else _of_host(host, port, backlog)
    for listener in sockets:
        # Connections inherit the option. asyncio sets it only for sockets with an explicit protocol, which those of
        # create_server do not have; without it, each answer waits up to 40 ms for the acknowledgement of its headers.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sockets


def _of_host(host: str, port: int, backlog: int) -> list[socket.socket]:
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    missing = None
    with ExitStack() as cleanup:
        sockets: list[socket.socket] = []
        for family, _, _, _, address in addresses:
            if sockets:
                address = (address[0], sockets[0].getsockname()[1], *address[2:])  # noqa: PLW2901 - port 0 is one port
            try:
                listener = socket.create_server(address, family=family, backlog=backlog)
            except OSError as exc:
                if exc.errno not in NO_SUCH_ADDRESS:
                    raise
                missing = exc
            else:
                sockets.append(cleanup.enter_context(listener))
        if not sockets and missing is not None:
            raise missing
        cleanup.pop_all()
        return sockets


def _everywhere(port: int, backlog: int) -> socket.socket:
    try:
        both = socket.has_dualstack_ipv6()
        return socket.create_server((ANY_ADDRESS, port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=both)
    except OSError as exc:
        if exc.errno not in NO_SUCH_ADDRESS:
            raise
    return socket.create_server(("0.0.0.0", port), backlog=backlog)
