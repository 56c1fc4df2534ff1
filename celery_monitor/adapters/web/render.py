"""Renders templates, with the values and filters that all pages use."""

from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from celery_monitor.adapters.web import charts, filters, views
from celery_monitor.adapters.web.compression import packed
from celery_monitor.adapters.web.fleets import fleets_of
from celery_monitor.adapters.web.people import person_of
from celery_monitor.adapters.web.policies import PAGE_POLICY
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.adapters.web.status import status

NAVIGATION: Final = (
    ("/", "Overview"),
    ("/tasks", "Tasks"),
    ("/runs", "Running"),
    ("/errors", "Errors"),
    ("/failures", "Failures"),
    ("/incidents", "Incidents"),
    ("/queues", "Queues"),
    ("/workers", "Workers"),
    ("/schedules", "Schedules"),
    ("/silences", "Silences"),
    ("/reports/today", "Reports"),
)
"""Path and name of each link in the navigation. The first part of a page's path selects the current link."""
COMPILED: Final = (
    *("base.html", "parts.html", "overview.html", "report.html"),
    *("incident.html", "incidents.html", "failure.html", "failures.html", "task.html", "tasks.html", "queue.html"),
    "queues.html",
)
"""Templates that are compiled in advance: those of most pages and of the page that a notification links to."""
REFRESH_SECONDS: Final = 10
"""Interval at which the script refreshes pages. Without script they do not refresh, as a reload would lose input."""


def page(
    request: Request,
    sources: Sources,
    template: str,
    status_code: int = 200,
    **values: Any,  # noqa: ANN401 - of any template
) -> Response:
    """Render a page. ``refresh``: the script keeps it current."""
    here = request.scope["path"]
    common = {
        "fleet": sources.fleet,
        "notice": sources.notice,
        "zone": sources.zone,
        "zone_name": str(sources.zone),
        "now": views.time(sources.clock.now()),
        "here": here,
        "section": "/" + here.removeprefix("/").partition("/")[0],  # "PRI *" has a path without any
        "root": root(request),
        "health": views.health(sources.readyz()),
        "status": status(sources),
        "person": person_of(request.scope),
        "fleets": fleets_of(request.scope),
        "refresh": False,
    }
    html = _templates().get_template(template).render(common | values)
    return packed(request, HTMLResponse(html, status_code, {"content-security-policy": PAGE_POLICY}))


def bare(request: Request, template: str, status_code: int, **values: Any) -> Response:  # noqa: ANN401 - of any template
    """Render a page without the common header and navigation."""
    html = _templates().get_template(template).render(values, root=root(request))
    return packed(request, HTMLResponse(html, status_code, {"content-security-policy": PAGE_POLICY}))


def compile_template(name: str) -> None:
    """Compile a template in advance, so that its first page is as fast as the others. Takes 20 ms."""
    _templates().get_template(name)


def root(request: Request) -> str:
    """The relative path from this address to the overview.

    All links begin with it, because a proxy may serve the site under a path that it strips.
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
    environment.globals |= {
        "version": version("celery-monitor"),
        "navigation": NAVIGATION,
        "refresh_seconds": REFRESH_SECONDS,
        "strip": charts.strip,
        "sparkline": charts.sparkline,
        "query": filters.query,
        "line": charts.line,
        "lines": charts.lines,
    }
    environment.filters |= {
        "number": filters.number,
        "percent": _non_breaking(filters.percent),
        "seconds": _non_breaking(filters.seconds),
        "time": filters.time,
        "path": filters.path,
        "words": filters.words,
        "breakable": filters.with_break_points,
        "ago": filters.ago,
        "duration": _non_breaking(filters.duration),
        "days": _non_breaking(filters.days),
        "unbroken": filters.unbroken,
        "reason": filters.reason,
    }
    return environment


def _non_breaking(write: Callable[..., str]) -> Callable[..., str]:
    return lambda *values: filters.unbroken(write(*values))
