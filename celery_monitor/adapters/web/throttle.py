"""Throttles clients with too many failed sign-ins."""

import ipaddress
from collections.abc import Sequence
from typing import Final

MAX_FAILURES: Final = 20
"""Maximum failures of one client within WINDOW; a browser with an old password fails three times per page."""
WINDOW: Final = 60.0
MAX_CLIENTS: Final = 1_000
"""Maximum number of tracked clients; beyond it, the one that failed first is dropped."""
_IPV6_PREFIX: Final = 64
"""Length of the prefix that identifies an IPv6 client: a client can choose the rest of its address."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Throttle:
    """Tracks each client's window and its failures in it. Times are monotonic."""

    def __init__(self) -> None:
        self._clients: dict[str, tuple[float, int]] = {}

    def wait(self, client: str, now: float) -> float:
        """Seconds until the client may try again; 0 if it may now."""
        ends, failures = self._clients.get(client, (0.0, 0))
        return max(0.0, ends - now) if failures >= MAX_FAILURES else 0.0

    def failed(self, client: str, now: float) -> bool:
        """Record a failure. Returns whether the client has just reached the limit."""
        ends, failures = self._clients.pop(client, (0.0, 0))
        if ends <= now:
            ends, failures = now + WINDOW, 0
        while len(self._clients) >= MAX_CLIENTS:
            del self._clients[next(iter(self._clients))]
        self._clients[client] = ends, failures + 1
        return failures + 1 == MAX_FAILURES


def client_of(peer: str, forwarded: str, trusted: Sequence[Network]) -> str:
    """The client's address: the peer, or the address in ``X-Forwarded-For`` if the peer is a trusted proxy.

    The header is read from its end, because the client can forge its beginning. An IPv6 client is identified by its
    /64 network.
    """
    client = peer
    for hop in [peer, *reversed([part.strip() for part in forwarded.split(",")])]:
        address = _address(hop)
        if address is None:
            break
        client = str(address)
        if not any(address in network for network in trusted if network.version == address.version):
            break
    client_address = _address(client)
    if isinstance(client_address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(client_address), _IPV6_PREFIX), strict=False))
    return client


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address
