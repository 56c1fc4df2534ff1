"""What exists for the whole life of the process, whether it leads or not."""

from collections.abc import Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from celery_monitor.adapters.broker import KnownAddress
from celery_monitor.adapters.channels import Channel
from celery_monitor.adapters.redaction import Redaction
from celery_monitor.adapters.store import SqlStore
from celery_monitor.ports import Clock
from celery_monitor.runtime.priority import ScrapePriority
from celery_monitor.runtime.report import DayReport
from celery_monitor.settings import Settings


@dataclass(frozen=True, slots=True)
class Environment:
    """What exists for the whole life of the process and is used by a leader."""

    settings: Settings
    clock: Clock
    store: SqlStore
    priority: ScrapePriority
    channels: Sequence[Channel]
    redaction: Redaction
    report: DayReport
    zone: ZoneInfo
    """Time zone of the report's days."""
    address: KnownAddress
    """Of the broker."""
