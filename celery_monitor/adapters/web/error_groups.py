"""Error groups of all tasks, by place in the code or by exception, as a page and as JSON."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from celery_monitor.adapters.web import views
from celery_monitor.adapters.web.api import answer
from celery_monitor.adapters.web.filters import address
from celery_monitor.adapters.web.parameters import ParameterError, Parameters, stored_text
from celery_monitor.adapters.web.queries import Queries
from celery_monitor.adapters.web.render import page
from celery_monitor.adapters.web.search import matcher, suggestions
from celery_monitor.adapters.web.sorting import Order, SortColumn, numbered, order
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.core import paging
from celery_monitor.core.model import BUCKET_SECONDS, GroupRow
from celery_monitor.settings.units import DAY

FIELDS: Final = ("task", "exception", "since", "until", "state", "by", "sort", "page")
FILTERS: Final = ("task", "exception", "since", "until")
PER_PAGE: Final = 50
TASKS: Final = 3
"""Number of tasks that the list names for each exception."""
LISTED: Final = 100
"""Number of names that a field suggests."""
BY: Final = {"": "By place in the code", "exception": "By exception"}
STATES: Final = {"": "All", "new": "New"}
NEW_FOR: Final = DAY
"""Seconds for which an error group is new. In this time after counting began, no group is new."""


@dataclass(frozen=True, slots=True)
class ExceptionRow:
    """An exception class with the failures of all its tasks."""

    exception: str
    count: int
    first_at: float
    last_at: float
    tasks: Sequence[tuple[str, int]]
    """(task name, failures), most failures first."""


Row = TypeVar("Row", GroupRow, ExceptionRow)

_COUNTED: Final = SortColumn("failures", "Failures", lambda row: row.count, numeric=True)
_EXCEPTION: Final = SortColumn("exception", "Exception", lambda row: row.exception.rpartition(".")[2], down=False)
_TIMES: Final = (
    SortColumn("first", "First seen", lambda row: row.first_at),
    SortColumn("last", "Last seen", lambda row: row.last_at),
)
GROUP_COLUMNS: Final = (_EXCEPTION, SortColumn("task", "Task", lambda row: row.name, down=False), _COUNTED, *_TIMES)
EXCEPTION_COLUMNS: Final = (_EXCEPTION, SortColumn("tasks", "Tasks", lambda row: len(row.tasks)), _COUNTED, *_TIMES)
_DEFAULT: Final = _COUNTED.name


@dataclass(frozen=True, slots=True)
class _Period:
    since: float
    until: float


class ErrorPages:
    """The endpoints."""

    def __init__(self, sources: Sources, queries: Queries) -> None:
        self._sources = sources
        self._queries = queries

    def routes(self) -> list[Route]:
        """The routes of the endpoints."""
        return [Route("/errors", self.errors), Route("/api/v1/errors", self.errors_as_json)]

    async def errors(self, request: Request) -> Response:
        """Error groups with failures in the period, or their exception classes, filtered by a form."""
        given = {name: request.query_params.get(name, "") for name in FIELDS}
        columns = EXCEPTION_COLUMNS if given["by"] == "exception" else GROUP_COLUMNS
        ordering = order(given["sort"] or _DEFAULT, columns)
        groups: Sequence[GroupRow] = ()
        problem: ParameterError | None = None
        period = self._period(None, None)
        new_since = math.inf
        try:
            query = Parameters(request, FIELDS, now=self._sources.clock.now(), strict=False)
            period = self._period(*query.span())
            groups = await self._groups(period)
            new_since = await self._new_since(period)
        except ParameterError as exc:
            problem = exc
        names, kinds = sorted({row.name for row in groups}), sorted({row.exception for row in groups})
        matching = [*filter(_filter(given, new_since), groups)]
        values = (
            _part([*_by_exception(matching)], ordering, given, partial(_exception_view, given))
            if given["by"] == "exception"
            else await self._sampled(_part(matching, ordering, given, lambda row: row), period, new_since)
        )
        field, _, message = str(problem).partition(": ") if problem else ("", "", "")
        return page(
            request,
            self._sources,
            "errors.html",
            400 if problem else 200,
            **values,
            given=given,
            columns=ordering.heads(columns),
            choices=BY,
            states=STATES,
            since=views.time(period.since),
            until=views.time(period.until) if given["until"] else None,
            wrong={field: message} if field in given else {},
            problem=str(problem) if problem and field not in given else "",
            offered={"task": names[:LISTED], "exception": kinds[:LISTED]},
            suggested=suggestions(given["task"], names) if given["task"] and not values["rows"] else [],
        )

    async def errors_as_json(self, request: Request) -> Response:
        """Error groups with failures in the period, most failures first."""
        query = Parameters(request, ("limit", "cursor", *FILTERS), now=self._sources.clock.now())
        period, task, exception = self._period(*query.span()), query.name("task"), query.name("exception")
        limit, cursor = query.limit(), query.cursor()
        after = None if cursor is None else paging.position(cursor, tuple[int, float, str])
        rows = sorted(
            (
                row
                for row in await self._groups(period)
                if task in {None, row.name} and (exception is None or _is_called(row.exception, exception))
            ),
            key=_position,
        )
        rows = [row for row in rows if after is None or _position(row) > after]
        visible = paging.page(rows[: limit + 1], limit, _position)
        items = await self._with_samples(visible.rows, period)
        return answer({"items": [views.error(row) for row in items], "next": visible.next})

    def _period(self, since: float | None, until: float | None) -> _Period:
        """The period, extended to the start of a quarter of an hour, because failures are counted by quarters."""
        now = self._sources.clock.now()
        begin = (until or now) - DAY if since is None else since
        return _Period(begin // BUCKET_SECONDS * BUCKET_SECONDS, now if until is None else until)

    async def _groups(self, period: _Period) -> list[GroupRow]:
        """All groups without samples, which are queried later for the visible page only."""
        return await self._queries(partial(self._sources.reader.groups, period.since, period.until, samples=0))

    async def _new_since(self, period: _Period) -> float:
        """A group is new at the end of the period if its first failure is after this time; infinite without counts."""
        began = await self._queries(self._sources.reader.counted_since)
        end = min(period.until, self._sources.clock.now())
        return math.inf if began is None else max(began + NEW_FOR, end - NEW_FOR)

    async def _sampled(self, values: Mapping[str, Any], period: _Period, new_since: float) -> dict[str, Any]:
        rows = await self._with_samples(values["rows"], period)
        return {**values, "rows": [_group_view(row, new_since) for row in rows]}

    async def _with_samples(self, rows: Sequence[GroupRow], period: _Period) -> list[GroupRow]:
        ids = [row.id for row in rows]
        samples = await self._queries(partial(self._sources.reader.samples, ids, period.since, period.until))
        return [replace(row, sample=samples.get(row.id)) for row in rows]


def _position(row: GroupRow) -> tuple[int, float, str]:
    return -row.count, -row.last_at, row.id


def _is_called(exception: str, name: str) -> bool:
    """Whether a class has this short or full name."""
    return exception == name or exception.endswith(f".{name}")


def _filter(given: Mapping[str, str], new_since: float) -> Callable[[GroupRow], bool]:
    """A predicate for the form's filters: a text matches equal names and names that contain it."""
    task, exception, new = stored_text(given["task"]), stored_text(given["exception"]), given["state"] == "new"
    in_task, in_exception = matcher(task), matcher(exception)

    def matches(row: GroupRow) -> bool:
        return (
            (not task or task == row.name or in_task(row.name))
            and (not exception or _is_called(row.exception, exception) or in_exception(row.exception))
            and (not new or row.first_at >= new_since)
        )

    return matches


def _by_exception(groups: Sequence[GroupRow]) -> Sequence[ExceptionRow]:
    """The groups merged by exception class."""
    by_class: dict[str, list[GroupRow]] = {}
    for row in groups:
        by_class.setdefault(row.exception, []).append(row)
    found = []
    for exception, rows in by_class.items():
        tasks = Counter[str]()
        for row in rows:
            tasks[row.name] += row.count
        first_at, last_at = min(row.first_at for row in rows), max(row.last_at for row in rows)
        found.append(ExceptionRow(exception, tasks.total(), first_at, last_at, tasks.most_common()))
    return found


def _part(
    rows: Sequence[Row], ordering: Order, given: Mapping[str, str], view: Callable[[Row], object]
) -> dict[str, Any]:
    """The template values for one page of rows."""
    ordered = sorted(rows, key=lambda row: (-row.count, row.exception))
    ordered.sort(key=ordering.column.key, reverse=ordering.down)
    number, pages = numbered(given["page"], len(ordered), PER_PAGE)
    shown = ordered[(number - 1) * PER_PAGE : number * PER_PAGE]
    return {"rows": [view(row) for row in shown], "total": len(ordered), "number": number, "pages": pages}


def _group_view(row: GroupRow, new_since: float) -> views.Json:
    short = row.exception.rpartition(".")[2]
    return views.error(row) | {
        "new": row.first_at >= new_since,
        "failures": address("failures", task=row.name, exception=short),
        "incidents": address("incidents", task=row.name, exception=short),
    }


def _exception_view(given: Mapping[str, str], row: ExceptionRow) -> views.Json:
    since_until = {name: given[name] or None for name in ("since", "until")}
    return {
        "exception": row.exception,
        "groups": address("errors", exception=row.exception, task=given["task"] or None, **since_until),
        "failures": address("failures", exception=row.exception.rpartition(".")[2]),
        "incidents": address("incidents", exception=row.exception.rpartition(".")[2]),
        "count": row.count,
        "first_at": views.time(row.first_at),
        "last_at": views.time(row.last_at),
        "tasks": [name for name, _ in row.tasks[:TASKS]],
        "more": max(0, len(row.tasks) - TASKS),
    }
