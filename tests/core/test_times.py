import math

import pytest

from celery_monitor.core.model import LATEST_TIMESTAMP
from celery_monitor.core.times import rfc3339

NOON = 1_795_435_200.0


@pytest.mark.parametrize(
    ("at", "seconds", "milliseconds", "auto"),
    [
        (NOON, "2026-11-23T12:00:00Z", "2026-11-23T12:00:00.000Z", "2026-11-23T12:00:00Z"),
        (NOON + 0.9996, "2026-11-23T12:00:00Z", "2026-11-23T12:00:00.999Z", "2026-11-23T12:00:00.999600Z"),
        (0.0, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z", "1970-01-01T00:00:00Z"),
        (LATEST_TIMESTAMP, "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000Z", "9999-12-31T23:59:59Z"),
    ],
)
def test_times_are_written_in_utc(at: float, seconds: str, milliseconds: str, auto: str) -> None:
    """With the requested precision, truncated like a clock's display and never ahead of the time."""
    assert (rfc3339(at), rfc3339(at, "milliseconds"), rfc3339(at, "auto")) == (seconds, milliseconds, auto)


@pytest.mark.parametrize("at", [None, math.nan, math.inf, -math.inf, -0.5, LATEST_TIMESTAMP + 1, 1e300])
def test_what_no_calendar_has_is_not_written(at: float | None) -> None:
    """Callers omit it; nothing else is affected."""
    assert rfc3339(at) is None
