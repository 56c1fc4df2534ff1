"""HTTP Basic, and the headers that keep a browser from doing what the page does not need."""

import base64
import binascii
import hmac
from collections.abc import Callable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATHS: Final = frozenset({"/metrics", "/livez", "/readyz", "/health"})
"""What needs no password: scrapers and probes have none."""

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

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


class Guard:
    """Asks for the password, and sets the headers. Without a ``username`` everything is open.

    ``password`` is asked for each request, because its file may change; while it gives None nobody is let in.
    ``refusal`` makes the answer with status 401 for a path.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        username: str | None,
        password: Callable[[], str | None],
        refusal: Callable[[str], Response],
    ) -> None:
        self._app = app
        self._refusal = refusal
        self._username = username
        self._password = password

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["path"] in OPEN_PATHS or self._knows(Headers(scope=scope).get("authorization", "")):
            await self._app(scope, receive, secured)
        else:
            refusal = self._refusal(scope["path"])
            refusal.headers["www-authenticate"] = 'Basic realm="celery-monitor", charset="UTF-8"'
            await refusal(scope, receive, secured)

    def _knows(self, authorization: str) -> bool:
        if self._username is None:
            return True
        password = self._password()
        scheme, _, encoded = authorization.partition(" ")
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        if scheme.lower() != "basic" or password is None:
            return False
        # Over the whole of both: the time taken must not tell which of the two is wrong, or where.
        return hmac.compare_digest(given, f"{self._username}:{password}".encode())
