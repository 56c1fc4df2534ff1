"""What the web shows, and where it comes from."""

from collections.abc import Callable
from dataclasses import dataclass

from celery_monitor.core.model import Snapshot
from celery_monitor.ports import Clock, Health, Metrics, Outbox, Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Given by the composition root. All but ``reader``, ``outbox`` and the reports answer at once, from memory."""

    fleet: str
    clock: Clock
    metrics: Metrics
    livez: Callable[[], Health]
    readyz: Callable[[], Health]
    snapshot: Callable[[], Snapshot | None]
    """None until the store was read."""
    reader: Reader
    outbox: Outbox
