"""Pages of a task, of the failures of a task ID, and of an incident."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from msgspec import structs
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from celery_monitor.adapters.web import curves, diagnosis, incidents, trends, views
from celery_monitor.adapters.web.api import ERRORS_SINCE
from celery_monitor.adapters.web.parameters import stored_text
from celery_monitor.adapters.web.people import may_change, person_of
from celery_monitor.adapters.web.queries import Queries
from celery_monitor.adapters.web.render import page
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.adapters.web.tracebacks import blocks
from celery_monitor.adapters.web.trends import DAY_HOURS, HOUR, SPANS
from celery_monitor.core import links
from celery_monitor.core.model import BUCKET_SECONDS, Histogram, HistoryRow, Incident, IncidentRow, Snapshot
from celery_monitor.core.text import OTHER
from celery_monitor.ports import FailureFilter, Reader

_RECENT: Final = 20
_GROUPS: Final = 20
_EARLIER: Final = 8
"""Number of other incidents of the same task that are listed."""
_SEARCHED: Final = 1000
"""Number of the newest incidents that are searched for them, as there is no index on tasks."""
_TASKS: Final = 50
"""Maximum number of a storm's tasks whose runs are shown in the chart."""
QUANTILES: Final = (0.5, 0.95, 0.99)


class Details:
    """The endpoints."""

    def __init__(self, sources: Sources, queries: Queries) -> None:
        self._sources = sources
        self._queries = queries

    def routes(self) -> list[Route]:
        """The routes of the endpoints."""
        return [
            Route("/tasks/{name:any}", self.task),
            Route("/failures/{uuid:any}", self.failure),
            Route("/incidents/{key:any}", self.incident),
        ]

    async def task(self, request: Request) -> Response:
        """One task: its counts over time and by queue, and its errors."""
        name, reader, now = stored_text(request.path_params["name"]), self._sources.reader, self._sources.clock.now()
        rows = (await self._queries(partial(reader.tasks, limit=1000, name=name))).rows
        if not rows:
            raise HTTPException(404, "Unknown task.")
        span = request.query_params.get("span", "")
        window = trends.window(now, SPANS.get(span, DAY_HOURS))
        history = await self._queries(partial(reader.history, window.first, window.end, step=HOUR, names=[name]))
        hours = await self._queries(partial(reader.task_hours, name, window.first, window.end))
        groups = await self._queries(partial(reader.groups, now - ERRORS_SINCE, now, name=name, samples=_GROUPS))
        recent = await self._queries(partial(reader.failures, FailureFilter(task=name, limit=_RECENT)))
        open_incidents = await self._queries(partial(incidents.open_of, reader, name))
        return page(
            request,
            self._sources,
            "task.html",
            name=name,
            open=[incidents.list_item(row) for row in open_incidents],
            totals=views.totals(rows),
            queues=[views.task(row) for row in rows],
            errors=[views.error(row) for row in groups[:_GROUPS]],
            more_errors=max(0, len(groups) - _GROUPS),
            failures=[views.failure(failure) for failure in recent.rows],
            trend=trends.trend(history, window, self._sources.zone),
            times=curves.times(hours, window, self._sources.zone),
            hours=curves.table_rows(hours),
            span=span if span in SPANS else "24h",
            quantiles=_quantiles(self._sources.snapshot(), name),
            retention=self._sources.retention,
            refresh=True,
        )

    async def failure(self, request: Request) -> Response:
        """The failures of one task ID."""
        uuid = stored_text(request.path_params["uuid"])
        failures = await self._queries(partial(self._sources.reader.failure, uuid))
        if not failures:
            raise HTTPException(404, "No failure is stored for this task ID.")
        templates, fleet = self._sources.links, self._sources.fleet
        items = [
            views.failure_in_full(failure)
            | {
                "blocks": blocks(failure.traceback.rstrip()),
                "links": links.fill(templates, links.of_failure(failure, fleet)),
            }
            for failure in failures
        ]
        return page(request, self._sources, "failure.html", uuid=uuid, failures=items)

    async def incident(self, request: Request) -> Response:
        """One incident: what fails, since when, how often, why, whether it gets better, and who was notified."""
        key, reader, now = stored_text(request.path_params["key"]), self._sources.reader, self._sources.clock.now()
        row_and_groups = await self._queries(partial(incidents.find, reader, key))
        if row_and_groups is None:
            text = incidents.unknown(self._sources.retention)
            raise HTTPException(404, f"{text[0].upper()}{text[1:]}.")
        row, groups = row_and_groups
        incident = row.incident
        window = trends.window(max(incident.last_at, min(now, incident.first_at + DAY_HOURS * HOUR / 2)), DAY_HOURS)
        history = await self._queries(partial(_history, reader, incident, window.first, window.end, HOUR))
        lately = await self._queries(
            partial(_history, reader, incident, diagnosis.compared_since(now), now + 1, BUCKET_SECONDS)
        )
        earlier, more_earlier = await self._queries(partial(self._earlier, incident))
        period = incident.first_at, incident.last_at
        return page(
            request,
            self._sources,
            "incident.html",
            one=incidents.list_item(row) | views.incident_in_full(row, groups),
            headline=incidents.headline_of(incident),
            blocks=blocks(incident.traceback.rstrip(), groups[0].frame if groups else ""),
            links=links.fill(self._sources.links, links.of_incident(incident)),
            trend=trends.trend(history, window, self._sources.zone, period) if history else None,
            progress=diagnosis.outlook(incident, lately, now),
            steps=diagnosis.next_steps(
                incident,
                is_notified=row.delivered_at is not None,
                workers=self._up(),
                operator=may_change(person_of(request.scope)),
            ),
            earlier=earlier,
            more_earlier=more_earlier,
            most_errors=incidents.MAX_GROUPS,
            pages=incidents.are_sent(self._sources.channels),
            refresh=True,
        )

    def _earlier(self, incident: Incident) -> tuple[list[dict[str, Any]], int]:
        """Other incidents of the same task, newest first, and the number of further ones among those searched."""
        rows = self._sources.reader.incidents(limit=_SEARCHED).rows
        same: list[IncidentRow] = [
            row for row in rows if row.incident.key != incident.key and row.incident.task == incident.task
        ]
        return [incidents.list_item(row) for row in same[:_EARLIER]], max(0, len(same) - _EARLIER)

    def _up(self) -> int:
        snapshot = self._sources.snapshot()
        return sum(worker.up for worker in snapshot.workers) if snapshot else 0


def _history(reader: Reader, incident: Incident, since: float, until: float, step: int) -> list[HistoryRow]:
    """The history of the incident's tasks, summed, or of its queue."""
    names = [name for name in (incident.tasks or {incident.task: 1}) if name not in {OTHER, ""}][:_TASKS]
    if incident.condition in diagnosis.OF_QUEUES:
        return reader.history(since, until, step=step, queue=incident.subject) if incident.subject else []
    by_start: dict[int, HistoryRow] = {}
    for row in reader.history(since, until, step=step, names=names) if names else []:
        have = by_start.get(row.start, HistoryRow("", row.start, (0,) * len(row.counts), 0.0, 0))
        counts = tuple(map(sum, zip(have.counts, row.counts, strict=True)))
        runtime = have.runtime_sum + row.runtime_sum, have.runtime_count + row.runtime_count
        by_start[row.start] = HistoryRow("", row.start, counts, *runtime)
    return list(by_start.values())


def _quantiles(snapshot: Snapshot | None, name: str) -> dict[str, list[float | None]]:
    """Quantiles of runtime and waiting time since counting began, over all queues and workers; {} if none."""
    series = [item for item in snapshot.series if item.key.name == name] if snapshot else []
    quantiles = {}
    for field in ("runtime", "wait"):
        merged = _merged([getattr(item, field) for item in series])
        if merged is not None and any(merged.counts):
            quantiles[field] = [trends.quantile(merged, share) for share in QUANTILES]
    return quantiles


def _merged(histograms: Sequence[Histogram]) -> Histogram | None:
    """The sum of the histograms with the bounds of the last one: others are from older settings."""
    if not histograms:
        return None
    same = [histogram for histogram in histograms if histogram.bounds == histograms[-1].bounds]
    counts = tuple(map(sum, zip(*(histogram.counts for histogram in same), strict=True)))
    return structs.replace(histograms[-1], counts=counts)
