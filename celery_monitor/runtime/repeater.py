"""Open incidents, sent again and again to a receiver that forgets what it does not hear of.

Nothing is remembered here: which incidents are open, and which of them the channel has delivered, is what the store
says, so a restart repeats exactly what the process before it repeated, and at once. One that is resolved or expired is
no longer repeated from the moment at which that is committed.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from celery_monitor.core.model import Incident
from celery_monitor.core.paging import Page
from celery_monitor.errors import DeliveryError, InterruptedSendError, RejectedError, StoreUnavailableError
from celery_monitor.ports import Clock

BATCH: Final = 100
"""Incidents of one request."""
_RETRY_SHARE: Final = 4
"""After a failure the next try comes after this part of the interval."""

_log = structlog.get_logger()


class OpenIncidents(Protocol):
    """The part of the Outbox that is used here."""

    def open_incidents(self, channel: str, limit: int, cursor: str | None = None) -> Page[Incident]:
        """See Outbox."""


class Repeater:
    """Repeats what is open on one channel every ``interval`` seconds. Used by the thread of its notifier."""

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
        """Repeat what is open, when it is time, until ``proceed`` says no; the seconds until it is time again."""
        if self._clock.monotonic() >= self._due_at:
            wait = self._interval if self._repeat(proceed) else self._interval / _RETRY_SHARE
            self._due_at = self._clock.monotonic() + wait
        return max(0.0, self._due_at - self._clock.monotonic())

    def _repeat(self, proceed: Callable[[], bool]) -> bool:
        """Whether all of it was sent."""
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
        """What is refused for good keeps back no other batch."""
        try:
            self._send(batch)
        except RejectedError as exc:
            _log.error("The receiver rejected the resent open incidents", channel=self._channel, error=str(exc))
