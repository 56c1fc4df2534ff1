"""Lists with a filter form: tasks, failures and incidents. The address contains all filters."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from celery_monitor.adapters.web import incidents, trends, views
from celery_monitor.adapters.web.filters import path
from celery_monitor.adapters.web.parameters import ParameterError, Parameters
from celery_monitor.adapters.web.queries import Queries
from celery_monitor.adapters.web.render import page
from celery_monitor.adapters.web.runs import find_task_id
from celery_monitor.adapters.web.search import MAX_NAMES, find, is_uuid, suggestions
from celery_monitor.adapters.web.sorting import SortColumn, numbered, order
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.core.model import FAILED, RETRIED, SUCCEEDED, Condition, Failure, IncidentRow, IncidentState
from celery_monitor.core.paging import Page
from celery_monitor.errors import InvalidCursorError
from celery_monitor.ports import FailureFilter, Reader, TaskRow
from celery_monitor.settings.units import DAY

FAILURE_FIELDS: Final = ("task", "exception", "message", "since", "until", "sort")
INCIDENT_FIELDS: Final = ("task", "exception", "state", "key", "condition", "since", "until", "sort", "page")
TASK_FIELDS: Final = ("q", "state", "sort", "page")
PER_PAGE: Final = 50
MAX_TASKS: Final = 20_000
"""Maximum number of (task, queue) rows that a list reads: usually more than metrics.max_task_names allows."""
MAX_INCIDENTS: Final = 3_000
"""Maximum number of incidents that are read for a page filtered by task or exception."""
LISTED: Final = 100
"""Number of names that a field suggests."""
STATES: Final = {"": "All", "failing": "Failed in the last 24 h", "failed": "Ever failed", "clean": "Never failed"}


_Wrong = ParameterError | InvalidCursorError


def _executed(row: TaskRow) -> int:
    return row.counts[SUCCEEDED] + row.counts[FAILED]


def _rate(row: TaskRow) -> float:
    return row.counts[FAILED] / _executed(row) if _executed(row) else -1.0


TASK_COLUMNS: Final = (
    SortColumn("name", "Task", lambda row: (row.name, row.queue), down=False),
    SortColumn("executed", "Executed", _executed, numeric=True),
    SortColumn("failed", "Failed", lambda row: row.counts[FAILED], numeric=True),
    SortColumn("rate", "Rate", _rate, numeric=True),
    SortColumn("retried", "Retried", lambda row: row.counts[RETRIED], numeric=True),
    SortColumn(
        "runtime",
        "Mean run",
        lambda row: row.runtime_sum / row.runtime_count if row.runtime_count else -1.0,
        numeric=True,
    ),
    SortColumn("last", "Last failure", lambda row: row.last_failure_at or 0.0),
)
FAILURE_COLUMNS: Final = (
    SortColumn("at", "When"),
    SortColumn("name", "Task", down=False),
    SortColumn("exception", "Exception", down=False),
    SortColumn("hostname", "Worker", down=False),
    SortColumn("reason", "Incident", down=False),
    SortColumn("uuid", "Task ID", down=False),
)
"""Columns of the list of failures; names as in FailureFilter.sort."""


class Listings:
    """The endpoints."""

    def __init__(self, sources: Sources, queries: Queries) -> None:
        self._sources = sources
        self._queries = queries

    def routes(self) -> list[Route]:
        """The routes of the endpoints."""
        return [
            Route("/tasks", self.tasks),
            Route("/failures", self.failures),
            Route("/incidents", self.incidents),
        ]

    async def tasks(self, request: Request) -> Response:
        """All tasks, filtered by a part of their names and sorted by any column."""
        form_values = _form_values(request, TASK_FIELDS)
        reader, now = self._sources.reader, self._sources.clock.now()
        page_of_tasks = await self._queries(partial(reader.tasks, limit=MAX_TASKS))
        all_rows = page_of_tasks.rows
        names = sorted({row.name for row in all_rows})
        matching_names = set(find(form_values["q"], names)) if form_values["q"] else None
        if matching_names is not None and len(matching_names) == 1 and form_values["q"] in matching_names:
            # The full name was typed: go to its page.
            return RedirectResponse(f"tasks/{path(form_values['q'])}", 303)
        if (
            form_values["q"].strip()
            and not matching_names
            and (uuid := await self._id_in(form_values["q"])) is not None
        ):
            return RedirectResponse(f"runs/{path(uuid)}", 303)
        rows = [row for row in all_rows if matching_names is None or row.name in matching_names]
        rows = [row for row in rows if _is_in(row, form_values["state"], now)]
        ordering = order(form_values["sort"], TASK_COLUMNS)
        rows.sort(key=lambda row: (row.name, row.queue))
        rows.sort(key=ordering.column.key, reverse=ordering.down)
        number, pages = numbered(form_values["page"], len(rows), PER_PAGE)
        part = rows[(number - 1) * PER_PAGE : number * PER_PAGE]
        sparklines = await self._queries(partial(trends.sparklines, reader, sorted({row.name for row in part}), now))
        return page(
            request,
            self._sources,
            "tasks.html",
            tasks=[views.task(row) for row in part],
            sparklines=sparklines,
            total=len(rows),
            known=len(all_rows),
            given=form_values,
            columns=ordering.heads(TASK_COLUMNS),
            states=STATES,
            number=number,
            pages=pages,
            suggested=suggestions(form_values["q"], names) if form_values["q"] and not rows else [],
            retention=self._sources.retention,
        )

    async def _id_in(self, text: str) -> str | None:
        """The typed task ID: a known one or any UUID; the page of an unknown UUID gives the possible reasons."""
        task_id: str | None = await self._queries(partial(find_task_id, self._sources, text))
        return text.strip() if task_id is None and is_uuid(text) else task_id

    async def failures(self, request: Request) -> Response:
        """Failures, filtered by a form."""
        form_values = _form_values(request, FAILURE_FIELDS)
        ordering = order(form_values["sort"], FAILURE_COLUMNS)
        names, kinds = await self._queries(partial(_names, self._sources.reader))
        page_shown: Page[Failure] = Page(())
        problem: _Wrong | None = None
        try:
            query = self._parameters(request, "cursor", *FAILURE_FIELDS)
            criteria = replace(_filter_of(query, names, kinds), sort=ordering.column.name, descending=ordering.down)
            page_shown = await self._queries(partial(self._sources.reader.failures, criteria))
        except (ParameterError, InvalidCursorError) as exc:
            problem = exc
        return self._list(
            request,
            "failures.html",
            problem,
            failures=[views.failure(failure) for failure in page_shown.rows],
            next=page_shown.next,
            columns=ordering.heads(FAILURE_COLUMNS),
            form_values=form_values,
            names=names,
            kinds=kinds,
            found=bool(page_shown.rows),
        )

    async def incidents(self, request: Request) -> Response:
        """Incidents, newest first, filtered by a form."""
        form_values = _form_values(request, INCIDENT_FIELDS)
        ordering = order(form_values["sort"], incidents.COLUMNS)
        number, pages = 0, 0
        names, kinds = await self._queries(partial(_names, self._sources.reader))
        page_shown: Page[IncidentRow] = Page(())
        problem: _Wrong | None = None
        try:
            criteria = incidents.filter_of(self._parameters(request, "cursor", *INCIDENT_FIELDS), names, kinds)
            criteria = replace(criteria, limit=PER_PAGE)
            if incidents.is_default(ordering):
                page_shown = await self._queries(partial(incidents.page, self._sources.reader, criteria, MAX_INCIDENTS))
            else:
                find_all = partial(
                    incidents.in_order, self._sources.reader, criteria, ordering, form_values["page"], MAX_INCIDENTS
                )
                page_shown, number, pages = await self._queries(find_all)
        except (ParameterError, InvalidCursorError) as exc:
            problem = exc
        return self._list(
            request,
            "incidents.html",
            problem,
            incidents=[incidents.list_item(row) for row in page_shown.rows],
            next=page_shown.next,
            number=number,
            pages=pages,
            most=MAX_INCIDENTS,
            columns=ordering.heads(incidents.COLUMNS),
            form_values=form_values,
            names=names,
            kinds=kinds,
            found=bool(page_shown.rows),
            states=sorted(IncidentState, key=lambda state: state is not IncidentState.OPEN),
            conditions=Condition,
            sending=incidents.are_sent(self._sources.channels),
        )

    def _parameters(self, request: Request, *names: str) -> Parameters:
        # Not strict, because mail and chat programs add their own parameters to links.
        return Parameters(request, names, now=self._sources.clock.now(), strict=False)

    def _list(
        self,
        request: Request,
        template: str,
        problem: _Wrong | None,
        *,
        form_values: Mapping[str, str],
        names: Sequence[str],
        kinds: Sequence[str],
        found: bool,
        **values: Any,  # noqa: ANN401 - of any template
    ) -> Response:
        """A page whose form keeps its values, with an error next to its field."""
        field, _, message = str(problem).partition(": ") if problem else ("", "", "")
        suggested = [] if found or not form_values["task"] else suggestions(form_values["task"], names)
        return page(
            request,
            self._sources,
            template,
            400 if problem else 200,
            given=form_values,
            wrong={field: message} if field in form_values else {},
            problem=str(problem) if problem and field not in form_values else "",
            offered={"task": names[:LISTED], "exception": kinds[:LISTED]},
            suggested=suggested,
            **values,
        )


def _form_values(request: Request, fields: Sequence[str]) -> dict[str, str]:
    """The form values, unchanged."""
    return {name: request.query_params.get(name, "") for name in fields}


def _names(reader: Reader) -> tuple[list[str], list[str]]:
    """Names of all tasks, those that failed most recently first, and the classes of all stored failures."""
    rows = reader.tasks(limit=MAX_TASKS).rows
    last = sorted(rows, key=lambda row: -(row.last_failure_at or 0.0))
    return list(dict.fromkeys(row.name for row in last)), reader.exceptions()


def _filter_of(query: Parameters, names: Sequence[str], kinds: Sequence[str]) -> FailureFilter:
    """The filter for the fields. A part of a name is replaced by the known names that contain it."""
    since, until = query.span()
    task, exception = query.name("task"), query.name("exception")
    criteria = FailureFilter(
        message=query.text("message"), since=since, until=until, limit=PER_PAGE, cursor=query.cursor()
    )
    if task is not None:
        matching = find(task, names)
        # A failure may be stored for longer than its task's counts.
        exact = len(matching) == 1 or not matching
        criteria = (
            replace(criteria, task=(matching or [task])[0]) if exact else replace(criteria, tasks=matching[:MAX_NAMES])
        )
    if exception is not None:
        matching = find(exception, kinds) or [exception]
        criteria = replace(criteria, exceptions=matching[:MAX_NAMES])
    return criteria


def _is_in(row: TaskRow, state: str, now: float) -> bool:
    match state:
        case "failing":
            return row.last_failure_at is not None and row.last_failure_at > now - DAY
        case "failed":
            return row.counts[FAILED] > 0
        case "clean":
            return row.counts[FAILED] == 0
        case _:
            return True
