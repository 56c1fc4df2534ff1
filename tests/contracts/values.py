"""Values for the contract tests, with defaults for everything that a test does not specify."""

from typing import Any

from celery_monitor.core.model import (
    BucketDelta,
    Changes,
    ErrorDelta,
    ErrorGroup,
    Failure,
    Histogram,
    Incident,
    IncidentState,
    Reason,
    Series,
    SeriesKey,
    Severity,
    Worker,
)

NOW = 1_763_899_200.0
"""A quarter of an hour begins at it, and a day of UTC at NOW - 12 h."""
START = int(NOW)


def changes(sequence: int, *, now: float = NOW, **parts: Any) -> Changes:
    """A flush."""
    return Changes(now=now, sequence=sequence, **parts)


def vector(**counts: int) -> tuple[int, ...]:
    """Counts in the order of ``COUNTS``."""
    names = ("sent", "received", "started", "succeeded", "failed", "retried", "rejected", "revoked")
    return tuple(counts.get(name, 0) for name in names)


def series(name: str = "shop.charge", queue: str = "celery", host: str = "", **counts: int) -> Series:
    """Totals, with small histograms."""
    histogram = Histogram((0.5, 1.0), (1, 2, 3), 4.5)
    return Series(SeriesKey(name, queue, host), vector(**counts), {"ValueError": 2}, histogram, histogram)


def bucket(start: int = START, name: str = "shop.charge", queue: str = "celery", **counts: int) -> BucketDelta:
    """A delta of one bucket."""
    return BucketDelta(start, name, queue, vector(**counts), 0.5, 1)


def group(group_id: str = "g1", first_at: float = NOW, last_at: float = NOW) -> ErrorGroup:
    """A group of card errors."""
    return ErrorGroup(group_id, "shop.charge", "shop.errors.CardError", "shop/billing.py:charge", first_at, last_at)


def error(group_id: str = "g1", count: int = 1, start: int = START) -> ErrorDelta:
    """A delta of the failures of a group."""
    return ErrorDelta(start, group_id, count)


def failure(uuid: str = "u1", **parts: Any) -> Failure:
    """A card error."""
    values = {
        "uuid": uuid,
        "name": "shop.charge",
        "queue": "celery",
        "hostname": "celery@box",
        "at": NOW,
        "exception": "CardError",
        "message": "no such card",
        "traceback": "Traceback ...",
        "group": "g1",
        "incident": None,
        "reason": Reason.OPENED.value,
    }
    return Failure(**{**values, **parts})


def incident(key: str = "shop.charge/2026-11-23T12Z", **parts: Any) -> Incident:
    """An open incident of one failure."""
    values = {
        "key": key,
        "fleet": "shop",
        "task": "shop.charge",
        "rule": "",
        "route": "",
        "severity": Severity.ERROR,
        "state": IncidentState.OPEN,
        "reason": Reason.OPENED,
        "hour": "2026-11-23T12Z",
        "opened_at": NOW,
        "first_at": NOW,
        "last_at": NOW,
        "count": 1,
        "threshold": 1,
        "exceptions": {"CardError": 1},
        "samples": ("u1",),
    }
    return Incident(**{**values, **parts})


def worker(hostname: str = "celery@box", **parts: Any) -> Worker:
    """A worker that is up."""
    return Worker(**{
        "hostname": hostname, "up": True, "last_heartbeat": NOW, "active": 1, "processed": 7, "pid": 42, **parts
    })  # fmt: skip
