"""The list of workers, and one worker with its tasks, as pages and as JSON."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from celery_monitor.adapters.web import views
from celery_monitor.adapters.web.api import answer, current
from celery_monitor.adapters.web.parameters import Parameters, stored_text
from celery_monitor.adapters.web.queries import Queries
from celery_monitor.adapters.web.render import page
from celery_monitor.adapters.web.sorting import SortColumn, order
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.core import paging
from celery_monitor.core.lookup import LISTED, RunFilter, RunState
from celery_monitor.core.model import Worker

COLUMNS: Final = (
    SortColumn("state", "State", lambda one: one["up"], down=False),
    SortColumn("hostname", "Worker", lambda one: one["hostname"], down=False),
    SortColumn("heartbeat", "Last heartbeat", lambda one: one["last_heartbeat_at"] or ""),
    SortColumn("running", "Running", lambda one: one["active"], numeric=True),
    SortColumn("load", "Load (1 min)", lambda one: (one["load_average"] or (-1.0,))[0], numeric=True),
    SortColumn("started", "Started tasks", lambda one: one["processed"], numeric=True),
    SortColumn("unobserved", "Not observed", lambda one: one["unobserved"], numeric=True),
    SortColumn("software", "Software", lambda one: one["software"], down=False),
)
"""Columns of the list. The first one is the default order."""


class WorkerPages:
    """The endpoints."""

    def __init__(self, sources: Sources, queries: Queries) -> None:
        self._sources = sources
        self._queries = queries

    def routes(self) -> list[Route]:
        """The routes of the endpoints."""
        return [
            Route("/workers", self.workers),
            Route("/workers/{hostname:any}", self.worker),
            Route("/api/v1/workers", self.workers_as_json),
            Route("/api/v1/workers/{hostname:any}", self.worker_as_json),
        ]

    async def workers(self, request: Request) -> Response:
        """The current workers; workers that are down first."""
        sort = request.query_params.get("sort", "")
        ordering = order(sort, COLUMNS)
        shown = self._shown(
            sorted(current(self._sources.snapshot).workers, key=lambda worker: (worker.up, worker.hostname))
        )
        if sort:
            shown.sort(key=lambda worker: worker["hostname"])
            shown.sort(key=ordering.column.key, reverse=ordering.down)
        return page(
            request,
            self._sources,
            "workers.html",
            workers=shown,
            columns=ordering.heads(COLUMNS),
            given={"sort": sort},
            refresh=True,
        )

    async def worker(self, request: Request) -> Response:
        """One worker and its running tasks."""
        worker = self._find_worker(request)
        criteria = RunFilter(hostname=stored_text(worker.hostname), state=RunState.RUNNING)
        view = self._sources.tasks()
        listing = await self._queries.shared(("worker", worker.hostname), partial(view.page, criteria))
        now = self._sources.clock.now()
        return page(
            request,
            self._sources,
            "worker.html",
            one=self._shown([worker])[0],
            runs=[views.run(run, now) for run in listing.runs],
            running=listing.total,
            fetched=listing.counts.get(RunState.WAITING, 0) + listing.counts.get(RunState.SCHEDULED, 0),
            live=view.live,
            refresh=True,
        )

    async def workers_as_json(self, request: Request) -> Response:
        """Workers by hostname, from memory without a query."""
        query = Parameters(request, ("limit", "cursor"), now=self._sources.clock.now())
        cursor = query.cursor()
        workers = sorted(current(self._sources.snapshot).workers, key=lambda worker: worker.hostname)
        after = "" if cursor is None else paging.position(cursor, tuple[str])[0]
        rest = [worker for worker in workers if worker.hostname > after]
        listing = paging.page(rest, query.limit(), lambda worker: (worker.hostname,))
        return answer({"items": self._shown(listing.rows), "next": listing.next})

    async def worker_as_json(self, request: Request) -> Response:
        """One worker, with the number of its tasks by state."""
        Parameters(request, (), now=self._sources.clock.now())
        worker = self._find_worker(request)
        listing = await self._queries(
            partial(self._sources.tasks().page, RunFilter(hostname=stored_text(worker.hostname), limit=0))
        )
        tasks = {str(state): listing.counts.get(state, 0) for state in LISTED}
        return answer({**self._shown([worker])[0], "tasks": tasks})

    def _find_worker(self, request: Request) -> Worker:
        hostname = stored_text(request.path_params["hostname"])
        for worker in current(self._sources.snapshot).workers:
            if stored_text(worker.hostname) == hostname:
                return worker
        raise HTTPException(
            404, "no worker with this name is known: it never sent an event, or has been down for a long time"
        )

    def _shown(self, workers: Sequence[Worker]) -> list[views.Json]:
        details = self._sources.worker_details()
        return [views.worker(worker, details.get(worker.hostname)) for worker in workers]
