"""Queues, and one queue with its tasks, times, workers and incidents, as pages and as JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from celery_monitor.adapters.web import curves, incidents, trends, views
from celery_monitor.adapters.web.api import answer
from celery_monitor.adapters.web.listings import MAX_TASKS, PER_PAGE, TASK_COLUMNS
from celery_monitor.adapters.web.parameters import MAX_LIMIT, Parameters, stored_text
from celery_monitor.adapters.web.queries import Queries
from celery_monitor.adapters.web.queue_history import QueueHistory
from celery_monitor.adapters.web.render import page
from celery_monitor.adapters.web.sorting import SortColumn, numbered, order
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.adapters.web.trends import DAY_HOURS, HOUR, SPANS, Window
from celery_monitor.core import paging
from celery_monitor.core.model import FAILED, SUCCEEDED, QueueStats, Snapshot, Worker
from celery_monitor.ports import TaskRow
from celery_monitor.settings.units import DAY

FIELDS: Final = ("span", "sort", "page")
_OPEN: Final = 10
"""Maximum number of open incidents that are listed."""
_DEFAULT_SORT: Final = "executed"
_DEFAULT_LIST_SORT: Final = "waiting"
QUEUES_PER_PAGE: Final = 100

Waits = Mapping[str, tuple[float, int]]
"""Task → (total seconds that its runs waited in the queue, number of these runs)."""
_NEVER: Final = (0.0, 0)


@dataclass(frozen=True, slots=True)
class QueueView:
    """The current state of a queue."""

    stats: QueueStats
    """Length and consumers are None if the broker has not reported them."""
    tasks: Sequence[TaskRow]
    """Counts of its tasks over the retention period."""
    waits: Waits
    """Waiting times since counting began."""
    workers: Sequence[Worker]
    """Workers that consume it, by hostname."""
    oldest_waiting_at: float | None
    """Since when its oldest waiting task waits; None if no task is known to wait."""

    def json(self) -> views.Json:
        """The queue for the API, without its tasks."""
        return (
            views.queue(self.stats)
            | {"oldest_waiting_at": views.time(self.oldest_waiting_at)}
            | views.totals(self.tasks)
            | {"wait": views.waited(*self.waited())}
        )

    def waited(self) -> tuple[float, int]:
        """(total seconds waited, number of runs) of all tasks."""
        return sum(seconds for seconds, _ in self.waits.values()), sum(count for _, count in self.waits.values())

    def task(self, row: TaskRow) -> views.Json:
        """One of its tasks for the API."""
        return views.task(row) | {"wait": views.waited(*self.waits.get(row.name, _NEVER))}

    def mean_wait(self, row: TaskRow) -> float:
        """The mean wait of a task, as a sort key."""
        seconds, count = self.waits.get(row.name, _NEVER)
        return seconds / count if count else -1.0


def _total(state: QueueView, *kinds: int) -> int:
    return sum(row.counts[kind] for row in state.tasks for kind in kinds)


def _rate(state: QueueView) -> float:
    executed = _total(state, SUCCEEDED, FAILED)
    return _total(state, FAILED) / executed if executed else -1.0


def _mean_wait(state: QueueView) -> float:
    seconds, count = state.waited()
    return seconds / count if count else -1.0


COLUMNS: Final = (
    SortColumn(
        "waiting", "Waiting", lambda state: -1 if state.stats.length is None else state.stats.length, numeric=True
    ),
    SortColumn("oldest", "Oldest waiting", lambda state: -(state.oldest_waiting_at or math.inf), numeric=True),
    SortColumn("workers", "Workers", lambda state: state.stats.workers, numeric=True),
    SortColumn("executed", "Executed", lambda state: _total(state, SUCCEEDED, FAILED), numeric=True),
    SortColumn("failed", "Failed", lambda state: _total(state, FAILED), numeric=True),
    SortColumn("rate", "Rate", _rate, numeric=True),
    SortColumn("wait", "Mean wait", _mean_wait, numeric=True),
    SortColumn(
        "last", "Last failure", lambda state: max((row.last_failure_at or 0.0 for row in state.tasks), default=0.0)
    ),
)
NAME_COLUMN: Final = SortColumn("name", "Queue", lambda state: state.stats.name, down=False)
"""The first column of the list, which is sorted by the length of the queues unless another order is requested."""


class QueuePages:
    """The endpoints."""

    def __init__(self, sources: Sources, queries: Queries) -> None:
        self._sources = sources
        self._queries = queries
        self._history = QueueHistory(sources.reader)

    def routes(self) -> list[Route]:
        """The routes of the endpoints."""
        return [
            Route("/queues", self.queues),
            Route("/queues/{name:any}", self.queue),
            Route("/api/v1/queues", self.queues_as_json),
            Route("/api/v1/queues/{name:any}", self.queue_as_json),
        ]

    async def queues(self, request: Request) -> Response:
        """All queues, the longest first."""
        given = {field: request.query_params.get(field, "") for field in ("sort", "page")}
        columns = (NAME_COLUMN, *COLUMNS)
        ordering = order(given["sort"] or _DEFAULT_LIST_SORT, columns)
        states = sorted(await self._all(), key=NAME_COLUMN.key)
        states.sort(key=ordering.column.key, reverse=ordering.down)
        number, pages = numbered(given["page"], len(states), QUEUES_PER_PAGE)
        return page(
            request,
            self._sources,
            "queues.html",
            queues=[state.json() for state in states[(number - 1) * QUEUES_PER_PAGE : number * QUEUES_PER_PAGE]],
            total=len(states),
            columns=ordering.heads(columns),
            given=given,
            number=number,
            pages=pages,
            retention=self._sources.retention,
            refresh=True,
        )

    async def queue(self, request: Request) -> Response:
        """One queue: runs and waits over time and by task."""
        state, now = await self._find_queue(request), self._sources.clock.now()
        name, reader, zone = state.stats.name, self._sources.reader, self._sources.zone
        given = {field: request.query_params.get(field, "") for field in FIELDS}
        window = trends.window(now, SPANS.get(given["span"], DAY_HOURS))
        hours = await self._queries.shared(("queue", name, window), partial(self._history.of(name), window, now))
        lengths = await self._queries(partial(curves.queue_lengths, reader, name, window, zone))
        tasks = {row.name for row in state.tasks}
        open_incidents = await self._queries(partial(incidents.open_in, reader, name, tasks))
        wait = SortColumn("wait", "Mean wait", state.mean_wait, numeric=True)
        columns = (*TASK_COLUMNS[:-1], wait, TASK_COLUMNS[-1])
        ordering = order(given["sort"] or _DEFAULT_SORT, columns)
        rows = sorted(state.tasks, key=attrgetter("name"))
        rows.sort(key=ordering.column.key, reverse=ordering.down)
        number, pages = numbered(given["page"], len(rows), PER_PAGE)
        return page(
            request,
            self._sources,
            "queue.html",
            name=name,
            one=state.json(),
            open=[incidents.list_item(row) for row in open_incidents[:_OPEN]],
            more_open=max(0, len(open_incidents) - _OPEN),
            trend=trends.trend(hours.runs, window, zone),
            lengths=lengths,
            times=curves.times(hours.times, window, zone),
            hours=curves.table_rows(hours.times),
            tasks=[state.task(row) for row in rows[(number - 1) * PER_PAGE : number * PER_PAGE]],
            total=len(rows),
            columns=ordering.heads(columns),
            given=given,
            number=number,
            pages=pages,
            workers=self._shown(state.workers),
            span=given["span"] if given["span"] in SPANS else "24h",
            retention=self._sources.retention,
            refresh=True,
        )

    async def queues_as_json(self, request: Request) -> Response:
        """Queues by name, with their counts over the retention period."""
        query = Parameters(request, ("limit", "cursor"), now=self._sources.clock.now())
        cursor, limit = query.cursor(), query.limit()
        after = "" if cursor is None else paging.position(cursor, tuple[str])[0]
        states = {state.stats.name: state for state in await self._all()}
        rest = [states[name] for name in sorted(states) if name > after]
        listing = paging.page(rest, limit, lambda state: (state.stats.name,))
        return answer({"items": [state.json() for state in listing.rows], "next": listing.next})

    async def queue_as_json(self, request: Request) -> Response:
        """One queue, with its tasks and its times by hour."""
        now = self._sources.clock.now()
        since = Parameters(request, ("since",), now=now).time("since")
        state = await self._find_queue(request)
        begin = now - DAY if since is None else max(since, now - self._sources.retention)
        window = _since(begin, now)
        hours = await self._queries(partial(self._history.of(state.stats.name), window, now))
        return answer(
            {
                **state.json(),
                "tasks": [state.task(row) for row in state.tasks[:MAX_LIMIT]],
                "hours": [curves.hour_view(row) for row in hours.times],
            }
        )

    async def _all(self) -> list[QueueView]:
        """All known queues, in any order."""
        rows = (await self._queries(partial(self._sources.reader.tasks, limit=MAX_TASKS))).rows
        in_order = sorted(rows, key=attrgetter("queue"))
        by_queue = {queue: list(found) for queue, found in groupby(in_order, key=attrgetter("queue"))}
        stats, workers = self._stats(), self._consumers()
        waits, oldest = _waits(self._sources.snapshot()), await self._oldest()
        return [
            QueueView(
                stats.get(name) or QueueStats(name, None, None, 0, 0),
                by_queue.get(name, []),
                waits.get(name, {}),
                workers.get(name, []),
                oldest.get(name),
            )
            for name in stats.keys() | by_queue.keys() | workers.keys()
        ]

    async def _find_queue(self, request: Request) -> QueueView:
        """The queue in the path. Raises HTTPException if it is unknown."""
        name = stored_text(request.path_params["name"])
        rows = (await self._queries(partial(self._sources.reader.tasks, limit=MAX_TASKS, queue=name))).rows
        stats, workers = self._stats().get(name), self._consumers().get(name, [])
        if not name or not (rows or stats or workers):
            raise HTTPException(404, "unknown queue: no task in it was counted, and no worker consumes it")
        waits = _waits(self._sources.snapshot(), name).get(name, {})
        oldest = (await self._oldest()).get(name)
        return QueueView(stats or QueueStats(name, None, None, 0, 0), rows, waits, workers, oldest)

    async def _oldest(self) -> Mapping[str, float]:
        """See TaskView.waiting_since; by the names of queues as the store has them."""
        view = self._sources.tasks()
        found = await self._queries.shared("waiting since", view.waiting_since)
        oldest: dict[str, float] = {}
        for queue, since in found.items():
            name = stored_text(queue)
            oldest[name] = min(since, oldest.get(name, math.inf))
        return oldest

    def _stats(self) -> dict[str, QueueStats]:
        """Queues as last reported by the broker, by their stored names."""
        return {
            stored_text(stats.name): replace(stats, name=stored_text(stats.name)) for stats in self._sources.queues()
        }

    def _consumers(self) -> dict[str, list[Worker]]:
        """Queue → the workers that consume it."""
        snapshot, details = self._sources.snapshot(), self._sources.worker_details()
        consumers: dict[str, list[Worker]] = {}
        for worker in sorted(snapshot.workers if snapshot else (), key=attrgetter("hostname")):
            for queue in details[worker.hostname].queues if worker.hostname in details else ():
                consumers.setdefault(stored_text(queue), []).append(worker)
        return consumers

    def _shown(self, workers: Sequence[Worker]) -> list[views.Json]:
        details = self._sources.worker_details()
        return [views.worker(worker, details.get(worker.hostname)) for worker in workers]


def _since(begin: float, now: float) -> Window:
    """The hours from a time up to now; none if the time is in the future."""
    first, current = int(begin // HOUR) * HOUR, int(now // HOUR) * HOUR
    return Window(min(first, current + HOUR), max(0, (current - first) // HOUR + 1))


def _waits(snapshot: Snapshot | None, only: str | None = None) -> dict[str, dict[str, tuple[float, int]]]:
    """Queue → the waiting times of its tasks, summed over all workers."""
    waits: dict[str, dict[str, tuple[float, int]]] = {}
    for series in snapshot.series if snapshot else ():
        if only is None or series.key.queue == only:
            of_queue = waits.setdefault(series.key.queue, {})
            seconds, count = of_queue.get(series.key.name, _NEVER)
            of_queue[series.key.name] = seconds + series.wait.sum, count + sum(series.wait.counts)
    return waits
