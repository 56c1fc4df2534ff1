"""The data sources of the web server."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, tzinfo
from typing import Any, Protocol

from celery_monitor.core.model import OutboxItem, QueueStats, Snapshot, WorkerDetail
from celery_monitor.core.paging import Page
from celery_monitor.core.summary import Summary
from celery_monitor.ports import (
    ChannelInfo,
    Clock,
    HealthReport,
    Metrics,
    OtherFleet,
    Reader,
    SilenceBook,
    StoreSpace,
    TaskView,
)


class Waiting(Protocol):
    """The part of the Outbox that is shown."""

    def items(
        self,
        *,
        dead: bool,
        limit: int,
        cursor: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> Page[OutboxItem]:
        """See Outbox."""

    def pending(self) -> dict[str, tuple[int, float | None]]:
        """See Outbox."""

    def given_up(self) -> dict[str, int]:
        """See Outbox."""

    def unknown(self) -> dict[str, int]:
        """See Outbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Set by the composition root. ``tasks``, ``reader``, ``outbox`` and ``report`` may block; the others do not."""

    fleet: str
    clock: Clock
    metrics: Metrics
    livez: Callable[[], HealthReport]
    readyz: Callable[[], HealthReport]
    snapshot: Callable[[], Snapshot | None]
    """Returns None until the store has been read."""
    queues: Callable[[], Sequence[QueueStats]]
    worker_details: Callable[[], Mapping[str, WorkerDetail]] = dict
    """Hostname → details."""
    tasks: Callable[[], TaskView]
    reader: Reader
    outbox: Waiting
    silences: SilenceBook
    mute: Sequence[Mapping[str, Any]] = ()
    """The windows of ``alerts.mute``, as mappings of their settings."""
    report: Callable[[date, float], Summary]
    """(day, now) → summary. Raises StoreUnavailableError."""
    prepare_report: Callable[[date, float], bool] = lambda *_: False
    """Reads the data of a day's report in advance; False if there is no earlier day. Raises StoreUnavailableError."""
    report_part: Callable[[Summary, str, int], str]
    """(summary, relative path to the root, page number) → a part of an HTML document with its own styles.

    A day with long lists has several pages, numbered from 1.
    """
    channels: Sequence[ChannelInfo]
    """The configured channels."""
    space: Callable[[], StoreSpace] = StoreSpace
    """The space of the store."""
    retention: float
    """Seconds for which failures and incidents are kept."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Title → template of links to other systems: see ``core.links``."""
    fleets: Callable[[], Sequence[OtherFleet]] | None = None
    """Queries the other fleets in the same database; None if there can be none."""
    zone: tzinfo
    """Time zone of the report's days."""
    notice: str | None = None
    """A sentence at the top of every page."""
