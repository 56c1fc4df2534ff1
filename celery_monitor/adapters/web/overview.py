"""The overview of the fleet, for ``/api/v1/summary`` and the first page."""

from itertools import groupby
from operator import attrgetter
from typing import Final

from celery_monitor.adapters.web import views
from celery_monitor.adapters.web.sources import Sources
from celery_monitor.core.model import BUCKET_SECONDS, FAILED, SUCCEEDED, CounterName
from celery_monitor.ports import Reader, TaskRow
from celery_monitor.settings.units import DAY

SINCE: Final = DAY
WORST: Final = 10
AHEAD: Final = DAY
"""Seconds by which an event's clock may be ahead."""
_MAX_TASKS: Final = 100_000
"""Maximum number of (task, queue) rows: more than metrics.max_task_names allows."""


def overview(sources: Sources, since: float | None, *, seen: bool = False) -> views.Json:
    """Counts since a time (None: a day ago), the worst tasks, and the current state. Queries the store.

    ``seen``: also the number of tasks that ran, which takes longer than everything else.
    """
    now, reader = sources.clock.now(), sources.reader
    since = now - SINCE if since is None else since
    # The bucket that contains the time is included completely.
    begin, end = max(0.0, since // BUCKET_SECONDS * BUCKET_SECONDS), max(now, since) + AHEAD
    failures = reader.failed(begin, end)
    failing = sorted(failures, key=lambda name: (-failures[name], name))
    rows = reader.tasks(since=begin, until=end, limit=_MAX_TASKS, names=failing[:WORST]).rows
    rows_by_task = {name: list(of_task) for name, of_task in groupby(rows, key=attrgetter("name"))}
    fleet = reader.history(begin, end, step=int(DAY))
    snapshot = sources.snapshot()
    workers = snapshot.workers if snapshot else ()
    counters = snapshot.counters if snapshot else {}
    return {
        "fleet": sources.fleet,
        "at": views.time(now),
        "since": views.time(since),
        "health": views.health(sources.readyz()),
        "counts": views.counts([row.counts for row in fleet]),
        "tasks": {"failing": len(failing)} | ({"seen": _seen(reader, begin, end)} if seen else {}),
        "worst": [
            {"name": name, "failure_rate": rate(rows_by_task[name]), **views.totals(rows_by_task[name])}
            for name in failing[:WORST]
        ],
        "incidents": {"open": snapshot.incidents_open if snapshot else None},
        "workers": {"up": sum(worker.up for worker in workers), "down": sum(not worker.up for worker in workers)},
        "outbox": outbox(sources),
        "limits": [views.limit(worker) for worker in snapshot.limits] if snapshot else [],
        "queues": [views.queue(worker) for worker in sources.queues()],
        "store": store(sources, now, counters.get(CounterName.STORE_ROLLED_BACK, 0.0)),
        "stream": {
            "lag_seconds": snapshot and snapshot.lag,
            "gap_seconds": counters.get(CounterName.STREAM_GAP, 0.0),
            "unobserved_tasks": int(counters.get(CounterName.UNOBSERVED, 0)),
            "unnamed_failures": int(counters.get(CounterName.UNNAMED_FAILURES, 0)),
        },
    }


def _seen(reader: Reader, begin: float, end: float) -> int:
    rows = reader.tasks(since=begin, until=end, limit=_MAX_TASKS).rows
    return len({row.name for row in rows})


def store(sources: Sources, now: float, rolled_back: float) -> views.Json:
    """The space of the store, the rows dropped since the process started, and whether it was rolled back today."""
    space = sources.space()
    return {
        "bytes": space.used,
        "max_bytes": space.limit,
        "room_bytes": space.room,
        "short_of_space": space.short,
        "given_up": dict(space.given_up),
        "rolled_back": rolled_back > sources.reader.counters(now - DAY).get(CounterName.STORE_ROLLED_BACK, 0.0),
    }


def outbox(sources: Sources) -> list[views.Json]:
    """The state of each channel's notifications."""
    pending, dead, unknown = sources.outbox.pending(), sources.outbox.given_up(), sources.outbox.unknown()
    return [
        {
            "channel": channel.name,
            "configured": channel.configured,
            "pending": pending.get(channel.name, (0, None))[0],
            "oldest_at": views.time(pending.get(channel.name, (0, None))[1]),
            "dead": dead.get(channel.name, 0),
            "unknown": unknown.get(channel.name, 0),
        }
        for channel in sources.channels
    ]


def failed(rows: list[TaskRow]) -> int:
    """Failures of one task on all queues."""
    return sum(row.counts[FAILED] for row in rows)


def rate(rows: list[TaskRow]) -> float | None:
    """Failed divided by executed (succeeded plus failed); None if nothing was executed."""
    executed = sum(row.counts[FAILED] + row.counts[SUCCEEDED] for row in rows)
    return failed(rows) / executed if executed else None
