"""Running, waiting and ended tasks, and a task by its ID, as pages and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Annotated, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from celery_monitor.adapters.web import views
from celery_monitor.adapters.web.api import answer
from celery_monitor.adapters.web.filters import days, path
from celery_monitor.adapters.web.parameters import Parameters, stored_text
from celery_monitor.adapters.web.queries import Queries
from celery_monitor.adapters.web.render import page, root
from celery_monitor.adapters.web.search import ids_in, matcher
from celery_monitor.adapters.web.sorting import SortColumn, order, page_number
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.core import paging
from celery_monitor.core.lookup import CHILDREN, LISTED, OUTCOMES, RunFilter, RunPage, RunState, state_of_run
from celery_monitor.core.model import Failure, Stage, TaskRun
from celery_monitor.ports import ENDED_SEARCHED, EndedFilter, TaskView

FIELDS: Final = ("q", "state", "queue", "worker", "page", "sort")
ALL: Final = "all"
STATES: Final = {
    "": "Running",
    RunState.WAITING: "Waiting",
    RunState.SCHEDULED: "Scheduled",
    RunState.RETRYING: "Retrying",
    RunState.LOST: "Lost",
    ALL: "All",
}
"""Values of the page's field ``state`` and their labels."""
ENDED: Final = {name: name.capitalize() for name in OUTCOMES}
"""The same for ended runs."""
COLUMNS: Final = (
    SortColumn("ended", "Ended"),
    SortColumn("name", "Task", down=False),
    SortColumn("stage", "State", down=False),
    SortColumn("runtime", "Run time", numeric=True),
    SortColumn("hostname", "Worker", down=False),
)
"""Columns of the list of ended runs; names as in EndedFilter.sort."""
PER_PAGE: Final = 50
SHARED_FOR: Final = 1.0
"""Seconds for which a list is shared between viewers."""
_Offset = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
_MOST: Final = (1 << 63) - 1
_Number = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
ANCESTORS: Final = 10
"""Maximum number of ancestors of a task that are looked up."""


@dataclass(frozen=True, slots=True)
class TaskOverview:
    """Everything that is known about a task ID."""

    runs: Sequence[TaskRun]
    """Runs under way, then ended ones, newest first."""
    ancestors: Sequence[tuple[str, TaskRun | None]]
    """Its ancestors in the workflow, root first, each with its run if known."""
    whole: bool
    """Whether all ancestors from the root to this task are known."""
    children: Sequence[TaskRun]
    failures: Sequence[Failure]


class Runs:
    """The endpoints."""

    def __init__(self, sources: Sources, queries: Queries) -> None:
        self._sources = sources
        self._queries = queries
        self._pages: dict[tuple[str, ...], tuple[float, RunPage]] = {}

    def routes(self) -> list[Route]:
        """The routes of the endpoints."""
        return [
            Route("/runs", self.runs),
            Route("/runs/{uuid:any}", self.run),
            Route("/api/v1/runs", self.runs_as_json),
            Route("/api/v1/runs/{uuid:any}", self.run_as_json),
        ]

    async def runs(self, request: Request) -> Response:
        """Running and waiting tasks, oldest first."""
        given = {name: request.query_params.get(name, "") for name in FIELDS}
        if given["state"] in ENDED:
            return await self._ended(request, given)
        number = page_number(given["page"])
        run_filter = RunFilter(
            state=_state(given["state"]),
            matches_name=matcher(given["q"]) if given["q"].strip() else None,
            queue=stored_text(given["queue"]) or None,
            hostname=stored_text(given["worker"]) or None,
            offset=(number - 1) * PER_PAGE,
            limit=PER_PAGE,
        )
        view = self._sources.tasks()
        found = await self._page(tuple(given.values()), view, run_filter)
        total = sum(found.counts.values())
        counts = {name: total if (state := _state(name)) is None else found.counts.get(state, 0) for name in STATES}
        now = self._sources.clock.now()
        return page(
            request,
            self._sources,
            "runs.html",
            runs=[views.run(one, now) for one in found.runs],
            total=found.total,
            given=given,
            states=STATES,
            ended=ENDED,
            counts=counts,
            live=view.live,
            number=number,
            pages=max(1, -(-found.total // PER_PAGE)),
            refresh=True,
        )

    async def _ended(self, request: Request, given: dict[str, str]) -> Response:
        """Ended runs, newest first unless another order is requested.

        Links to other pages refer to the same state of the list, although more tasks end meanwhile.
        """
        number, by = page_number(given["page"]), order(given["sort"], COLUMNS)
        newest = _whole_number(request.query_params.get("newest", ""))
        run_filter = EndedFilter(
            matches_name=matcher(given["q"]) if given["q"].strip() else None,
            stage=OUTCOMES[given["state"]],
            queue=stored_text(given["queue"]) or None,
            hostname=stored_text(given["worker"]) or None,
            sort=by.column.name,
            descending=by.down,
            newest=newest,
            offset=(number - 1) * PER_PAGE,
            limit=PER_PAGE,
        )
        reader, now = self._sources.reader, self._sources.clock.now()
        found = await self._queries.shared(("ended", newest, *given.values()), partial(reader.ended_runs, run_filter))
        return page(
            request,
            self._sources,
            "ended.html",
            runs=[views.run(one, now) for one in found.runs],
            total=found.total,
            searched=ENDED_SEARCHED,
            since=views.time(await self._queries(reader.ended_since)),
            given=given,
            columns=by.heads(COLUMNS),
            states=STATES,
            ended=ENDED,
            number=number,
            newest=str(found.newest),
            held=newest is not None,
            pages=max(1, -(-found.total // PER_PAGE)),
            refresh=number == 1 and newest is None,
        )

    async def _page(self, key: tuple[str, ...], view: TaskView, run_filter: RunFilter) -> RunPage:
        """The page of a list, queried at most once a second for all viewers."""
        now = self._sources.clock.monotonic()
        self._pages = {each: one for each, one in self._pages.items() if now - one[0] < SHARED_FOR}
        if key not in self._pages:
            self._pages[key] = now, await self._queries.shared(("runs", *key), partial(view.page, run_filter))
        return self._pages[key][1]

    async def run(self, request: Request) -> Response:
        """A task by its ID."""
        uuid = request.path_params["uuid"]
        found = await self._queries(partial(self._find, uuid))
        if found is None:
            if (spelled := await self._queries(partial(find_task_id, self._sources, uuid))) is not None:
                return RedirectResponse(f"{root(request)}runs/{path(spelled)}", 303)
            since = await self._queries(self._sources.reader.ended_since)
            return page(
                request,
                self._sources,
                "no_run.html",
                HTTPStatus.NOT_FOUND,
                uuid=uuid,
                since=views.time(since),
                retention=self._sources.retention,
            )
        now = self._sources.clock.now()
        return page(
            request,
            self._sources,
            "run.html",
            uuid=uuid,
            runs=[views.run(one, now) for one in found.runs],
            ancestors=[(one, run and views.run(run, now)) for one, run in found.ancestors],
            whole=found.whole,
            children=[views.run(one, now) for one in found.children],
            more_children=len(found.children) >= CHILDREN,
            failures=[views.failure(one) for one in found.failures],
            live=self._sources.tasks().live,
            refresh=any(one.ended_at == 0 for one in found.runs),
        )

    async def runs_as_json(self, request: Request) -> Response:
        """The list as JSON."""
        known = ("limit", "cursor", "task", "state", "queue", "worker")
        query = Parameters(request, known, now=self._sources.clock.now())
        state = query.choice("state", (*LISTED, *OUTCOMES))
        if state is not None and state in OUTCOMES:
            found, end = await self._ended_page(query, OUTCOMES[state])
            position: tuple[int, ...] = (end, found.newest)
        else:
            found, end = await self._unfinished_page(query, None if state is None else RunState(state))
            position = (end,)
        now = self._sources.clock.now()
        return answer(
            {
                "items": [views.run(one, now) for one in found.runs],
                "next": paging.cursor(position) if end < found.total else None,
            }
        )

    async def _unfinished_page(self, query: Parameters, state: RunState | None) -> tuple[RunPage, int]:
        """Tasks under way, and the offset of the next page."""
        limit, cursor, name = query.limit(), query.cursor(), query.name("task")
        run_filter = RunFilter(
            state=state,
            matches_name=None if name is None else name.__eq__,
            queue=query.name("queue"),
            hostname=query.name("worker"),
            offset=0 if cursor is None else paging.position(cursor, tuple[_Offset])[0],
            limit=limit,
        )
        return await self._queries(partial(self._sources.tasks().page, run_filter)), run_filter.offset + limit

    async def _ended_page(self, query: Parameters, stage: Stage | None) -> tuple[RunPage, int]:
        """The same for ended runs. The cursor refers to the same state of the list, though more tasks end meanwhile."""
        limit, cursor, name = query.limit(), query.cursor(), query.name("task")
        position = None if cursor is None else paging.position(cursor, tuple[_Offset, _Number])
        offset, newest = position or (0, None)
        run_filter = EndedFilter(
            matches_name=None if name is None else name.__eq__,
            stage=stage,
            queue=query.name("queue"),
            hostname=query.name("worker"),
            newest=newest,
            offset=offset,
            limit=limit,
        )
        return await self._queries(partial(self._sources.reader.ended_runs, run_filter)), offset + limit

    async def run_as_json(self, request: Request) -> Response:
        """A task by its ID as JSON."""
        uuid = request.path_params["uuid"]
        Parameters(request, (), now=self._sources.clock.now())
        found = await self._queries(partial(self._find, uuid)) if uuid else None
        if found is None:
            raise HTTPException(404, unknown(self._sources.retention))
        now = self._sources.clock.now()
        return answer(
            {
                "uuid": uuid,
                "runs": [views.run(one, now) for one in found.runs],
                "ancestors": [
                    {"uuid": one, "task": run and run.name, "state": run and state_of_run(run, now)}
                    for one, run in found.ancestors
                ],
                "children": [views.run(one, now) for one in found.children],
                "failures": [views.failure(one) for one in found.failures],
            }
        )

    def _find(self, uuid: str) -> TaskOverview | None:
        """Find the task in memory and in the store."""
        runs, failures = self._runs(uuid), self._sources.reader.failure(stored_text(uuid))
        if not runs and not failures:
            return None
        ancestors, whole = self._ancestors(uuid, runs[0]) if runs else ([], True)
        stored = self._sources.reader.sent_by(uuid, CHILDREN)
        children = _merged(self._sources.tasks().children(uuid), stored)[:CHILDREN]
        return TaskOverview(runs, ancestors, whole, children, failures)

    def _runs(self, uuid: str) -> list[TaskRun]:
        return _merged(self._sources.tasks().find(uuid), self._sources.reader.ended(uuid))

    def _ancestors(self, uuid: str, run: TaskRun) -> tuple[list[tuple[str, TaskRun | None]], bool]:
        """The ancestors from the root to the parent, and whether they are complete."""
        found: list[tuple[str, TaskRun | None]] = []
        seen, root, parent = {uuid}, run.root, run.parent
        while parent is not None and parent not in seen and len(found) < ANCESTORS:
            seen.add(parent)
            of_parent = self._runs(parent)
            found.insert(0, (parent, of_parent[0] if of_parent else None))
            parent = of_parent[0].parent if of_parent else None
        whole = root is None or root in seen
        if root is not None and not whole:
            of_root = self._runs(root)
            found.insert(0, (root, of_root[0] if of_root else None))
        return found, whole


def knows(sources: Sources, uuid: str) -> bool:
    """Whether anything is known about a task ID. Queries the store."""
    return bool(sources.tasks().find(uuid) or sources.reader.ended(uuid) or sources.reader.failure(stored_text(uuid)))


def find_task_id(sources: Sources, text: str) -> str | None:
    """The known task ID that a text means; None if there is none. Queries the store."""
    return next((uuid for uuid in ids_in(text) if knows(sources, uuid)), None)


def unknown(retention: float) -> str:
    """Message for an unknown task ID, with the possible reasons."""
    return (
        "nothing is known about this task ID: the task was never seen, belongs to another fleet, is no longer among "
        f"the newest ended tasks (tracking.max_ended_tasks), or failed more than {days(retention)} ago"
    )


def _merged(live: Sequence[TaskRun], stored: Sequence[TaskRun]) -> list[TaskRun]:
    """Runs from memory and from the store without duplicates: ended runs are soon in both."""
    known = {(run.uuid, run.hostname, run.ended_at) for run in live}
    return [*live, *(run for run in stored if (run.uuid, run.hostname, run.ended_at) not in known)]


def _whole_number(text: str) -> int | None:
    """A number of at most 63 bits; None if the text is not one."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(_MOST)) else _MOST + 1
    return number if number <= _MOST else None


def _state(value: str) -> RunState | None:
    """The state that the page's field selects; running if the value is unknown."""
    if value == ALL:
        return None
    return RunState(value) if value in LISTED else RunState.RUNNING
