"""``/api/v1``: what is stored, as JSON."""

from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from celery_monitor.adapters.web import views
from celery_monitor.adapters.web.parameters import Parameters, bad_cursor, sealed
from celery_monitor.adapters.web.queries import Queries
from celery_monitor.adapters.web.sources import Sources

_CURSOR_PARTS: Final = "\0"


class Api:
    """The endpoints."""

    def __init__(self, sources: Sources, queries: Queries) -> None:
        self._sources = sources
        self._queries = queries

    def routes(self) -> list[Route]:
        """All of ``/api/v1``."""
        return [Route("/api/v1/tasks", self.tasks)]

    async def tasks(self, request: Request) -> Response:
        """Tasks by name and queue."""
        query = self._query(request, "limit", "cursor", "task", "since")
        limit, cursor, since, name = query.limit(), query.cursor(), query.time("since"), query.text("task")
        if cursor is not None and _CURSOR_PARTS not in cursor:
            raise bad_cursor()
        reader = self._sources.reader
        rows = await self._queries(lambda: reader.tasks(since=since, limit=limit + 1, cursor=cursor, name=name))
        page = rows[:limit]
        more = f"{page[-1].name}{_CURSOR_PARTS}{page[-1].queue}" if len(rows) > limit else None
        return answer({"items": [views.task(row) for row in page], "next": sealed(more)})

    def _query(self, request: Request, *known: str) -> Parameters:
        return Parameters(request, known, now=self._sources.clock.now())


def answer(value: object, status: int = 200) -> Response:
    """A value as JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def refusal(status: int, error: str) -> Response:
    """An error as JSON."""
    return answer({"error": error}, status)
