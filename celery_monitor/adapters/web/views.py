"""Converts values to JSON for the API: times are RFC 3339 in UTC."""

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
    """Unix seconds as ``2026-11-23T14:05:09.123Z``; None for None and for times out of range."""
    return rfc3339(seconds, "milliseconds")


def health(value: HealthReport) -> Json:
    """The answer of a probe."""
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
    """The totals of several tasks."""
    failures = [row.last_failure_at for row in rows if row.last_failure_at is not None]
    return {
        "counts": counts([row.counts for row in rows]),
        "runtime": {
            "count": sum(row.runtime_count for row in rows),
            "seconds": sum(row.runtime_sum for row in rows),
        },
        "last_failure_at": time(max(failures, default=None)),
    }


def failure(item: Failure) -> Json:
    """A failure in a list."""
    return {
        "uuid": item.uuid,
        "task": item.name,
        "queue": item.queue,
        "hostname": item.hostname,
        "at": time(item.at),
        "exception": item.exception,
        "message": item.message,
        "group": item.group,
        "incident": item.incident,
        "reason": item.reason,
    }


def failure_in_full(item: Failure) -> Json:
    """A failure with its long fields; the arguments are None unless ``tracking.capture_arguments`` is on."""
    return {**failure(item), "traceback": item.traceback, "args": item.args, "kwargs": item.kwargs}


def run(item: TaskRun, now: float) -> Json:
    """A run of a task, under way or ended."""
    due_at = max(item.sent_at, item.eta)
    worked = item.ended_at - item.started_at if item.started_at and item.ended_at else None
    return {
        "uuid": item.uuid,
        "task": item.name,
        "queue": item.queue,
        "hostname": item.hostname,
        "state": state_of_run(item, now),
        "sent_at": time(item.sent_at or None),
        "eta": time(item.eta or None),
        "received_at": time(item.received_at or None),
        "started_at": time(item.started_at or None),
        "ended_at": time(item.ended_at or None),
        "lost_at": time(item.lost_at or None),
        "waited_seconds": max(0.0, item.started_at - due_at) if item.started_at and due_at else None,
        "seconds": worked if item.runtime is None else item.runtime,
        "retries": item.retries,
        "root": item.root,
        "parent": item.parent,
        "args": item.args,
        "kwargs": item.kwargs,
    }


def error(row: GroupRow) -> Json:
    """An error group."""
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
    """An incident and its deliveries."""
    item = row.incident
    return {
        "key": item.key,
        "condition": item.condition,
        "subject": item.subject,
        "task": item.task,
        "rule": item.rule,
        "severity": item.severity,
        "state": item.state,
        "reason": item.reason,
        "hour": item.hour,
        "opened_at": time(item.opened_at),
        "first_at": time(item.first_at),
        "last_at": time(item.last_at),
        "count": item.count,
        "threshold": item.threshold,
        "exceptions": item.exceptions,
        "workers": item.workers,
        "queues": item.queues,
        "tasks": item.tasks,
        "samples": item.samples,
        "message": item.message,
        "details": [{"label": label, "value": value} for label, value in facts(item)],
        "unwatched_seconds": item.unwatched,
        "runbook_url": item.runbook_url,
        "deliveries": [delivery(channel_delivery) for channel_delivery in row.deliveries],
        "delivered_at": time(row.delivered_at),
        "delivered_count": row.delivered_count,
        "error": row.error,
    }


def incident_in_full(row: IncidentRow, errors: Sequence[GroupRow]) -> Json:
    """An incident with its long fields; the arguments are None unless ``tracking.capture_arguments`` is on."""
    item = row.incident
    return {
        **incident(row),
        "last_uuid": item.last_uuid or None,
        "traceback": item.traceback,
        "args": item.args,
        "kwargs": item.kwargs,
        "errors": [error(group) for group in errors],
    }


def delivery(item: ChannelDelivery) -> Json:
    """The delivery of an incident on one channel."""
    return {
        "channel": item.channel,
        "state": item.state,
        "attempts": item.attempts,
        "delivered_at": time(item.delivered_at),
        "delivered_count": item.delivered_count,
        "receipt": item.receipt,
        "error": item.error,
    }


def worker(item: Worker, detail: WorkerDetail | None = None) -> Json:
    """A worker."""
    details = detail or WorkerDetail()
    return {
        "hostname": item.hostname,
        "up": item.up,
        "last_heartbeat_at": time(item.last_heartbeat),
        "active": item.active,
        "processed": item.processed,
        "unobserved": item.unobserved,
        "heartbeats": item.heartbeats,
        "clock_offset_seconds": item.clock_offset,
        "pid": item.pid,
        "software": " ".join(filter(None, (item.sw_ident, item.sw_ver, item.sw_sys))),
        "queues": list(details.queues),
        "pool": details.pool,
        "processes": details.processes,
        "prefetch": details.prefetch,
        "load_average": details.load and list(details.load),
        "uptime_seconds": details.uptime,
        "peak_memory_bytes": details.peak_memory,
        "answered_at": time(details.answered_at or None),
    }


def waited(seconds: float, count: int) -> Json:
    """The total waiting time of several runs."""
    return {"count": count, "seconds": seconds}


def queue(item: QueueStats) -> Json:
    """A queue as last measured."""
    return {
        "name": item.name,
        "length": item.length,
        "consumers": item.consumers,
        "workers": item.workers,
        "processes": item.processes,
    }


def outbox_item(item: OutboxItem) -> Json:
    """A pending or failed notification."""
    return {
        "id": item.id,
        "channel": item.channel,
        "key": item.key,
        "action": item.action,
        "route": item.route,
        "state": item.state,
        "attempts": item.attempts,
        "created_at": time(item.created_at),
        "due_at": time(item.due_at),
        "error": item.error,
    }


def limit(item: Limit) -> Json:
    """A bound on memory, with its usage and overflows."""
    return {
        "name": item.name,
        "setting": item.setting,
        "limit": item.maximum,
        "used": item.used,
        "exceeded": item.exceeded,
    }


def silence(item: Silence, now: float) -> Json:
    """A silence."""
    return {
        "id": item.id,
        "match": list(item.match),
        "queues": list(item.queues),
        "reason": item.reason,
        "created_by": item.created_by,
        "starts_at": time(item.starts_at),
        "ends_at": time(item.ends_at),
        "active": item.active(now),
    }


def schedule(item: ScheduleState, counters: Mapping[str, float]) -> Json:
    """A schedule with its expected starts and its runs, newest first."""
    return {
        "name": item.name,
        "task": item.task,
        "schedule": item.spec,
        "expected_at": time(item.due or None),
        "missing": item.missed,
        "missing_since": time(item.since or None),
        "missed_total": int(counters.get(CounterFamily.MISSED.counter(item.name), 0)),
        "not_judged_total": int(counters.get(CounterFamily.UNJUDGED.counter(item.name), 0)),
        "not_judged_at": time(item.unjudged[0] or None),
        "runs": [_run(run) for run in reversed(item.runs)],
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
