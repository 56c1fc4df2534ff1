"""What is served: the routes, and what becomes of errors."""

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from celery_monitor.adapters.web import views
from celery_monitor.adapters.web.api import Api, answer, refusal
from celery_monitor.adapters.web.guard import Guard
from celery_monitor.adapters.web.parameters import ParameterError
from celery_monitor.adapters.web.queries import Queries
from celery_monitor.adapters.web.scrape import Scrapes
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.errors import StoreUnavailableError, StoreUnusableError
from celery_monitor.ports import Health
from celery_monitor.settings.web import WebSettings


class Site:
    """The ASGI application, with the threads that it needs."""

    def __init__(self, settings: WebSettings, sources: Sources) -> None:
        self._scrapes = Scrapes(sources.metrics)
        self._queries = Queries()
        app = Starlette(
            routes=[
                Route("/metrics", self._scrapes.answer),
                Route("/livez", _probe(sources.livez)),
                Route("/readyz", _probe(sources.readyz)),
                Route("/health", _probe(sources.readyz)),
                *Api(sources, self._queries).routes(),
            ],
            exception_handlers={
                HTTPException: _http_error,
                ParameterError: _bad_parameter,
                StoreUnavailableError: _store_away,
                StoreUnusableError: _store_away,
                Exception: _failed,
            },
        )
        app.router.redirect_slashes = False
        # Around all of it, so that errors carry the headers too.
        self.app = Guard(app, username=settings.username, password=settings.password_source().get)

    def stop(self) -> None:
        """Drop what waits."""
        self._scrapes.stop()
        self._queries.stop()


def _probe(look: Callable[[], Health]) -> Callable[[Request], Awaitable[Response]]:
    async def probe(_: Request) -> Response:
        health = look()
        return answer(views.health(health), 200 if health.ok else 503)

    return probe


async def _http_error(_: Request, exc: Exception) -> Response:
    if not isinstance(exc, HTTPException):
        raise exc
    return refusal(exc.status_code, exc.detail)


async def _bad_parameter(_: Request, exc: Exception) -> Response:
    return refusal(400, str(exc))


async def _store_away(_: Request, exc: Exception) -> Response:
    response = refusal(503, str(exc))
    response.headers["retry-after"] = "5"
    return response


async def _failed(_: Request, _exc: Exception) -> Response:
    return refusal(500, "an error of the monitor; its log says more")
