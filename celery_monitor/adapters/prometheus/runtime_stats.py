"""What the runtime knows and the snapshot of the monitor does not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from celery_monitor.core.model import Histogram
from celery_monitor.ports import StoreSpace

_NONE: Final = Histogram(bounds=(), counts=(0,), sum=0.0)


@dataclass(frozen=True, slots=True)
class RuntimeStats:
    """As of now, from memory: building it must neither wait nor ask the store."""

    leader: bool = True
    """False for a standby, which shows nothing of the fleet."""
    commits: Histogram = _NONE
    """Seconds that the store's transactions took."""
    broker_connected: bool = False
    unacked_messages: int = 0
    commit_failures: int = 0
    store: StoreSpace = field(default_factory=StoreSpace)
    replies_discarded: Mapping[str, int] = field(default_factory=dict)
    """reason → workers' replies that were not used."""
    channels: Sequence[str] = ()
    """Names of all channels."""
    outbox: Mapping[str, tuple[int, float | None]] = field(default_factory=dict)
    """channel → (pending, created_at of the oldest), as of the notifier's last look."""
    notifications: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(channel, outcome) → attempts."""
    report_last_success: float | None = None
    """Unix seconds of the last delivered report; None before the first."""
    thread_failures: Mapping[str, int] = field(default_factory=dict)
    """Thread → how often its loop failed and was started again."""
    sign_ins_refused: Mapping[str, int] = field(default_factory=dict)
    """Reason → requests to the page or the API that were refused for their user name or password."""
    redaction_timeouts: int = 0
    """Texts that were replaced as a whole, because a pattern of ``tracking.redact`` took too long."""
