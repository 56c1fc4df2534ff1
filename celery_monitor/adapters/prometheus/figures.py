"""What the runtime knows and the snapshot of the monitor does not."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from celery_monitor.core.model import Histogram

COMMIT_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Buckets in which the pump should count its commits, in seconds."""


@dataclass(frozen=True, slots=True)
class RuntimeFigures:
    """As of now, from memory: building it must neither wait nor ask the store."""

    broker_connected: bool = False
    unacked_messages: int = 0
    commits: Histogram = Histogram(COMMIT_BOUNDS, (0,) * (len(COMMIT_BOUNDS) + 1), 0.0)  # noqa: RUF009 - frozen
    commit_failures: int = 0
    outbox: Mapping[str, tuple[int, float | None]] = field(default_factory=dict)
    """channel → (pending, created_at of the oldest), as of the courier's last look."""
    notifications: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(channel, outcome) → attempts."""
    report_last_success: float | None = None
    """Unix seconds of the last delivered report; None before the first."""
