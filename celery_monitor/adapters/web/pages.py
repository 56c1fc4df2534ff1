"""The page: what is counted and stored, for people. Plain HTML: no scripts, nothing from elsewhere."""

from collections.abc import Awaitable, Callable
from functools import cache, partial
from http import HTTPStatus
from importlib.metadata import version
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from celery_monitor.adapters.web import filters, incidents, views
from celery_monitor.adapters.web.api import ERRORS_SINCE, FAILURE_FILTERS, current, failures
from celery_monitor.adapters.web.guard import CONTENT_SECURITY_POLICY
from celery_monitor.adapters.web.overview import overview
from celery_monitor.adapters.web.parameters import FIRST_DAY, ONE_DAY, Parameters, day, sealed, today
from celery_monitor.adapters.web.queries import Queries
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.core.model import IncidentRow
from celery_monitor.ports import FailureFilter

_REPORT_POLICY: Final = CONTENT_SECURITY_POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
"""A report is the mail's, whose styles are inside of it, as mail programs want it."""
REFRESH_SECONDS: Final = 30
"""Of pages that people leave open; none of them has a form."""
_RECENT: Final = 20
_HOUR: Final = "max-age=3600"


class Pages:
    """The endpoints of the page."""

    def __init__(self, sources: Sources, queries: Queries) -> None:
        self._sources = sources
        self._queries = queries

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/", self.overview),
            Route("/tasks", _redirect("./")),
            Route("/tasks/{name:path}", self.task),
            Route("/failures", self.failures),
            Route("/failures/{uuid:path}", self.failure),
            Route("/incidents", self.incidents),
            Route("/incidents/{key:path}", self.incident),
            Route("/workers", self.workers),
            Route("/reports", _redirect("reports/today")),
            Route("/reports/{date}", self.report),
            Route("/style.css", _asset("style.css", "text/css")),
            Route("/icon.svg", _asset("icon.svg", "image/svg+xml")),
        ]

    async def overview(self, request: Request) -> Response:
        """The fleet at a glance, and its tasks."""
        query = self._query(request, "cursor")
        summary = await self._queries(partial(overview, self._sources, None))
        limit, cursor = query.limit(), query.cursor()
        reader = self._sources.reader
        rows = await self._queries(partial(reader.tasks, since=None, limit=limit + 1, cursor=cursor, name=None))
        more = f"{rows[limit - 1].name}\0{rows[limit - 1].queue}" if len(rows) > limit else None
        tasks = [views.task(row) for row in rows[:limit]]
        refresh = None if cursor else REFRESH_SECONDS
        return self._page(
            request,
            "overview.html",
            summary=summary,
            channels={channel.name: channel for channel in self._sources.channels},
            tasks=tasks,
            next=sealed(more),
            refresh=refresh,
        )

    async def task(self, request: Request) -> Response:
        """One task."""
        name, reader, now = request.path_params["name"], self._sources.reader, self._sources.clock.now()
        rows = await self._queries(partial(reader.tasks, since=None, limit=1000, cursor=None, name=name))
        if not rows:
            raise HTTPException(404, "Unknown task.")
        groups = await self._queries(partial(reader.groups, now - ERRORS_SINCE, now, name=name))
        recent, _ = await self._queries(partial(reader.failures, FailureFilter(task=name, limit=_RECENT)))
        return self._page(
            request,
            "task.html",
            name=name,
            totals=views.totals(rows),
            queues=[views.task(row) for row in rows],
            errors=[views.error(row) for row in groups],
            failures=[views.failure(one) for one in recent],
        )

    async def failures(self, request: Request) -> Response:
        """Failures, by the filters of a form."""
        query = self._query(request, "cursor", *FAILURE_FILTERS)
        found, more = await failures(self._queries, self._sources.reader, query)
        filters = {name: query.text(name) or "" for name in FAILURE_FILTERS}
        rows = [views.failure(one) for one in found]
        return self._page(request, "failures.html", failures=rows, next=sealed(more), filters=filters)

    async def failure(self, request: Request) -> Response:
        """The failures of one task id."""
        uuid = request.path_params["uuid"]
        found = await self._queries(partial(self._sources.reader.failure, uuid))
        if not found:
            raise HTTPException(404, "No failure is stored for this task ID.")
        return self._page(request, "failure.html", uuid=uuid, failures=[views.failure_in_full(one) for one in found])

    async def incidents(self, request: Request) -> Response:
        """Incidents, newest first."""
        query = self._query(request, "cursor", *incidents.FILTERS)
        wanted = incidents.wanted(query)
        found, more = await self._queries(partial(incidents.page, self._sources.reader, wanted))
        rows = [_told(views.incident(row), row) for row in found]
        filters = {name: query.text(name) or "" for name in incidents.FILTERS}
        more = sealed(more)
        return self._page(request, "incidents.html", incidents=rows, next=more, filters=filters, pages=self._pages)

    async def incident(self, request: Request) -> Response:
        """One incident: what failed, how often, and who was told."""
        key = request.path_params["key"]
        found = await self._queries(partial(incidents.find, self._sources.reader, key))
        if found is None:
            text = incidents.unknown(self._sources.retention)
            raise HTTPException(404, f"{text[0].upper()}{text[1:]}.")
        one = _told(views.incident_in_full(*found), found[0])
        return self._page(request, "incident.html", one=one, pages=self._pages)

    @property
    def _pages(self) -> bool:
        """Whether incidents are sent to anybody."""
        return any(channel.configured for channel in self._sources.channels if channel.incidents)

    async def workers(self, request: Request) -> Response:
        """Workers and queues, as of now."""
        known = sorted(current(self._sources.snapshot).workers, key=lambda one: (one.up, one.hostname))
        return self._page(
            request,
            "workers.html",
            workers=[views.worker(one) for one in known],
            queues=[views.queue(one) for one in self._sources.queues()],
            refresh=REFRESH_SECONDS,
        )

    async def report(self, request: Request) -> Response:
        """A day, as in the mail, and the days beside it."""
        now, zone = self._sources.clock.now(), self._sources.zone
        date, last = day(request.path_params["date"], now=now, zone=zone), today(now, zone)
        report, part = self._sources.report, self._sources.report_part
        response = self._page(
            request,
            "report.html",
            date=date,
            part=Markup(await self._queries(lambda: part(report(date, now), root(request)))),  # noqa: S704 - the mail escapes
            before=date - ONE_DAY if date > FIRST_DAY else None,
            after=date + ONE_DAY if date < last else None,
            here={last: "/reports/today", last - ONE_DAY: "/reports/yesterday"}.get(date, ""),
        )
        response.headers["content-security-policy"] = _REPORT_POLICY
        return response

    def refusal(self, request: Request, status: int, text: str) -> Response:
        """An error as a page. What the store cannot tell now is asked again."""
        refresh = REFRESH_SECONDS if status == HTTPStatus.SERVICE_UNAVAILABLE else None
        response = self._page(request, "error.html", code=status, text=text, refresh=refresh)
        response.status_code = status
        return response

    def _query(self, request: Request, *known: str) -> Parameters:
        # Mail and chat programs add parameters of their own to the links that people follow.
        return Parameters(request, known, now=self._sources.clock.now(), strict=False)

    def _page(self, request: Request, template: str, **values: Any) -> Response:  # noqa: ANN401 - of any template
        common = {
            "fleet": self._sources.fleet,
            "now": views.time(self._sources.clock.now()),
            "here": request.scope["path"],
            "root": root(request),
            "health": views.health(self._sources.readyz()),
            "refresh": None,
        }
        return HTMLResponse(_templates().get_template(template).render(common | values))


def _told(view: views.Json, row: IncidentRow) -> views.Json:
    """An incident with what the page says in words."""
    return view | {"said": incidents.last_failure(row.incident), "failures": incidents.failures_of(row.incident)}


def root(request: Request) -> str:
    """The way from this address to the overview.

    All links begin with it: a proxy that people come through may have the site under a path that the proxy strips.
    """
    return "../" * (request.scope["raw_path"].count(b"/") - 1) or "./"


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("celery_monitor.adapters.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["version"] = version("celery-monitor")
    environment.filters |= {
        "number": filters.number,
        "percent": filters.percent,
        "seconds": filters.seconds,
        "time": filters.time,
        "path": filters.path,
        "words": filters.words,
        "breakable": filters.with_break_points,
        "ago": filters.ago,
        "reason": filters.reason,
    }
    return environment


def _redirect(path: str) -> Callable[[Request], Awaitable[Response]]:
    async def redirect(_: Request) -> Response:
        return RedirectResponse(path)

    return redirect


def _asset(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def asset(_: Request) -> Response:
        return Response(_content(name), media_type=media_type, headers={"cache-control": _HOUR})

    return asset


@cache
def _content(name: str) -> bytes:
    return files("celery_monitor.adapters.web").joinpath("static", name).read_bytes()
