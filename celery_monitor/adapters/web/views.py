"""The program's values as JSON: names as in the API, times in RFC 3339 and UTC."""

from collections.abc import Mapping, Sequence
from typing import Any

from celery_monitor.core.headline import facts
from celery_monitor.core.lookup import state_of_run
from celery_monitor.core.model import (
    COUNTS,
    ChannelDelivery,
    CounterFamily,
    Failure,
    GroupRow,
    IncidentRow,
    Limit,
    OutboxItem,
    QueueStats,
    ScheduledRun,
    ScheduleState,
    Silence,
    TaskRun,
    Worker,
    WorkerDetail,
)
from celery_monitor.core.times import rfc3339
from celery_monitor.ports import HealthReport, TaskRow

Json = dict[str, Any]


def time(seconds: float | None) -> str | None:
    """Unix seconds as ``2026-11-23T14:05:09.123Z``; None for none, and for what is beyond the calendar."""
    return rfc3339(seconds, "milliseconds")


def health(value: HealthReport) -> Json:
    """A probe's answer."""
    checks = {name: problem or "ok" for name, problem in value.checks.items()}
    return {
        "status": "ok" if value.ok else "failing",
        "checks": checks,
        "notes": dict(value.notes),
        "about": dict(value.about),
    }


def counts(vectors: Sequence[Sequence[int]]) -> dict[str, int]:
    """The sum of vectors of counts, with their names."""
    return dict(zip(COUNTS, map(sum, zip(*vectors, strict=True)) if vectors else [0] * len(COUNTS), strict=True))


def task(row: TaskRow) -> Json:
    """A task on a queue."""
    return {"name": row.name, "queue": row.queue, **totals([row])}


def totals(rows: Sequence[TaskRow]) -> Json:
    """What tasks have done together."""
    failures = [row.last_failure_at for row in rows if row.last_failure_at is not None]
    return {
        "counts": counts([row.counts for row in rows]),
        "runtime": {
            "count": sum(row.runtime_count for row in rows),
            "seconds": sum(row.runtime_sum for row in rows),
        },
        "last_failure_at": time(max(failures, default=None)),
    }


def failure(one: Failure) -> Json:
    """A failure in a list."""
    return {
        "uuid": one.uuid,
        "task": one.name,
        "queue": one.queue,
        "hostname": one.hostname,
        "at": time(one.at),
        "exception": one.exception,
        "message": one.message,
        "group": one.group,
        "incident": one.incident,
        "reason": one.reason,
    }


def failure_in_full(one: Failure) -> Json:
    """A failure with what is long; the arguments are None unless ``tracking.capture_arguments`` is on."""
    return {**failure(one), "traceback": one.traceback, "args": one.args, "kwargs": one.kwargs}


def run(one: TaskRun, now: float) -> Json:
    """A run of a task, under way or ended."""
    due = max(one.sent_at, one.eta)
    worked = one.ended_at - one.started_at if one.started_at and one.ended_at else None
    return {
        "uuid": one.uuid,
        "task": one.name,
        "queue": one.queue,
        "hostname": one.hostname,
        "state": state_of_run(one, now),
        "sent_at": time(one.sent_at or None),
        "eta": time(one.eta or None),
        "received_at": time(one.received_at or None),
        "started_at": time(one.started_at or None),
        "ended_at": time(one.ended_at or None),
        "lost_at": time(one.lost_at or None),
        "waited_seconds": max(0.0, one.started_at - due) if one.started_at and due else None,
        "seconds": worked if one.runtime is None else one.runtime,
        "retries": one.retries,
        "root": one.root,
        "parent": one.parent,
        "args": one.args,
        "kwargs": one.kwargs,
    }


def error(row: GroupRow) -> Json:
    """Failures of one kind at one place."""
    return {
        "group": row.id,
        "task": row.name,
        "exception": row.exception,
        "frame": row.frame,
        "count": row.count,
        "first_at": time(row.first_at),
        "last_at": time(row.last_at),
        "sample": row.sample and row.sample.uuid,
    }


def incident(row: IncidentRow) -> Json:
    """An incident and what became of its page."""
    one = row.incident
    return {
        "key": one.key,
        "condition": one.condition,
        "subject": one.subject,
        "task": one.task,
        "rule": one.rule,
        "severity": one.severity,
        "state": one.state,
        "reason": one.reason,
        "hour": one.hour,
        "opened_at": time(one.opened_at),
        "first_at": time(one.first_at),
        "last_at": time(one.last_at),
        "count": one.count,
        "threshold": one.threshold,
        "exceptions": one.exceptions,
        "workers": one.workers,
        "queues": one.queues,
        "tasks": one.tasks,
        "samples": one.samples,
        "message": one.message,
        "details": [{"label": label, "value": value} for label, value in facts(one)],
        "unwatched_seconds": one.unwatched,
        "runbook_url": one.runbook_url,
        "deliveries": [delivery(sent) for sent in row.deliveries],
        "delivered_at": time(row.delivered_at),
        "delivered_count": row.delivered_count,
        "error": row.error,
    }


def incident_in_full(row: IncidentRow, errors: Sequence[GroupRow]) -> Json:
    """An incident with what is long; the arguments are None unless ``tracking.capture_arguments`` is on."""
    one = row.incident
    return {
        **incident(row),
        "last_uuid": one.last_uuid or None,
        "traceback": one.traceback,
        "args": one.args,
        "kwargs": one.kwargs,
        "errors": [error(group) for group in errors],
    }


def delivery(one: ChannelDelivery) -> Json:
    """What became of an incident on one channel."""
    return {
        "channel": one.channel,
        "state": one.state,
        "attempts": one.attempts,
        "delivered_at": time(one.delivered_at),
        "delivered_count": one.delivered_count,
        "receipt": one.receipt,
        "error": one.error,
    }


def worker(one: Worker, detail: WorkerDetail | None = None) -> Json:
    """A worker."""
    told = detail or WorkerDetail()
    return {
        "hostname": one.hostname,
        "up": one.up,
        "last_heartbeat_at": time(one.last_heartbeat),
        "active": one.active,
        "processed": one.processed,
        "unobserved": one.unobserved,
        "heartbeats": one.heartbeats,
        "clock_offset_seconds": one.clock_offset,
        "pid": one.pid,
        "software": " ".join(filter(None, (one.sw_ident, one.sw_ver, one.sw_sys))),
        "queues": list(told.queues),
        "pool": told.pool,
        "processes": told.processes,
        "prefetch": told.prefetch,
        "load_average": told.load and list(told.load),
        "uptime_seconds": told.uptime,
        "peak_memory_bytes": told.peak_memory,
        "answered_at": time(told.answered_at or None),
    }


def queue(one: QueueStats) -> Json:
    """A queue as it was found last."""
    return {
        "name": one.name,
        "length": one.length,
        "consumers": one.consumers,
        "workers": one.workers,
        "processes": one.processes,
    }


def outbox_item(one: OutboxItem) -> Json:
    """A notification that waits or was given up."""
    return {
        "id": one.id,
        "channel": one.channel,
        "key": one.key,
        "action": one.action,
        "route": one.route,
        "state": one.state,
        "attempts": one.attempts,
        "created_at": time(one.created_at),
        "due_at": time(one.due_at),
        "error": one.error,
    }


def limit(one: Limit) -> Json:
    """A bound of memory, and what it has cut."""
    return {
        "name": one.name,
        "setting": one.setting,
        "limit": one.maximum,
        "used": one.used,
        "exceeded": one.exceeded,
    }


def silence(one: Silence, now: float) -> Json:
    """A silence."""
    return {
        "id": one.id,
        "match": list(one.match),
        "queues": list(one.queues),
        "reason": one.reason,
        "created_by": one.created_by,
        "starts_at": time(one.starts_at),
        "ends_at": time(one.ends_at),
        "active": one.active(now),
    }


def schedule(one: ScheduleState, counters: Mapping[str, float]) -> Json:
    """A schedule: what was due, and its newest runs, the newest first."""
    return {
        "name": one.name,
        "task": one.task,
        "schedule": one.spec,
        "expected_at": time(one.due or None),
        "missing": one.missed,
        "missing_since": time(one.since or None),
        "missed_total": int(counters.get(CounterFamily.MISSED.counter(one.name), 0)),
        "not_judged_total": int(counters.get(CounterFamily.UNJUDGED.counter(one.name), 0)),
        "not_judged_at": time(one.unjudged[0] or None),
        "runs": [_run(run) for run in reversed(one.runs)],
    }


def _run(run: ScheduledRun) -> Json:
    return {
        "uuid": run.uuid,
        "hostname": run.hostname,
        "started_at": time(run.at),
        "ended_at": time(run.ended_at or None),
        "seconds": max(0.0, run.ended_at - run.at) if run.ended_at else None,
        "outcome": run.outcome,
    }
