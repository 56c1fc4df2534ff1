"""The JSON API, ``/api/v1``."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from celery_monitor.adapters.web import curves, incidents, views
from celery_monitor.adapters.web.openapi import INDEX, OPERATIONS, document
from celery_monitor.adapters.web.overview import overview
from celery_monitor.adapters.web.parameters import Parameters, day, stored_text
from celery_monitor.adapters.web.queries import Queries
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.adapters.web.trends import HOUR
from celery_monitor.core.model import Failure, Snapshot
from celery_monitor.core.paging import Page
from celery_monitor.core.summary import summary_to_dict
from celery_monitor.errors import StoreUnavailableError
from celery_monitor.ports import FailureFilter
from celery_monitor.settings.units import DAY

T = TypeVar("T")

ERRORS_SINCE: Final = 7 * DAY
"""Default period of a task's error groups, in seconds."""
FAILURE_FILTERS: Final = ("task", "exception", "since", "until")


class Api:
    """The endpoints. All return JSON; lists have ``items`` and ``next``, the cursor of the next page."""

    def __init__(self, sources: Sources, queries: Queries, *, schemes: tuple[str, ...]) -> None:
        """``schemes``: security schemes for the OpenAPI description."""
        self._sources = sources
        self._schemes = schemes
        self._queries = queries

    def routes(self) -> list[Route]:
        """The routes of the endpoints, as described in ``openapi``."""
        return [
            Route(INDEX, self.index),
            Route(f"{INDEX}/", self.index),
            Route("/api/v1/summary", self.summary),
            Route("/api/v1/tasks", self.tasks),
            Route("/api/v1/tasks/{name:any}", self.task),
            Route("/api/v1/queue-lengths", self.queue_lengths),
            Route("/api/v1/failures", self.failures),
            Route("/api/v1/failures/{uuid:any}", self.failure),
            Route("/api/v1/incidents", self.incidents),
            Route("/api/v1/incidents/{key:any}", self.incident),
            Route("/api/v1/outbox", self.outbox),
            Route("/api/v1/reports/{date}", self.report),
            Route("/openapi.json", self.openapi),
        ]

    async def index(self, request: Request) -> Response:
        """The list of endpoints."""
        self._query(request)
        listed = {path: operation for path, operation in OPERATIONS.items() if path != INDEX}
        resources = [{"href": path, "about": operation.about} for path, operation in listed.items()]
        return answer({"resources": resources, "description": "/openapi.json"})

    async def summary(self, request: Request) -> Response:
        """An overview of the fleet."""
        since = self._query(request, "since").time("since")
        return answer(await self._queries(partial(overview, self._sources, since, seen=True)))

    async def tasks(self, request: Request) -> Response:
        """Tasks by name and queue."""
        query = self._query(request, "limit", "cursor", "task", "exception", "since", "until")
        since, until = query.span()
        page = await self._queries(
            partial(
                self._sources.reader.tasks,
                since=since,
                until=until,
                limit=query.limit(),
                cursor=query.cursor(),
                name=query.name("task"),
                exception=query.name("exception"),
            )
        )
        return _items(page, views.task)

    async def task(self, request: Request) -> Response:
        """One task, with its queues and error groups."""
        name = stored_text(_path_parameter(request, "name"))
        since = self._query(request, "since").time("since")
        reader, now = self._sources.reader, self._sources.clock.now()
        rows = (await self._queries(partial(reader.tasks, since=since, limit=1000, name=name))).rows
        if not rows:
            raise HTTPException(404, "unknown task")
        groups = await self._queries(partial(reader.groups, since or now - ERRORS_SINCE, now, name=name))
        begin = now - DAY if since is None else since
        hours = await self._queries(partial(reader.task_hours, name, begin // HOUR * HOUR, now + HOUR))
        return answer(
            {
                "name": name,
                **views.totals(rows),
                "queues": [views.task(row) for row in rows],
                "errors": [views.error(row) for row in groups],
                "hours": [curves.hour_view(row) for row in hours],
            }
        )

    async def queue_lengths(self, request: Request) -> Response:
        """Queue lengths by hour."""
        query, now = self._query(request, "limit", "cursor", "queue", "since", "until"), self._sources.clock.now()
        since, until = query.span()
        queue = query.name("queue")
        begin = now - DAY if since is None else since
        page = await self._queries(
            partial(
                self._sources.reader.queue_lengths,
                begin // HOUR * HOUR,
                now + HOUR if until is None else until,
                step=HOUR,
                limit=query.limit(),
                cursor=query.cursor(),
                queues=None if queue is None else [queue],
            )
        )
        return _items(page, curves.length_view)

    async def failures(self, request: Request) -> Response:
        """Failures, newest first."""
        query = self._query(request, "limit", "cursor", *FAILURE_FILTERS)
        page = await self._queries(partial(self._sources.reader.failures, _failure_filter(query)))
        return _items(page, views.failure)

    async def failure(self, request: Request) -> Response:
        """All stored failures of a task ID."""
        uuid = stored_text(_path_parameter(request, "uuid"))
        self._query(request)
        failures: list[Failure] = await self._queries(partial(self._sources.reader.failure, uuid))
        if not failures:
            raise HTTPException(404, "no failure is stored for this task ID")
        return _items(Page(failures), views.failure_in_full)

    async def incidents(self, request: Request) -> Response:
        """Incidents, newest first."""
        criteria = incidents.filter_of(self._query(request, "limit", "cursor", *incidents.FILTERS))
        page = await self._queries(partial(incidents.page, self._sources.reader, criteria))
        return _items(page, views.incident)

    async def incident(self, request: Request) -> Response:
        """One incident, with its error groups."""
        key = stored_text(_path_parameter(request, "key"))
        self._query(request)
        incident = await self._queries(partial(incidents.find, self._sources.reader, key))
        if incident is None:
            raise HTTPException(404, incidents.unknown(self._sources.retention))
        return answer(views.incident_in_full(*incident))

    async def outbox(self, request: Request) -> Response:
        """Pending and failed notifications, oldest first."""
        query = self._query(request, "limit", "cursor", "since", "until", "dead")
        since, until = query.span()
        page = await self._queries(
            partial(
                self._sources.outbox.items,
                dead=query.flag("dead"),
                limit=query.limit(),
                cursor=query.cursor(),
                since=since,
                until=until,
            )
        )
        return _items(page, views.outbox_item)

    async def report(self, request: Request) -> Response:
        """The summary of a day, as in the mail."""
        self._query(request)
        now = self._sources.clock.now()
        date = day(request.path_params["date"], now=now, zone=self._sources.zone)
        return answer(summary_to_dict(await self._queries(partial(self._sources.report, date, now))))

    async def openapi(self, request: Request) -> Response:
        """The OpenAPI description."""
        self._query(request)
        return answer(document(schemes=self._schemes))

    def _query(self, request: Request, *names: str) -> Parameters:
        return Parameters(request, names, now=self._sources.clock.now())


def _failure_filter(query: Parameters) -> FailureFilter:
    since, until = query.span()
    return FailureFilter(
        task=query.name("task"),
        exception=query.name("exception"),
        since=since,
        until=until,
        limit=query.limit(),
        cursor=query.cursor(),
    )


def current(snapshot: Callable[[], Snapshot | None]) -> Snapshot:
    """The current snapshot. Raises StoreUnavailableError while the monitor starts."""
    current_snapshot = snapshot()
    if current_snapshot is None:
        raise StoreUnavailableError("the monitor is starting: the store has not been read yet")
    return current_snapshot


def answer(value: Any, status: int = 200) -> Response:  # noqa: ANN401 - any JSON value
    """A value as JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def refusal(status: int, error: str) -> Response:
    """An error as JSON."""
    return answer({"error": error}, status)


def _path_parameter(request: Request, parameter: str) -> str:
    """A parameter of the path. An empty one, the list's address with an extra slash, is an error."""
    name: str = request.path_params[parameter]
    if not name:
        raise HTTPException(404, f"no {parameter} is given")
    return name


def _items(page: Page[T], view: Callable[[T], views.Json]) -> Response:
    return answer({"items": [view(row) for row in page.rows], "next": page.next})
