"""HTTP Basic authentication with one user and password."""

import base64
import binascii
import hmac
import math
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.types import Scope

from celery_monitor.adapters.web.people import Person, Role
from celery_monitor.adapters.web.refused import Refused
from celery_monitor.adapters.web.throttle import MAX_FAILURES, Network, Throttle, client_of
from celery_monitor.core.text import printable

CHALLENGE: Final = {"www-authenticate": 'Basic realm="celery-monitor", charset="UTF-8"'}
_MAX_NAME_LENGTH: Final = 64

_log = structlog.get_logger()


class Clients:
    """Identifies clients and throttles those with too many failed sign-ins."""

    def __init__(self, proxies: Sequence[Network]) -> None:
        """``proxies``: networks of proxies whose ``X-Forwarded-For`` is trusted."""
        self._proxies = proxies
        self._throttle = Throttle()

    def wait(self, scope: Scope) -> Refused | None:
        """The refusal for a client with too many failed sign-ins; None for others."""
        wait = self._throttle.wait(self.address_of(scope), monotonic())
        if not wait:
            return None
        message = "Too many failed sign-ins from this address: wait a minute, then try again."
        return Refused(429, message, {"retry-after": str(math.ceil(wait))}, reason="throttled")

    def failed(self, scope: Scope) -> None:
        """Count a failed sign-in of the client."""
        client = self.address_of(scope)
        if self._throttle.failed(client, monotonic()):
            _log.warning("Too many failed sign-ins; the client must wait", client=client, failures=MAX_FAILURES)

    def address_of(self, scope: Scope) -> str:
        """The client's address."""
        peer, _ = scope.get("client") or ("unknown", 0)
        return client_of(peer, ",".join(Headers(scope=scope).getlist("x-forwarded-for")), self._proxies)


class Basic:
    """Checks user name and password.

    ``password`` is called for each request, because its file may change; while it returns None, nobody can sign in.
    """

    def __init__(self, username: str, password: Callable[[], str | None], clients: Clients) -> None:
        self._username = username
        self._password = password
        self._clients = clients

    def person(self, scope: Scope, authorization: str) -> Person | Refused:
        """The person with the credentials in the header ``Authorization``, or the refusal."""
        if (denied := self._clients.wait(scope)) is not None:
            return denied
        credentials = _decoded_credentials(authorization)
        if self._knows(credentials):
            return Person(self._username, Role.OPERATOR)
        name = printable(credentials.partition(b":")[0].decode("utf-8", "replace"), _MAX_NAME_LENGTH)
        _log.warning("Sign-in failed", client=self._clients.address_of(scope), user=name)
        self._clients.failed(scope)
        return Refused(401, "Wrong user name or password.", CHALLENGE, reason="wrong")

    def _knows(self, credentials: bytes) -> bool:
        password = self._password()
        # Both are compared together in constant time, so that the time does not reveal which of them is wrong.
        return password is not None and hmac.compare_digest(credentials, f"{self._username}:{password}".encode())


def _decoded_credentials(authorization: str) -> bytes:
    """``name:password`` of a Basic header; b"" of any other."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""
