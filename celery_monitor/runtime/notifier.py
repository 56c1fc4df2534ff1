"""The notifier of one channel: reads due rows from the outbox, sends them, and records the outcome.

Each channel has its own notifier and thread, so that a hanging mail server delays no page. Within a channel, the outbox
returns the most important row of each route, and one row is sent at a time. A row that waits for its retry does not
block others; when a receiver does not answer, ``rate_limit`` bounds how often it is tried. The sender bounds how long a
request may take.

The outbox holds what must survive a crash: the row, its attempts and when it is due. After a crash between sending and
recording, the row is sent again, and the receiver deduplicates by its key. While the process runs, nothing is sent
twice: an outcome that cannot be stored (full disk) is kept in memory and recorded before the route continues.
"""

import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import structlog

from celery_monitor.core import backoff
from celery_monitor.core.model import OutboxItem
from celery_monitor.errors import (
    InterruptedSendError,
    LeaseLostError,
    MaybeDeliveredError,
    RejectedError,
    RetryableError,
    StoreUnavailableError,
    UncertainError,
)
from celery_monitor.ports import Clock, Sender, Sent
from celery_monitor.runtime.rate_limit import SendLimiter
from celery_monitor.runtime.repeater import Repeater

DELIVERED: Final = "delivered"
RETRIED: Final = "retried"
DEAD: Final = "dead"
UNKNOWN: Final = "unknown"
OUTCOMES: Final = (DELIVERED, RETRIED, DEAD, UNKNOWN)
"""Labels of celery_monitor_notifications_total."""

POLL: Final = 1.0
"""Seconds between two reads of the outbox while a row of the channel is pending: the precision of retries."""
IDLE_POLL: Final = 5.0
"""Seconds between two reads while no row is pending. Each commit with rows for the channel wakes the notifier, so this
only delays rows that others write (``outbox retry`` on the command line or over HTTP), and lost wake-ups."""
MAX_ROUTES: Final = 1000
"""Rows read at once, at most one of each route."""

_log = structlog.get_logger()


class OutboxRows(Protocol):
    """The part of the Outbox that a notifier uses."""

    def due(self, now: float, limit: int) -> list[OutboxItem]:
        """See Outbox."""

    def waiting(self, channel: str) -> bool:
        """See Outbox."""

    def delivered(self, item: OutboxItem, now: float, count: int | None, receipt: str | None = None) -> None:
        """See Outbox."""

    def retry(self, item: OutboxItem, due_at: float, error: str) -> None:
        """See Outbox."""

    def expedite(self, channel: str, now: float) -> None:
        """See Outbox."""

    def dead(self, item: OutboxItem, now: float, error: str) -> None:
        """See Outbox."""

    def uncertain(self, item: OutboxItem, now: float, error: str) -> None:
        """See Outbox."""


class Unconfigured:
    """The sender of a channel that is no longer configured: all its rows become dead."""

    missing: str = "no channel with this name is configured: add it again, or ignore this notification"

    def __init__(self, channel: str) -> None:
        self.channel = channel

    def rate_limit_key(self, item: OutboxItem) -> None:
        """Always None: the channel is not configured."""
        del item

    def send(self, item: OutboxItem) -> Sent:
        """Never called, because ``rate_limit_key`` is None."""
        raise RejectedError(f"{item.channel}: {self.missing}")

    def stop(self) -> None:
        """Does nothing: no request is ever in progress."""


class Notifier:
    """Sends the rows of ``sender.channel``, at most ``rate_limit`` a minute with each account (None: no limit)."""

    def __init__(
        self,
        outbox: OutboxRows,
        sender: Sender,
        clock: Clock,
        *,
        rate_limit: int | None = None,
        idempotent: bool = False,
        repeater: Repeater | None = None,
        fraction: Callable[[], float] = random.random,
        may_send: Callable[[OutboxItem | None], bool] = lambda _: True,
    ) -> None:
        """Does no I/O. ``idempotent``: the receiver deduplicates, so waiting rows may be retried early.

        That happens at the start, when the receiver is back, and when a configuration that had to be repaired has
        changed. ``repeater``: for a receiver that needs open incidents to be resent. ``may_send``: whether this process
        may send the row now (None: the repeater's batch); if not, the row is tried again later.
        """
        self._outbox = outbox
        self._sender = sender
        self._clock = clock
        self._rate_limit = rate_limit
        self._fraction = fraction
        self._repeater = repeater
        self._may_send = may_send
        self._limiters: dict[str, SendLimiter] = {}
        self._idempotent = idempotent
        self._expedite = idempotent
        """Waiting retries are to be made due now."""
        self._unusable: dict[str, tuple[OutboxItem, str]] = {}
        """Route → a row that failed until somebody repairs the configuration, and the account that it was sent with."""
        self._pause = POLL
        self._unrecorded: dict[int, Callable[[], None]] = {}
        """Row ID → the call that records its outcome, which the store could not take."""
        self._wake = threading.Event()
        self._notifications = dict.fromkeys(OUTCOMES, 0)

    def wake(self) -> None:
        """Read the outbox now, because a row was added or the notifier is to stop. From any thread."""
        self._wake.set()

    def notifications(self) -> dict[str, int]:
        """Attempts since the start by outcome: delivered, retried, dead, unknown. From any thread."""
        return dict(self._notifications)

    def run(self, stop: threading.Event, heartbeat: Callable[[], None]) -> None:
        """Deliver until ``stop`` is set; ``heartbeat`` is called before each wait and each request.

        Raises LeaseLostError.

        Ends at once when woken after ``stop`` was set, else within IDLE_POLL, plus the time of a request in progress.
        """

        def proceed() -> bool:
            heartbeat()
            return not stop.is_set()

        while proceed():
            if not self.run_once(proceed):
                self._wake.wait(self._pause)
                self._wake.clear()

    def run_once(self, proceed: Callable[[], bool] = lambda: True) -> bool:
        """Send what may be sent now, one row of each route, until ``proceed`` returns False; does not wait.

        Returns whether anything was sent: then more of the same routes may be due.
        """
        self._record_again()
        repeat_in = IDLE_POLL
        if self._repeater is not None:
            repeat_in = self._repeater.run_once(proceed) if self._may_send(None) else POLL
        self._pause = min(POLL, repeat_in)
        try:
            self._expedite_retries()
            due = [
                row for row in self._outbox.due(self._clock.now(), MAX_ROUTES) if row.channel == self._sender.channel
            ]
            if not (due or self._unusable or self._unrecorded or self._outbox.waiting(self._sender.channel)):
                self._pause = min(repeat_in, IDLE_POLL)
        except StoreUnavailableError as exc:
            _log.warning("Cannot read the outbox; retrying", channel=self._sender.channel, error=str(exc))
            return False
        return self._send_due(due, proceed)

    def _send_due(self, due: list[OutboxItem], proceed: Callable[[], bool]) -> bool:
        sent = False
        for item in due:
            if item.id in self._unrecorded:
                continue
            if not proceed():
                break
            if not self._may_send(item):
                continue
            sent |= self._deliver(item)
        return sent

    def _deliver(self, item: OutboxItem) -> bool:
        """Send one row and record the outcome. False if its account may not send now, or the store is unavailable."""
        account = self._sender.rate_limit_key(item)
        if account is None:
            self._dead(item, self._sender.missing)
            return True
        limiter = self._limiters.setdefault(account, SendLimiter(self._rate_limit))
        now = self._clock.monotonic()
        wait = limiter.wait(item, now)
        if wait > 0:
            self._pause = min(self._pause, wait)
            return False
        limiter.sending(now)
        try:
            sent = self._sender.send(item)
        except InterruptedSendError:
            return False  # interrupted by our shutdown: not an attempt; the next process retries it first
        except RetryableError as exc:
            self._retry(item, exc, limiter)
            if exc.needs_repair:
                self._unusable[item.route] = item, account
        except (RejectedError, MaybeDeliveredError) as exc:
            self._give_up(item, exc, limiter)
        except StoreUnavailableError as exc:
            # The sender reads the content from the store, so nothing was sent.
            _log.warning("Cannot read the notification to send", channel=item.channel, key=item.key, error=str(exc))
            return False
        except Exception as exc:  # noqa: BLE001 - the boundary: a row that cannot be rendered or sent must not stop the others
            self._failed(item, exc)
        else:
            self._answered(item, limiter)
            self._delivered(item, sent)
        return True

    def _delivered(self, item: OutboxItem, sent: Sent) -> None:
        if not sent.skipped:
            self._notifications[DELIVERED] += 1
            _log.info("Delivered", channel=item.channel, key=item.key, action=item.action, attempts=item.attempts + 1)
        count = None if sent.skipped else sent.count
        self._record(item, partial(self._outbox.delivered, item, self._clock.now(), count, sent.receipt))

    def _failed(self, item: OutboxItem, exc: Exception) -> None:
        if isinstance(exc, LeaseLostError):
            raise exc  # the sender could not store its progress, so it has not sent anything
        _log.error("Internal error while sending a notification", channel=item.channel, key=item.key, exc_info=exc)
        # Only the log gets its text: it may contain anything.
        self._retry(item, RetryableError("internal error; see the log", needs_repair=True), None)

    def _give_up(self, item: OutboxItem, exc: RejectedError | MaybeDeliveredError, limiter: SendLimiter) -> None:
        if isinstance(exc, MaybeDeliveredError):
            self._uncertain(item, str(exc))
        else:
            self._answered(item, limiter)
            self._dead(item, str(exc))

    def _answered(self, item: OutboxItem, limiter: SendLimiter) -> None:
        was_unreachable = limiter.note_answer()
        if self._unusable.pop(item.route, None) is not None or was_unreachable:
            self._expedite = True

    def _expedite_retries(self) -> None:
        """Make waiting retries due if they may succeed now; accounts still pause after a failure.

        Raises StoreUnavailableError.
        """
        for route, (item, account) in list(self._unusable.items()):
            if self._sender.rate_limit_key(item) != account:
                self._expedite = True
                del self._unusable[route]
        if self._expedite and self._idempotent:
            self._outbox.expedite(self._sender.channel, self._clock.now())
        self._expedite = False

    def _retry(self, item: OutboxItem, exc: RetryableError, limiter: SendLimiter | None) -> None:
        fraction, uncertain = self._fraction(), isinstance(exc, UncertainError)
        self._notifications[UNKNOWN if uncertain else RETRIED] += 1
        # After an unknown outcome the wait is our own, not one that the receiver asked for.
        retry_after = exc.after or 0.0 if uncertain else min(exc.after or 0.0, backoff.MAX_RETRY_AFTER)
        attempts = item.attempts + 1
        if exc.needs_repair:
            wait = backoff.delay(attempts, fraction, base=backoff.REPAIR_BASE, cap=backoff.REPAIR_CAP)
        else:
            wait = backoff.delay(attempts, fraction)
        wait = max(wait, retry_after)
        if limiter is not None:
            # An uncertain mail waits alone: the server did not ask for a pause.
            min_delay = 0.0 if uncertain else retry_after
            limiter.failed(item.id, self._clock.monotonic(), fraction, min_delay)
        log = _log.error if exc.needs_repair else _log.warning
        log(
            "Delivery failed; retrying",
            channel=item.channel,
            key=item.key,
            attempts=attempts,
            wait=round(wait, 1),
            error=str(exc),
        )
        self._record(item, partial(self._outbox.retry, item, self._clock.now() + wait, str(exc)))

    def _dead(self, item: OutboxItem, error: str) -> None:
        self._notifications[DEAD] += 1
        _log.error(
            "Delivery failed for good; fix the cause, then run `celery-monitor outbox retry`",
            channel=item.channel,
            key=item.key,
            id=item.id,
            error=error,
        )
        self._record(item, partial(self._outbox.dead, item, self._clock.now(), error))

    def _uncertain(self, item: OutboxItem, error: str) -> None:
        self._notifications[UNKNOWN] += 1
        _log.error(
            "Delivery not confirmed; it may have arrived", channel=item.channel, key=item.key, id=item.id, error=error
        )
        self._record(item, partial(self._outbox.uncertain, item, self._clock.now(), error))

    def _record(self, item: OutboxItem, call: Callable[[], None]) -> None:
        try:
            call()
        except StoreUnavailableError as exc:
            self._unrecorded[item.id] = call
            _log.warning("Cannot store the outcome; kept in memory", channel=item.channel, key=item.key, error=str(exc))

    def _record_again(self) -> None:
        for row, call in list(self._unrecorded.items()):
            try:
                call()
            except StoreUnavailableError:
                return
            del self._unrecorded[row]
