"""What the web shows, and where it comes from."""

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
    """Given by the composition root. All but ``tasks``, ``reader``, ``outbox`` and ``report`` answer at once."""

    fleet: str
    clock: Clock
    metrics: Metrics
    livez: Callable[[], HealthReport]
    readyz: Callable[[], HealthReport]
    snapshot: Callable[[], Snapshot | None]
    """None until the store was read."""
    queues: Callable[[], Sequence[QueueStats]]
    worker_details: Callable[[], Mapping[str, WorkerDetail]] = dict
    """By hostname."""
    tasks: Callable[[], TaskView]
    reader: Reader
    outbox: Waiting
    silences: SilenceBook
    mute: Sequence[Mapping[str, Any]] = ()
    """The windows of ``alerts.mute``, by the names of their settings."""
    report: Callable[[date, float], Summary]
    """A day as it is known at a time. Raises StoreUnavailableError."""
    prepare_report: Callable[[date, float], bool] = lambda *_: False
    """Reads beforehand what the report of a day needs; False: no further day. Raises StoreUnavailableError."""
    report_part: Callable[[Summary, str, int], str]
    """A day as a part of an HTML document, with its own styles, and links that begin with the given way to the root.

    The number is that of the page, from 1, of a day with long lists.
    """
    channels: Sequence[ChannelInfo]
    """As they are configured."""
    space: Callable[[], StoreSpace] = StoreSpace
    """How much space the store has."""
    retention: float
    """Seconds for which failures and incidents are kept."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Title → template of links to other systems: see ``core.links``."""
    fleets: Callable[[], Sequence[OtherFleet]] | None = None
    """Asks the store for the other fleets in the same database; None where there can be none."""
    zone: tzinfo
    """In which the report's days are counted."""
    notice: str | None = None
    """A sentence on top of every page."""
