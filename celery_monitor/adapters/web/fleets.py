"""The list of the other fleets in the same database, for the pages. It is queried periodically in the background."""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from celery_monitor.adapters.web.audience import is_page
from celery_monitor.adapters.web.queries import Queries
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.core.text import printable
from celery_monitor.errors import MonitorError
from celery_monitor.ports import OtherFleet
from celery_monitor.settings.section import is_http_url

CACHE_SECONDS: Final = 60.0
PATIENCE_SECONDS: Final = 0.3
"""Time that a page waits for the list. After that it is shown without the list, and the next page has it."""
_MAX_NAME: Final = 100
_KEY: Final = "celery_monitor.fleets"

_log = structlog.get_logger()


class Fleets:
    """Adds the list to each request of an application."""

    def __init__(self, app: ASGIApp, sources: Sources, queries: Queries) -> None:
        self._app = app
        self._sources = sources
        self._queries = queries
        self._fleets: Sequence[OtherFleet] = ()
        self._until = float("-inf")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        now = self._sources.clock.monotonic()
        if self._sources.fleets is not None and now >= self._until and is_page(scope["path"]):
            self._until = now + CACHE_SECONDS
            await asyncio.wait({asyncio.ensure_future(self._ask())}, timeout=PATIENCE_SECONDS)
        scope[_KEY] = self._fleets
        await self._app(scope, receive, send)

    async def _ask(self) -> None:
        if self._sources.fleets is None:
            return
        try:
            fleets = await self._queries(self._sources.fleets)
        except MonitorError as exc:
            _log.debug("Cannot list the other fleets of the database", problem=str(exc))
            return
        # Other programs write these entries, so they are not trusted.
        self._fleets = [
            OtherFleet(printable(fleet.name, _MAX_NAME), fleet.url.rstrip("/") + "/")
            for fleet in fleets
            if is_http_url(fleet.url)
        ]


def fleets_of(scope: Scope) -> Sequence[OtherFleet]:
    """The list in a request's scope."""
    fleets: Sequence[OtherFleet] = scope.get(_KEY, ())
    return fleets
