"""Why a server cannot be reached, and what a person can do: one table for the broker, PagerDuty and the mail server.

Texts are the operating system's and this file's own: those of libraries may hold a URL with its password.
"""

import enum
import errno
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final


class Fault(enum.Enum):
    """What stands between this program and a server."""

    NAME = "name"
    """The name server does not know the host."""
    REFUSED = "refused"
    """Nothing listens on the port."""
    UNREACHABLE = "unreachable"
    """No route leads to the host."""
    SILENT = "silent"
    """No answer, to the connection or over it."""
    CLOSED = "closed"
    """The connection was cut."""
    TLS = "tls"
    """The other side does not speak TLS, or not a version or cipher of ours."""
    CERTIFICATE = "certificate"
    """It does, with a certificate that is not trusted."""


@dataclass(frozen=True, slots=True)
class ServerTerms:
    """How the remedies speak of one kind of server."""

    address: str
    """Where a person says how it is reached."""
    protocol: str
    """How a person says which protocol the port speaks, and whether within TLS."""
    trust: str
    """How a person says which certificates are good."""


_REMEDIES: Final = {
    Fault.NAME: "the host name cannot be resolved: check {0.address}",
    Fault.REFUSED: "nothing is listening there, or a firewall rejects the connection: check that the server is "
    "running, and {0.address}",
    Fault.UNREACHABLE: "no route to the host: check {0.address}, routes and firewalls",
    Fault.SILENT: "the server hangs, a firewall drops packets, or the port uses another protocol: {0.protocol}",
    Fault.CLOSED: "the server was restarted, a proxy or firewall closed the connection, or the port uses another "
    "protocol: {0.protocol}",
    Fault.TLS: "{0.protocol}",
    Fault.CERTIFICATE: "{0.trust}",
}
PASSING: Final = frozenset({Fault.REFUSED, Fault.UNREACHABLE, Fault.SILENT, Fault.CLOSED})
"""What may be over in a moment without anybody's doing."""
_UNREACHABLE: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})


def remedy(fault: Fault, server: ServerTerms) -> str:
    """What to do about it."""
    return _REMEDIES[fault].format(server)


def fault_of(exc: BaseException | None) -> Fault | None:
    """What an exception, or one that it wraps, says of the network; None when it says nothing of it."""
    return next((fault for fault in map(_fault, chain(exc)) if fault is not None), None)


def explain(exc: BaseException) -> str:
    """What the operating system says of it, without numbers and addresses; "" when it says nothing."""
    for cause in reversed(list(chain(exc))):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"TLS: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS: {cause.reason or type(cause).__name__}"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return ""


def chain(exc: BaseException | None) -> Iterator[BaseException]:
    """The exception and those that it wraps: libraries hide what the system said several layers deep."""
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


def _fault(exc: BaseException) -> Fault | None:  # noqa: PLR0911 - a table
    if isinstance(exc, ssl.SSLCertVerificationError):
        return Fault.CERTIFICATE
    if isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return Fault.CLOSED
    if isinstance(exc, ssl.SSLError):
        return Fault.TLS
    if isinstance(exc, socket.gaierror):
        return Fault.NAME
    if isinstance(exc, TimeoutError):
        return Fault.SILENT
    if isinstance(exc, ConnectionRefusedError):
        return Fault.REFUSED
    if isinstance(exc, ConnectionError | EOFError):
        return Fault.CLOSED
    if isinstance(exc, OSError) and exc.errno in _UNREACHABLE:
        return Fault.UNREACHABLE
    return None
