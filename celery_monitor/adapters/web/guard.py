"""HTTP Basic, and the headers that keep a browser from doing what the page does not need."""

import base64
import binascii
import hmac
import math
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from celery_monitor.adapters.web.throttle import MAX_FAILURES, Network, Throttle, client_of
from celery_monitor.core.text import printable

OPEN_PATHS: Final = frozenset({"/metrics", "/livez", "/readyz", "/health"})
"""What needs no password: scrapers and probes have none."""

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
PAGE_POLICY: Final = f"{CONTENT_SECURITY_POLICY}; script-src 'self'; connect-src 'self'"
"""Of pages, which have a script of their own; none that is in a document runs."""

HEADERS: Final = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
"""Set where the answer does not set them itself."""
_MAX_NAME_LENGTH: Final = 64

_log = structlog.get_logger()


class Guard:
    """Asks for the password, and sets the headers. Without a ``username`` everything is open.

    ``password`` is asked for each request, because its file may change; while it gives None nobody is let in.
    ``refusal`` makes the answer for a path and a status: 401 without the password, and 429 for a client that failed too
    often, right or wrong. ``proxies``: whose ``X-Forwarded-For`` tells who the client is.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        username: str | None,
        password: Callable[[], str | None],
        refusal: Callable[[str, int], Response],
        proxies: Sequence[Network] = (),
    ) -> None:
        self.refused = {"wrong": 0, "throttled": 0}
        """Requests with a user name or password that were refused, by the reason."""
        self._app = app
        self._refusal = refusal
        self._username = username
        self._password = password
        self._proxies = proxies
        self._throttle = Throttle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = None
        if scope["path"] not in OPEN_PATHS and self._username is not None:
            refusal = self._sign_in(scope, self._username)
        await (refusal or self._app)(scope, receive, secured)

    def _sign_in(self, scope: Scope, username: str) -> Response | None:
        """The answer to who may not go on; None for who may."""
        headers = Headers(scope=scope)
        authorization = headers.get("authorization", "")
        if not authorization:
            # A browser's first request: it asks for a password when it is told to.
            return self._unauthorized(scope)
        client, now = self._client(scope, headers), monotonic()
        wait = self._throttle.wait(client, now)
        if wait:
            self.refused["throttled"] += 1
            refusal = self._refusal(scope["path"], 429)
            refusal.headers["retry-after"] = str(math.ceil(wait))
            return refusal
        given = _given(authorization)
        if self._knows(given, username):
            return None
        self.refused["wrong"] += 1
        name = printable(given.partition(b":")[0].decode("utf-8", "replace"), _MAX_NAME_LENGTH)
        _log.warning("Sign-in failed", client=client, user=name)
        if self._throttle.failed(client, now):
            _log.warning("Too many failed sign-ins; the client must wait", client=client, failures=MAX_FAILURES)
        return self._unauthorized(scope)

    def _unauthorized(self, scope: Scope) -> Response:
        refusal = self._refusal(scope["path"], 401)
        refusal.headers["www-authenticate"] = 'Basic realm="celery-monitor", charset="UTF-8"'
        return refusal

    def _client(self, scope: Scope, headers: Headers) -> str:
        peer, _ = scope.get("client") or ("unknown", 0)
        return client_of(peer, ",".join(headers.getlist("x-forwarded-for")), self._proxies)

    def _knows(self, given: bytes, username: str) -> bool:
        password = self._password()
        # Over the whole of both: the time taken must not tell which of the two is wrong, or where.
        return password is not None and hmac.compare_digest(given, f"{username}:{password}".encode())


def _given(authorization: str) -> bytes:
    """``name:password`` of a Basic header; b"" of any other."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""
