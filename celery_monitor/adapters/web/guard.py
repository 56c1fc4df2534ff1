"""Authenticates requests and adds the security headers."""

from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from celery_monitor.adapters.web.access import Access
from celery_monitor.adapters.web.people import sign
from celery_monitor.adapters.web.policies import HEADERS
from celery_monitor.adapters.web.refused import Refused


class Guard:
    """ASGI middleware. ``refusal`` creates the answer to a refused request."""

    def __init__(self, app: ASGIApp, access: Access, refusal: Callable[[Scope, Refused], Response]) -> None:
        self.access = access
        self._app = app
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        match self.access.person(scope):
            case None:
                answering = self._app
            case Refused() as refused:
                answering = self._refusal(scope, refused)
            case person:
                sign(scope, person)
                answering = self._app
        await answering(scope, receive, secured)
