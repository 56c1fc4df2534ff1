"""A channel: where notifications are sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from celery_monitor.core.model import Incident, OutboxItem


@dataclass(frozen=True, slots=True)
class Sent:
    """What was delivered."""

    count: int
    """The failures that the message spoke of."""
    receipt: str | None = None
    """The receiver's identifier of it, for later messages of the same incident; None if it gives none."""
    skipped: bool = False
    """Nothing was sent, because the channel does not send this kind of notification."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelInfo:
    """What is shown of a channel."""

    name: str
    title: str
    configured: bool
    """Whether the channel has a receiver."""
    off: str
    """What is missing when it is not configured, and what that means."""
    incidents: bool
    """It carries incidents; else the daily report."""


class Sender(Protocol):
    """Delivers outbox items of one channel; used by one thread, but for ``stop``."""

    channel: str
    """Its name."""
    missing: str
    """What is not configured where ``rate_limit_key`` gives None: the error of rows that were written before."""

    def rate_limit_key(self, item: OutboxItem) -> str | None:
        """Opaque name of the account that sends it (each account has its own rate limit); None: not configured."""

    def send(self, item: OutboxItem) -> Sent:
        """Deliver it now.

        Raises RetryableError, RejectedError or InterruptedSendError. Never blocks longer than its timeout.
        """

    def stop(self) -> None:
        """End what is under way, if that is safe: this program is being stopped. From any thread."""


@runtime_checkable
class RepeatingSender(Sender, Protocol):
    """The sender of a channel whose receiver has to hear of an open incident again and again."""

    def repeat(self, incidents: Sequence[Incident]) -> None:
        """Send incidents that are open and were delivered before, once more.

        Raises RetryableError, RejectedError or InterruptedSendError. Never blocks longer than its timeout.
        """
