"""The web pages. The HTML works without the script and loads nothing from other sites."""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from functools import cache, partial
from http import HTTPStatus
from importlib.resources import files
from typing import Final

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from celery_monitor.adapters.web import curves, incidents, trends
from celery_monitor.adapters.web.compression import packed
from celery_monitor.adapters.web.details import Details
from celery_monitor.adapters.web.error_groups import ErrorPages
from celery_monitor.adapters.web.listings import Listings
from celery_monitor.adapters.web.overview import overview
from celery_monitor.adapters.web.parameters import ONE_DAY, day, today
from celery_monitor.adapters.web.policies import PAGE_POLICY
from celery_monitor.adapters.web.queries import Queries
from celery_monitor.adapters.web.queues import QueuePages
from celery_monitor.adapters.web.render import COMPILED, compile_template, page, root
from celery_monitor.adapters.web.runs import Runs
from celery_monitor.adapters.web.sorting import page_number
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.adapters.web.trends import DAY_HOURS, SPANS
from celery_monitor.adapters.web.workers import WorkerPages
from celery_monitor.core.model import IncidentState
from celery_monitor.core.summary import FIRST_DAY, Summary
from celery_monitor.settings.units import DAY

_REPORT_POLICY: Final = PAGE_POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
"""A report is the HTML of the mail, which contains its styles because mail programs require that."""
_OPEN: Final = 10
"""Number of open incidents on the overview."""
_ERRORS: Final[Mapping[int, str]] = {
    400: "Invalid address",
    403: "Not allowed",
    404: "Not found",
    500: "Internal error",
    503: "Temporarily unavailable",
}
"""Status → heading."""
_NO_PAGE: Final = "There is no page at this address."
_REPORT_SHARED_FOR: Final = 5.0
"""Seconds for which a report is reused."""
_REPORTS_SHARED: Final = 4
"""Number of reports that are kept; one can have megabytes."""
COMPILE_PAUSE: Final = 0.05
"""Seconds between two templates, so that a concurrent scrape is delayed by at most one of them."""
_ASSET_AGE: Final = "max-age=3600"


class Pages:
    """The endpoints of the page."""

    def __init__(self, sources: Sources, queries: Queries) -> None:
        self._sources = sources
        self._queries = queries
        self._history = trends.FleetHistory(sources.reader)
        self._queues = QueuePages(sources, queries)
        self._summaries: dict[dt.date, tuple[float, Summary]] = {}

    def routes(self) -> list[Route]:
        """The routes of the endpoints."""
        return [
            Route("/", self.overview),
            *Listings(self._sources, self._queries).routes(),
            *Details(self._sources, self._queries).routes(),
            *ErrorPages(self._sources, self._queries).routes(),
            *Runs(self._sources, self._queries).routes(),
            *WorkerPages(self._sources, self._queries).routes(),
            *self._queues.routes(),
            Route("/reports", _redirect("reports/today")),
            Route("/reports/{date}", self.report),
            Route("/style.css", _asset("style.css", "text/css")),
            Route("/app.js", _asset("app.js", "text/javascript")),
            Route("/icon.svg", _asset("icon.svg", "image/svg+xml")),
        ]

    async def overview(self, request: Request) -> Response:
        """An overview of the fleet: failures, incidents, workers and queues."""
        reader, now = self._sources.reader, self._sources.clock.now()
        summary = await self._queries.shared("overview", partial(overview, self._sources, None))
        span = request.query_params.get("span", "")
        window = trends.window(now, SPANS.get(span, DAY_HOURS))
        rows = await self._queries.shared(window, partial(self._history.rows, window, now))
        names = [task["name"] for task in summary["worst"]]
        sparklines = await self._queries.shared(tuple(names), partial(trends.sparklines, reader, names, now))
        queues = tuple(task["name"] for task in summary["queues"])
        lengths = await self._queries.shared(
            (window, *queues), partial(curves.queue_trends, reader, queues, window, now, self._sources.zone)
        )
        find = partial(reader.incidents, limit=_OPEN, state=IncidentState.OPEN)
        incident_rows = (await self._queries(find)).rows if summary["incidents"]["open"] else ()
        return page(
            request,
            self._sources,
            "overview.html",
            summary=summary,
            channels={channel.name: channel for channel in self._sources.channels},
            trend=trends.trend(rows, window, self._sources.zone),
            span=span if span in SPANS else "24h",
            sparklines=sparklines,
            lengths=lengths,
            open=[incidents.list_item(row) for row in incident_rows],
            running=self._running(),
            refresh=True,
        )

    def _running(self) -> int | None:
        """Number of tasks that the workers report as active; None before any worker is known."""
        snapshot = self._sources.snapshot()
        return sum(one.active for one in snapshot.workers if one.up) if snapshot and snapshot.workers else None

    async def report(self, request: Request) -> Response:
        """The report of a day as in the mail, with links to the adjacent days."""
        now, zone = self._sources.clock.now(), self._sources.zone
        date, last = day(request.path_params["date"], now=now, zone=zone), today(now, zone)
        summary = await self._summary(date, now)
        number = page_number(request.query_params.get("page", ""))
        part = await self._queries(partial(self._sources.report_part, summary, root(request), number))
        response = page(
            request,
            self._sources,
            "report.html",
            date=date,
            part=Markup(part),  # noqa: S704 - the mail escapes
            before=date - ONE_DAY if date > FIRST_DAY else None,
            after=date + ONE_DAY if date < last else None,
            here={last: "/reports/today", last - ONE_DAY: "/reports/yesterday"}.get(date, ""),
        )
        response.headers["content-security-policy"] = _REPORT_POLICY
        return response

    async def _summary(self, date: dt.date, now: float) -> Summary:
        """The summary of a day. It is reused for a short time, so that all viewers and all of its pages agree."""
        at = self._sources.clock.monotonic()
        fresh = [(day, entry) for day, entry in self._summaries.items() if at - entry[0] < _REPORT_SHARED_FOR]
        self._summaries = dict(fresh[-_REPORTS_SHARED:])
        if date not in self._summaries:
            call = partial(self._sources.report, date, now)
            self._summaries[date] = at, await self._queries.shared(("report", date), call)
        return self._summaries[date][1]

    async def prepare(self) -> None:
        """Compile the templates and read the counts of earlier days for the first pages.

        Otherwise the first visitor would wait three times as long. Raises the errors of Queries.
        """
        now, zone = self._sources.clock.now(), self._sources.zone
        for name in COMPILED:
            await self._queries(partial(compile_template, name))
            await asyncio.sleep(COMPILE_PAUSE)
        await self._queries(partial(overview, self._sources, None))
        for date in (today(now, zone), today(now, zone) - ONE_DAY):
            summary = await self._queries(partial(self._sources.report, date, now))
            await self._queries(partial(self._sources.report_part, summary, "./", 1))

    async def prepare_days(self, pause: float) -> None:
        """Read the tasks' counts of earlier days, newest first, with a pause in seconds after each day.

        For a large fleet this is a third of the time of a report. Known days are only compared with the store.
        """
        now, zone = self._sources.clock.now(), self._sources.zone
        for back in range(int(self._sources.retention // DAY) + 1):
            date = today(now, zone) - back * ONE_DAY
            if date < FIRST_DAY or not await self._queries(partial(self._sources.prepare_report, date, now)):
                break
            await asyncio.sleep(pause)

    def refusal(self, request: Request, status: int, text: str) -> Response:
        """An error as a page. If the store is unavailable, the page refreshes itself."""
        refresh = status == HTTPStatus.SERVICE_UNAVAILABLE
        # Starlette's own texts are the names of the statuses, which do not help a person.
        phrase = HTTPStatus(status).phrase
        title = _ERRORS.get(status, phrase)
        sentence = _NO_PAGE if text == phrase and status == HTTPStatus.NOT_FOUND else f"{text[:1].upper()}{text[1:]}"
        sentence += "" if sentence.endswith((".", "!", "?")) else "."
        response = page(request, self._sources, "error.html", code=status, title=title, text=sentence, refresh=refresh)
        response.status_code = status
        return response


def _redirect(path: str) -> Callable[[Request], Awaitable[Response]]:
    async def redirect(_: Request) -> Response:
        return RedirectResponse(path)

    return redirect


def _asset(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def asset(request: Request) -> Response:
        return packed(request, Response(_content(name), media_type=media_type, headers={"cache-control": _ASSET_AGE}))

    return asset


@cache
def _content(name: str) -> bytes:
    return files("celery_monitor.adapters.web").joinpath("static", name).read_bytes()
