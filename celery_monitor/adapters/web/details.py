"""Pages of one thing: a task, the failures of a task id, an incident."""

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
from celery_monitor.adapters.web.people import may_change, person_of
from celery_monitor.adapters.web.queries import Queries
from celery_monitor.adapters.web.render import page
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.adapters.web.tracebacks import blocks
from celery_monitor.adapters.web.trends import DAY_HOURS, HOUR, SPANS
from celery_monitor.core import links
from celery_monitor.core.model import BUCKET_SECONDS, Condition, Histogram, HistoryRow, Incident, IncidentRow, Snapshot
from celery_monitor.core.text import OTHER
from celery_monitor.ports import FailureFilter, Reader

_RECENT: Final = 20
_GROUPS: Final = 20
_EARLIER: Final = 8
"""Earlier incidents of the same task that are listed."""
_SEARCHED: Final = 1000
"""Incidents among which they are looked for, the newest: no index knows their tasks."""
_TASKS: Final = 50
"""Tasks of a storm whose runs are drawn."""
_OF_QUEUES: Final = frozenset({Condition.BACKLOG, Condition.NO_WORKER})
QUANTILES: Final = (0.5, 0.95, 0.99)


class Details:
    """The endpoints."""

    def __init__(self, sources: Sources, queries: Queries) -> None:
        self._sources = sources
        self._queries = queries

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/tasks/{name:path}", self.task),
            Route("/failures/{uuid:path}", self.failure),
            Route("/incidents/{key:path}", self.incident),
        ]

    async def task(self, request: Request) -> Response:
        """One task: how it does, over time and by queue, and why it fails."""
        name, reader, now = request.path_params["name"], self._sources.reader, self._sources.clock.now()
        rows = (await self._queries(partial(reader.tasks, limit=1000, name=name))).rows
        if not rows:
            raise HTTPException(404, "Unknown task.")
        span = request.query_params.get("span", "")
        shown = trends.window(now, SPANS.get(span, DAY_HOURS))
        history = await self._queries(partial(reader.history, shown.first, shown.end, step=HOUR, names=[name]))
        hours = await self._queries(partial(reader.task_hours, name, shown.first, shown.end))
        groups = await self._queries(partial(reader.groups, now - ERRORS_SINCE, now, name=name, samples=_GROUPS))
        recent = await self._queries(partial(reader.failures, FailureFilter(task=name, limit=_RECENT)))
        return page(
            request,
            self._sources,
            "task.html",
            name=name,
            totals=views.totals(rows),
            queues=[views.task(row) for row in rows],
            errors=[views.error(row) for row in groups[:_GROUPS]],
            more_errors=max(0, len(groups) - _GROUPS),
            failures=[views.failure(one) for one in recent.rows],
            trend=trends.trend(history, shown, self._sources.zone),
            times=curves.times(hours, shown, self._sources.zone),
            hours=curves.listed(hours),
            span=span if span in SPANS else "24h",
            quantiles=_quantiles(self._sources.snapshot(), name),
            retention=self._sources.retention,
            refresh=True,
        )

    async def failure(self, request: Request) -> Response:
        """The failures of one task id."""
        uuid = request.path_params["uuid"]
        found = await self._queries(partial(self._sources.reader.failure, uuid))
        if not found:
            raise HTTPException(404, "No failure is stored for this task ID.")
        templates, fleet = self._sources.links, self._sources.fleet
        shown = [
            views.failure_in_full(one)
            | {"blocks": blocks(one.traceback.rstrip()), "links": links.fill(templates, links.of_failure(one, fleet))}
            for one in found
        ]
        return page(request, self._sources, "failure.html", uuid=uuid, failures=shown)

    async def incident(self, request: Request) -> Response:
        """One incident: what fails, since when, how much, why, whether it gets better, and who was told."""
        key, reader, now = request.path_params["key"], self._sources.reader, self._sources.clock.now()
        found = await self._queries(partial(incidents.find, reader, key))
        if found is None:
            text = incidents.unknown(self._sources.retention)
            raise HTTPException(404, f"{text[0].upper()}{text[1:]}.")
        row, groups = found
        one = row.incident
        shown = trends.window(max(one.last_at, min(now, one.first_at + DAY_HOURS * HOUR / 2)), DAY_HOURS)
        history = await self._queries(partial(_history, reader, one, shown.first, shown.end, HOUR))
        lately = await self._queries(
            partial(_history, reader, one, diagnosis.compared_since(now), now + 1, BUCKET_SECONDS)
        )
        earlier, more_earlier = await self._queries(partial(self._earlier, one))
        period = one.first_at, one.last_at
        return page(
            request,
            self._sources,
            "incident.html",
            one=incidents.told(row) | views.incident_in_full(row, groups),
            headline=incidents.headline_of(one),
            blocks=blocks(one.traceback.rstrip(), groups[0].frame if groups else ""),
            links=links.fill(self._sources.links, links.of_incident(one)),
            trend=trends.trend(history, shown, self._sources.zone, period) if history else None,
            progress=diagnosis.outlook(one, lately, now),
            steps=diagnosis.next_steps(
                one,
                told=row.delivered_at is not None,
                workers=self._up(),
                operator=may_change(person_of(request.scope)),
            ),
            earlier=earlier,
            more_earlier=more_earlier,
            most_errors=incidents.MAX_GROUPS,
            pages=incidents.are_sent(self._sources.channels),
            refresh=True,
        )

    def _earlier(self, one: Incident) -> tuple[list[dict[str, Any]], int]:
        """Other incidents of the same task, newest first, and how many more there are among those searched."""
        rows = self._sources.reader.incidents(limit=_SEARCHED).rows
        same: list[IncidentRow] = [row for row in rows if row.incident.key != one.key and row.incident.task == one.task]
        return [incidents.told(row) for row in same[:_EARLIER]], max(0, len(same) - _EARLIER)

    def _up(self) -> int:
        snapshot = self._sources.snapshot()
        return sum(worker.up for worker in snapshot.workers) if snapshot else 0


def _history(reader: Reader, one: Incident, since: float, until: float, step: int) -> list[HistoryRow]:
    """Runs of what an incident is about, each span once: of its tasks, or of its queue."""
    names = [name for name in (one.tasks or {one.task: 1}) if name not in {OTHER, ""}][:_TASKS]
    if one.condition in _OF_QUEUES:
        return reader.history(since, until, step=step, queue=one.subject) if one.subject else []
    by_start: dict[int, HistoryRow] = {}
    for row in reader.history(since, until, step=step, names=names) if names else []:
        have = by_start.get(row.start, HistoryRow("", row.start, (0,) * len(row.counts), 0.0, 0))
        counts = tuple(map(sum, zip(have.counts, row.counts, strict=True)))
        runtime = have.runtime_sum + row.runtime_sum, have.runtime_count + row.runtime_count
        by_start[row.start] = HistoryRow("", row.start, counts, *runtime)
    return list(by_start.values())


def _quantiles(snapshot: Snapshot | None, name: str) -> dict[str, list[float | None]]:
    """Of run time and waiting time since counting began, of all queues and workers together; {} for none."""
    series = [one for one in snapshot.series if one.key.name == name] if snapshot else []
    found = {}
    for what in ("runtime", "wait"):
        merged = _merged([getattr(one, what) for one in series])
        if merged is not None and any(merged.counts):
            found[what] = [trends.quantile(merged, share) for share in QUANTILES]
    return found


def _merged(histograms: Sequence[Histogram]) -> Histogram | None:
    """Those with the bounds of the last one: older ones are of other settings."""
    if not histograms:
        return None
    same = [one for one in histograms if one.bounds == histograms[-1].bounds]
    counts = tuple(map(sum, zip(*(one.counts for one in same), strict=True)))
    return structs.replace(histograms[-1], counts=counts)
