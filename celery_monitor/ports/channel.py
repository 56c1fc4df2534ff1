"""A channel: where notifications are sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from celery_monitor.core.model import Incident, OutboxItem


@dataclass(frozen=True, slots=True)
class Sent:
    """What was delivered."""

    count: int
    """Number of failures that the message reported."""
    receipt: str | None = None
    """The receiver's identifier of the message, for updates of the same incident; None if it returned none."""
    skipped: bool = False
    """Nothing was sent, because the channel does not send this kind of notification."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelInfo:
    """A channel as the pages and the API show it."""

    name: str
    title: str
    configured: bool
    """Whether the channel has a receiver."""
    off: str
    """If not configured: which settings are missing, and the consequence."""
    incidents: bool
    """Whether it carries incidents; otherwise it carries the daily report."""


class Sender(Protocol):
    """Delivers outbox items of one channel. Used by one thread, except ``stop``."""

    channel: str
    """Its name."""
    missing: str
    """The error for rows of an account that is no longer configured (``rate_limit_key`` returns None)."""

    def rate_limit_key(self, item: OutboxItem) -> str | None:
        """Opaque name of the account that sends the item, which has its own rate limit; None if not configured."""

    def send(self, item: OutboxItem) -> Sent:
        """Deliver the item now.

        Raises RetryableError, RejectedError or InterruptedSendError. Never blocks longer than its timeout.
        """

    def stop(self) -> None:
        """Interrupt a request in progress if that is safe, because the process is stopping. From any thread."""


@runtime_checkable
class RepeatingSender(Sender, Protocol):
    """The sender of a channel whose receiver needs open incidents to be resent regularly."""

    def repeat(self, incidents: Sequence[Incident]) -> None:
        """Resend open incidents that were delivered before.

        Raises RetryableError, RejectedError or InterruptedSendError. Never blocks longer than its timeout.
        """
