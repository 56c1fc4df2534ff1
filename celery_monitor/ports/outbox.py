"""The outbox: notifications that wait for delivery."""

from typing import Protocol

from celery_monitor.core.model import Incident, OutboxItem, OutboxRequest
from celery_monitor.core.paging import Page


class Outbox(Protocol):
    """What is to be sent. Methods as in Store; those with a ``cursor`` raise InvalidCursorError."""

    def enqueue(self, entry: OutboxRequest, now: float) -> bool:
        """Add a row outside of a flush (reports). False when that (channel, key, action) exists in any state."""

    def due(self, now: float, limit: int) -> list[OutboxItem]:
        """Pending rows that may be sent now: of each (channel, route) the most important one whose ``due_at`` has come.

        The lowest ``priority`` first, of these the newest ``at``. A row that waits holds back no other, but for the
        resolve of its own key: the order is kept within one incident. A ``due_at`` further ahead than any wait can be
        has come: the clock was ahead when it was set. The rows are ordered in the same way.
        """

    def waiting(self, channel: str) -> bool:
        """Whether a row of the channel is pending, due or not."""

    def delivered(self, item: OutboxItem, now: float, count: int | None, receipt: str | None = None) -> None:
        """The receiver accepted it. ``count`` and ``receipt`` as in Sent. Keeps the row pending if refreshed since."""

    def retry(self, item: OutboxItem, due_at: float, error: str) -> None:
        """Delivery failed; retry at ``due_at``. Adds one to ``attempts``."""

    def expedite(self, channel: str, now: float) -> None:
        """What waits for a retry is due now."""

    def dead(self, item: OutboxItem, now: float, error: str) -> None:
        """The receiver will never accept it."""

    def uncertain(self, item: OutboxItem, now: float, error: str) -> None:
        """The receiver may have accepted it; it is not retried."""

    def note(self, item: OutboxItem, progress: str) -> None:
        """Keep a text of the sender with the row."""

    def revive(self, item_id: int | None, now: float) -> int:
        """Make a row that is not delivered due now (None: all dead ones, not those of unknown outcome); how many."""

    def items(
        self,
        *,
        dead: bool,
        limit: int,
        cursor: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> Page[OutboxItem]:
        """Pending rows, and dead and unknown ones (only these with ``dead``), oldest first.

        ``since`` and ``until`` bound ``created_at``: [since, until).
        """

    def pending(self) -> dict[str, tuple[int, float | None]]:
        """Channel → (number of pending rows, created_at of the oldest)."""

    def given_up(self) -> dict[str, int]:
        """Channel → number of dead rows."""

    def unknown(self) -> dict[str, int]:
        """Channel → number of rows of unknown outcome."""

    def last_delivered(self, channel: str) -> float | None:
        """When a row of the channel was last delivered; None when none is known."""

    def incident(self, key: str) -> Incident | None:
        """The incident as committed."""

    def open_incidents(self, channel: str, limit: int, cursor: str | None = None) -> Page[Incident]:
        """Open incidents that the channel has delivered."""
