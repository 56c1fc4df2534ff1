"""The program's values as JSON: names as in the API, times in RFC 3339 and UTC."""

from datetime import UTC, datetime
from typing import Any

from celery_monitor.core.model import COUNTS
from celery_monitor.ports import Health, TaskRow

Json = dict[str, Any]


def time(seconds: float | None) -> str | None:
    """Unix seconds as ``2026-11-23T14:05:09.123Z``; None for none, and for what is beyond the calendar."""
    if seconds is None:
        return None
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def health(value: Health) -> Json:
    """A probe's answer."""
    checks = {name: problem or "ok" for name, problem in value.checks.items()}
    return {"status": "ok" if value.ok else "failing", "checks": checks}


def counts(vector: tuple[int, ...]) -> dict[str, int]:
    """A vector of counts with its names."""
    return dict(zip(COUNTS, vector, strict=True))


def task(row: TaskRow) -> Json:
    """A task on a queue."""
    return {
        "name": row.name,
        "queue": row.queue,
        "counts": counts(row.counts),
        "runtime": {"count": row.runtime_count, "seconds": row.runtime_sum},
        "last_failure_at": time(row.last_failure_at),
    }
