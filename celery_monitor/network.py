"""Why a server cannot be reached, and what to do: one table for the broker, PagerDuty and the mail server.

Uses only texts of the operating system and of this file: those of libraries may contain a URL with its password.
"""

import enum
import errno
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final


class Fault(enum.Enum):
    """Why a server cannot be reached."""

    NAME = "name"
    """The host name cannot be resolved."""
    REFUSED = "refused"
    """Nothing listens on the port."""
    UNREACHABLE = "unreachable"
    """No route leads to the host."""
    SILENT = "silent"
    """No answer to the connection attempt, or on the connection."""
    CLOSED = "closed"
    """The connection was cut."""
    TLS = "tls"
    """The server does not speak TLS."""
    TLS_CLOSED = "tls closed"
    """The connection was cut within TLS. Redis does so, without a word, if it requires a client certificate."""
    TLS_VERSION = "tls version"
    """The server shares no TLS version or cipher with us."""
    HANDSHAKE = "handshake"
    """The server refuses the handshake, without saying why."""
    CERTIFICATE = "certificate"
    """The server's certificate is not trusted, or the configured certificates cannot be used."""
    CLIENT_CERTIFICATE = "client certificate"
    """The server requires a client certificate, or another one."""


@dataclass(frozen=True, slots=True)
class ServerTerms:
    """The words of the remedies for one kind of server."""

    address: str
    """The setting with the server's address."""
    protocol: str
    """How to configure the protocol of the port, and TLS."""
    trust: str
    """How to configure trusted certificates."""
    client_certificate: str = "use a server that does not require one"
    """How to configure a client certificate."""


_ALLOWED: Final = "TLS version and cipher that the monitor allows (TLS 1.2 or later)"
_REMEDIES: Final = {
    Fault.NAME: "the host name cannot be resolved: check {0.address}",
    Fault.REFUSED: "nothing is listening there, or a firewall rejects the connection: check that the server is "
    "running, and {0.address}",
    Fault.UNREACHABLE: "no route to the host: check {0.address}, routes and firewalls",
    Fault.SILENT: "the server hangs, a firewall drops packets, or the port uses another protocol: {0.protocol}",
    Fault.CLOSED: "the server was restarted, a proxy or firewall closed the connection, or the port uses another "
    "protocol: {0.protocol}",
    Fault.TLS: "{0.protocol}",
    Fault.TLS_CLOSED: "the server was restarted, a proxy or firewall closed the connection, or the server requires a "
    "client certificate: {0.client_certificate}",
    Fault.TLS_VERSION: f"the server supports no {_ALLOWED}: enable them on the server",
    Fault.HANDSHAKE: f"the server supports no {_ALLOWED}, or requires a client certificate: {{0.client_certificate}}",
    Fault.CERTIFICATE: "{0.trust}",
    Fault.CLIENT_CERTIFICATE: "the server requires a client certificate, or another one: {0.client_certificate}",
}
_REASONS: Final = (
    (re.compile("ALERT_(BAD_CERTIFICATE|UNKNOWN_CA|CERTIFICATE_)"), Fault.CLIENT_CERTIFICATE),
    (re.compile("HANDSHAKE_FAILURE"), Fault.HANDSHAKE),
    (re.compile("PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL|CIPHER|KEY_TOO_SMALL"), Fault.TLS_VERSION),
    (re.compile("KEY_VALUES_MISMATCH|NO_CERTIFICATE|NO_START_LINE|PEM_LIB"), Fault.CERTIFICATE),
)
"""OpenSSL's texts → fault. Alerts come from the server."""
PASSING: Final = frozenset({Fault.REFUSED, Fault.UNREACHABLE, Fault.SILENT, Fault.CLOSED, Fault.TLS_CLOSED})
"""Faults that may go away by themselves."""
_SSL_CLOSED: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError)
_UNREACHABLE: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})


def remedy(fault: Fault, server: ServerTerms) -> str:
    """What to do about a fault."""
    return _REMEDIES[fault].format(server)


def fault_of(exc: BaseException | None) -> Fault | None:
    """The network fault that an exception, or one that it wraps, indicates; None if it indicates none."""
    return next((fault for fault in map(_fault, chain(exc)) if fault is not None), None)


def explain(exc: BaseException) -> str:
    """The operating system's text for the error, without numbers and addresses; "" if there is none."""
    for cause in reversed(list(chain(exc))):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"TLS: {cause.verify_message}"
        if isinstance(cause, _SSL_CLOSED):
            return "TLS: the connection was closed"
        if isinstance(cause, ssl.SSLError):
            return f"TLS: {cause.reason or type(cause).__name__}"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return ""


def chain(exc: BaseException | None) -> Iterator[BaseException]:
    """The exception and those that it wraps: libraries wrap the system's error several layers deep."""
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


def _fault(exc: BaseException) -> Fault | None:  # noqa: PLR0911 - a table
    if isinstance(exc, ssl.SSLCertVerificationError):
        return Fault.CERTIFICATE
    if isinstance(exc, _SSL_CLOSED):
        return Fault.TLS_CLOSED
    if isinstance(exc, ssl.SSLError):
        return next((fault for words, fault in _REASONS if words.search(exc.reason or "")), Fault.TLS)
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
