"""Statistics of the runtime, which the monitor's snapshot does not contain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from celery_monitor.core.model import Histogram
from celery_monitor.ports import StoreSpace

_NONE: Final = Histogram(bounds=(), counts=(0,), sum=0.0)


@dataclass(frozen=True, slots=True)
class RuntimeStats:
    """Current values from memory: creating it must neither block nor query the store."""

    leader: bool = True
    """False for a standby, which exports nothing about the fleet."""
    commits: Histogram = _NONE
    """Durations of store transactions in seconds."""
    broker_connected: bool = False
    unacked_messages: int = 0
    commit_failures: int = 0
    store: StoreSpace = field(default_factory=StoreSpace)
    replies_discarded: Mapping[str, int] = field(default_factory=dict)
    """reason → number of discarded worker replies."""
    channels: Sequence[str] = ()
    """Names of all channels."""
    outbox: Mapping[str, tuple[int, float | None]] = field(default_factory=dict)
    """channel → (pending, created_at of the oldest), as last read by the notifier."""
    notifications: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(channel, outcome) → attempts."""
    report_last_success: float | None = None
    """Unix seconds of the last delivered report; None before the first."""
    thread_failures: Mapping[str, int] = field(default_factory=dict)
    """Thread → how often its loop failed and was restarted."""
    sign_ins_refused: Mapping[str, int] = field(default_factory=dict)
    """Reason → number of refused sign-ins to the page or the API."""
    redaction_timeouts: int = 0
    """Number of texts replaced completely because a ``tracking.redact`` pattern timed out."""
