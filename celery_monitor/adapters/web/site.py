"""The ASGI application: routes and error handling."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from celery_monitor.adapters.web import door, views
from celery_monitor.adapters.web.access import Access
from celery_monitor.adapters.web.api import Api, answer, refusal
from celery_monitor.adapters.web.audience import for_program
from celery_monitor.adapters.web.basic import Clients
from celery_monitor.adapters.web.destination import here, redirects, to_sign_in
from celery_monitor.adapters.web.fleets import Fleets
from celery_monitor.adapters.web.guard import Guard
from celery_monitor.adapters.web.operations import Operations
from celery_monitor.adapters.web.pages import Pages
from celery_monitor.adapters.web.parameters import ParameterError
from celery_monitor.adapters.web.queries import Queries
from celery_monitor.adapters.web.refused import Refused
from celery_monitor.adapters.web.render import root
from celery_monitor.adapters.web.scrape import Scrapes
from celery_monitor.adapters.web.sessions import Sessions
from celery_monitor.adapters.web.shared_pages import SharedPages
from celery_monitor.adapters.web.sign_in import SignIn
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.errors import InvalidCursorError, StoreUnavailableError, StoreUnusableError
from celery_monitor.ports import HealthReport, IdentityProvider
from celery_monitor.settings.web import WebSettings

PREPARE_AFTER: Final = (10.0, 60.0, 600.0)
"""Seconds before the first and further attempts: a starting daemon has more urgent work and no store yet."""
PREPARE_DAYS_EVERY: Final = 3_600.0
"""Seconds. It is repeated because hours and days end."""
PAUSE: Final = 10.0
"""Seconds between two days. With 500 tasks, reading a day takes 40 ms of CPU time, and an idle daemon should use less
than 0.5 % of a core at any time."""
_REFUSED: Final = (
    HTTPException,
    ParameterError,
    InvalidCursorError,
    StoreUnavailableError,
    StoreUnusableError,
    Exception,
)


class Site:
    """The ASGI application and the threads that it uses."""

    def __init__(self, settings: WebSettings, sources: Sources, provider: IdentityProvider | None = None) -> None:
        """``provider``: the OpenID provider, if ``web.oidc`` is configured."""
        self._scrapes = Scrapes(sources.metrics)
        self._queries = Queries()
        self._pages = Pages(sources, self._queries)
        now, clients, sessions = sources.clock.now, Clients(settings.trusted_proxies), Sessions(settings, sources.fleet)
        self.access = Access(settings, sessions, clients, now)
        self._sign_in = (
            None
            if provider is None
            else SignIn(
                provider,
                sessions,
                self.access,
                Clients(settings.trusted_proxies),
                now,
                external_url=settings.external_url,
            )
        )
        app = Starlette(
            routes=[
                Route("/metrics", self._scrapes.answer),
                Route("/livez", _probe(sources.livez)),
                Route("/readyz", _probe(sources.readyz)),
                Route("/health", _probe(sources.readyz)),
                *(self._sign_in.routes() if self._sign_in is not None else ()),
                *Api(sources, self._queries, schemes=self.access.schemes).routes(),
                *Operations(sources, self._queries, settings.external_url).routes(),
                *self._pages.routes(),
            ],
            exception_handlers=dict.fromkeys(_REFUSED, self._refuse),
        )
        app.router.redirect_slashes = False
        shared = SharedPages(app, sources.clock.monotonic)
        # The outermost layer, so that errors have the headers too.
        self.guard = Guard(Fleets(shared, sources, self._queries), self.access, _not_signed_in)

    async def prepare(self) -> None:
        """Prepare what would slow down a first request, then prepare new data every hour. Never returns."""
        for wait in PREPARE_AFTER:
            await asyncio.sleep(wait)
            with contextlib.suppress(StoreUnavailableError, StoreUnusableError):
                await self._pages.prepare()
                break
        while True:
            wait = PREPARE_DAYS_EVERY
            try:
                await self._pages.prepare_days(PAUSE)
            except (StoreUnavailableError, StoreUnusableError):
                wait = PREPARE_AFTER[-1]
            await asyncio.sleep(wait)

    def stop(self) -> None:
        """Drop waiting requests and stop the threads."""
        self._scrapes.stop()
        self._queries.stop()
        if self._sign_in is not None:
            self._sign_in.stop()

    async def _refuse(self, request: Request, exc: Exception) -> Response:
        headers: Mapping[str, str] = {}
        match exc:
            case HTTPException(status_code=404) if (elsewhere := _without_slash(request)) is not None:
                return RedirectResponse(elsewhere)
            case HTTPException():
                status, text, headers = exc.status_code, exc.detail, exc.headers or {}
            case ParameterError() | InvalidCursorError():
                status, text = 400, str(exc)
            case StoreUnavailableError() | StoreUnusableError():
                status, text, headers = 503, str(exc), {"retry-after": "5"}
            case _:
                # The error is only logged, because its text may contain anything.
                status, text = 500, "internal error; see the log"
        response = (
            refusal(status, text) if for_program(request.scope["path"]) else self._pages.refusal(request, status, text)
        )
        response.headers.update(headers)
        return response


def _without_slash(request: Request) -> str | None:
    """The relative address without trailing slashes; None if there are none. Names of tasks may end with one."""
    path = request.scope["raw_path"].decode("ascii", "replace")
    if not path.endswith("/"):
        return None
    query = request.url.query
    # It begins with "../": an address that begins with two slashes would name another host.
    return f"{root(request)}{path.strip('/')}" + (f"?{query}" if query else "")


def _not_signed_in(scope: Scope, denied: Refused) -> Response:
    if for_program(scope["path"]):
        response = refusal(denied.status, denied.message)
        response.headers.update(denied.headers)
        return response
    request = Request(scope)
    if denied.redirectable and redirects(request):
        return to_sign_in(request)
    return door.refusal(request, denied, back=here(scope))


def _probe(check: Callable[[], HealthReport]) -> Callable[[Request], Awaitable[Response]]:
    async def probe(_: Request) -> Response:
        health = check()
        return answer(views.health(health), 200 if health.ok else 503)

    return probe
