"""Resends open incidents to a receiver that expires alerts unless they are repeated.

It keeps no state: the store says which incidents are open and which of them the channel has delivered. So after a
restart exactly the same incidents are resent, immediately. A resolved or expired incident is no longer resent once that
is committed.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from celery_monitor.core.model import Incident
from celery_monitor.core.paging import Page
from celery_monitor.errors import DeliveryError, InterruptedSendError, RejectedError, StoreUnavailableError
from celery_monitor.ports import Clock

BATCH: Final = 100
"""Incidents in one request."""
_RETRY_SHARE: Final = 4
"""After a failure, retry after the interval divided by this."""

_log = structlog.get_logger()


class OpenIncidents(Protocol):
    """The part of the Outbox that the repeater uses."""

    def open_incidents(self, channel: str, limit: int, cursor: str | None = None) -> Page[Incident]:
        """See Outbox."""


class Repeater:
    """Resends the open incidents of one channel every ``interval`` seconds. Belongs to its notifier's thread."""

    def __init__(
        self,
        outbox: OpenIncidents,
        channel: str,
        send: Callable[[Sequence[Incident]], None],
        clock: Clock,
        interval: float,
    ) -> None:
        """``send`` delivers a batch, or raises a DeliveryError. Does no I/O."""
        self._outbox = outbox
        self._channel = channel
        self._send = send
        self._clock = clock
        self._interval = interval
        self._due_at = clock.monotonic()

    def run_once(self, proceed: Callable[[], bool] = lambda: True) -> float:
        """Resend if due, while ``proceed`` returns True. Returns the seconds until the next time."""
        if self._clock.monotonic() >= self._due_at:
            wait = self._interval if self._repeat(proceed) else self._interval / _RETRY_SHARE
            self._due_at = self._clock.monotonic() + wait
        return max(0.0, self._due_at - self._clock.monotonic())

    def _repeat(self, proceed: Callable[[], bool]) -> bool:
        """Resend all open incidents; whether all were sent."""
        cursor: str | None = None
        try:
            while proceed():
                page = self._outbox.open_incidents(self._channel, BATCH, cursor)
                if page.rows:
                    self._send_batch(page.rows)
                if page.next is None:
                    break
                cursor = page.next
        except InterruptedSendError:
            return False
        except (DeliveryError, StoreUnavailableError) as exc:
            _log.warning("Cannot resend the open incidents; retrying", channel=self._channel, error=str(exc))
            return False
        return True

    def _send_batch(self, batch: Sequence[Incident]) -> None:
        """Send one batch. A rejected batch does not block the others."""
        try:
            self._send(batch)
        except RejectedError as exc:
            _log.error("The receiver rejected the resent open incidents", channel=self._channel, error=str(exc))
