"""The outbox: notifications that wait for delivery."""

from typing import Protocol

from celery_monitor.core.model import Incident, OutboxItem, OutboxRequest
from celery_monitor.core.paging import Page


class Outbox(Protocol):
    """Notifications to send. Methods behave as in Store; those with a ``cursor`` may raise InvalidCursorError."""

    def enqueue(self, entry: OutboxRequest, now: float) -> bool:
        """Add a row outside of a flush (reports). False if one with this (channel, key, action) exists in any state."""

    def due(self, now: float, limit: int) -> list[OutboxItem]:
        """Pending rows that may be sent now: for each (channel, route) the most important one that is due.

        Most important is the lowest ``priority``, then the newest ``at``; the result is ordered in the same way. A row
        that is not due blocks no other, except the resolve of its own key, to keep the order within an incident. A
        ``due_at`` further ahead than any possible wait counts as due: it was set while the clock was ahead. So does a
        row that was added a minute or more after ``now`` and not tried yet.
        """

    def waiting(self, channel: str) -> bool:
        """Whether a row of the channel is pending, due or not."""

    def delivered(self, item: OutboxItem, now: float, count: int | None, receipt: str | None = None) -> None:
        """The receiver accepted it. ``count`` and ``receipt``: see Sent. A row refreshed meanwhile stays pending."""

    def retry(self, item: OutboxItem, due_at: float, error: str) -> None:
        """Delivery failed; retry at ``due_at``. Adds one to ``attempts``."""

    def expedite(self, channel: str, now: float) -> None:
        """Make rows that wait for a retry due now."""

    def dead(self, item: OutboxItem, now: float, error: str) -> None:
        """The receiver will never accept it."""

    def uncertain(self, item: OutboxItem, now: float, error: str) -> None:
        """The receiver may have accepted it, so it is not retried."""

    def note(self, item: OutboxItem, progress: str) -> None:
        """Store a text of the sender with the row."""

    def revive(self, item_id: int | None, now: float) -> int:
        """Make an undelivered row due now; None: all dead rows, but none of unknown outcome. Returns how many."""

    def items(
        self,
        *,
        dead: bool,
        limit: int,
        cursor: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> Page[OutboxItem]:
        """Rows that are pending, dead or of unknown outcome, oldest first. ``dead``: without pending ones.

        ``since`` and ``until`` bound ``created_at``: [since, until).
        """

    def pending(self) -> dict[str, tuple[int, float | None]]:
        """Channel → (number of pending rows, created_at of the oldest)."""

    def given_up(self) -> dict[str, int]:
        """Channel → number of dead rows."""

    def unknown(self) -> dict[str, int]:
        """Channel → number of rows of unknown outcome."""

    def last_delivered(self, channel: str) -> float | None:
        """Unix seconds at which a row of the channel was last delivered; None if unknown."""

    def incident(self, key: str) -> Incident | None:
        """The incident as last committed; None if there is none."""

    def open_incidents(self, channel: str, limit: int, cursor: str | None = None) -> Page[Incident]:
        """Open incidents that the channel has delivered."""
