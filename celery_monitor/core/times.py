"""The one format of times in all output."""

from datetime import UTC, datetime
from typing import Literal

from celery_monitor.core.model import LATEST_TIMESTAMP


def rfc3339(at: float | None, timespec: Literal["auto", "seconds", "milliseconds"] = "seconds") -> str | None:
    """Unix seconds as RFC 3339 in UTC, such as ``2026-11-23T14:02:11Z``; truncated, not rounded.

    None for None and for times before 1970 or after 9999. ``auto``: microseconds, unless they are 0.
    """
    if at is None or not 0 <= at <= LATEST_TIMESTAMP:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")
