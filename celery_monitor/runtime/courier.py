"""The courier of one channel: takes what is due from the outbox, sends it, and records what became of it.

Each channel has a courier, and each courier a thread, so that a mail server that hangs delays no page. Within
a channel the rows of a route go one at a time and in order (the outbox gives only the oldest of each route),
and a route that waits for a retry or for its rate limit is passed over. What one request may take is bounded
by the sender.

What must survive a crash is in the outbox: the row, its attempts and when it is due. A crash between sending
and recording sends again; the receiver recognises the key. While the process lives nothing is sent twice: an
outcome that the store would not take (its disk is full) is kept here and recorded before its route goes on.
"""

import random
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from celery_monitor.core import backoff
from celery_monitor.core.model import OutboxItem
from celery_monitor.errors import RejectedError, RetryableError, StoreUnavailableError
from celery_monitor.ports import Clock, Outbox, Sender

DELIVERED: Final = "delivered"
RETRIED: Final = "retried"
DEAD: Final = "dead"
OUTCOMES: Final = (DELIVERED, RETRIED, DEAD)
"""Labels of celery_monitor_notifications_total."""

NO_LANE: Final = {"pagerduty": "no routing key is configured", "email": "no recipient is configured"}
"""Errors of rows whose channel was switched off after they had been written."""

POLL: Final = 1.0
"""Seconds between two looks at the outbox when nobody wakes the courier: the precision of retries and of
updates that wait for their interval, and what a lost wake-up costs."""
MAX_ROUTES: Final = 1000
"""Rows taken at once, at most one of each route."""

_log = structlog.get_logger()


class Window:
    """At most ``limit`` events in any ``length`` seconds, exactly: it remembers when each of the last was."""

    def __init__(self, limit: int, length: float = 60.0) -> None:
        self._length = length
        self._times: deque[float] = deque(maxlen=limit)

    def full(self, now: float) -> bool:
        """Whether one more event at ``now`` (monotonic seconds) would be too many."""
        return len(self._times) == self._times.maxlen and now - self._times[0] <= self._length

    def add(self, now: float) -> None:
        """An event happens at ``now``."""
        self._times.append(now)


class Courier:
    """Sends the rows of ``sender.channel``, at most ``rate_limit`` a minute on each of its lanes (None: no limit)."""

    def __init__(
        self,
        outbox: Outbox,
        sender: Sender,
        clock: Clock,
        *,
        rate_limit: int | None = None,
        fraction: Callable[[], float] = random.random,
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._clock = clock
        self._rate_limit = rate_limit
        self._fraction = fraction
        self._windows: dict[str, Window] = {}
        self._unrecorded: dict[int, Callable[[], None]] = {}
        """Row → the call that records its outcome, which the store refused."""
        self._wake = threading.Event()
        self._notifications = dict.fromkeys(OUTCOMES, 0)

    def wake(self) -> None:
        """Look at the outbox now: something was enqueued, or it is time to stop. From any thread."""
        self._wake.set()

    def notifications(self) -> dict[str, int]:
        """Attempts since the start by outcome: delivered, retried, dead. From any thread."""
        return dict(self._notifications)

    def run(self, stop: threading.Event, turned: Callable[[], None]) -> None:
        """Deliver until ``stop`` is set; ``turned`` is called before each wait and each request.

        Ends at once when woken after ``stop`` was set, else within POLL, but for a request under way.
        """

        def proceed() -> bool:
            turned()
            return not stop.is_set()

        while proceed():
            if not self.turn(proceed):
                self._wake.wait(POLL)
                self._wake.clear()

    def turn(self, proceed: Callable[[], bool] = lambda: True) -> bool:
        """Send what may be sent now, one row of each route, unless ``proceed`` says no; does not wait.

        Returns whether anything was sent: then more of the same routes may be due.
        """
        self._record_again()
        try:
            due = self._outbox.due(self._clock.now(), MAX_ROUTES)
        except StoreUnavailableError as exc:
            _log.warning("The outbox cannot be read; trying again", channel=self._sender.channel, error=str(exc))
            return False
        sent = False
        for item in due:
            if item.channel != self._sender.channel or item.id in self._unrecorded:
                continue
            if not proceed():
                break
            sent |= self._deliver(item)
        return sent

    def _deliver(self, item: OutboxItem) -> bool:
        """Send one row and record the outcome. False when its lane may not send now, or the store is away."""
        lane = self._sender.lane(item)
        if lane is None:
            self._dead(item, NO_LANE.get(item.channel, "its channel is not configured"))
            return True
        if not self._admit(lane):
            return False
        try:
            count = self._sender.send(item)
        except RetryableError as exc:
            self._retry(item, exc)
        except RejectedError as exc:
            self._dead(item, str(exc))
        except StoreUnavailableError as exc:
            # The sender reads what it sends from the store; nothing was sent.
            _log.warning("What is to be sent cannot be read", channel=item.channel, key=item.key, error=str(exc))
            return False
        else:
            self._notifications[DELIVERED] += 1
            _log.info(
                "Delivered",
                channel=item.channel,
                key=item.key,
                action=item.action,
                attempts=item.attempts + 1,
            )
            self._record(item, partial(self._outbox.delivered, item, self._clock.now(), count))
        return True

    def _admit(self, lane: str) -> bool:
        if self._rate_limit is None:
            return True
        now = self._clock.monotonic()
        window = self._windows.setdefault(lane, Window(self._rate_limit))
        if window.full(now):
            return False
        window.add(now)
        return True

    def _retry(self, item: OutboxItem, exc: RetryableError) -> None:
        self._notifications[RETRIED] += 1
        wait = max(backoff.delay(item.attempts + 1, self._fraction()), min(exc.after or 0.0, backoff.MAX_RETRY_AFTER))
        _log.warning(
            "Not delivered; trying again",
            channel=item.channel,
            key=item.key,
            attempts=item.attempts + 1,
            wait=round(wait, 1),
            error=str(exc),
        )
        self._record(item, partial(self._outbox.retry, item, self._clock.now() + wait, str(exc)))

    def _dead(self, item: OutboxItem, error: str) -> None:
        self._notifications[DEAD] += 1
        _log.error("Given up; outbox retry tries again", channel=item.channel, key=item.key, id=item.id, error=error)
        self._record(item, partial(self._outbox.dead, item, self._clock.now(), error))

    def _record(self, item: OutboxItem, call: Callable[[], None]) -> None:
        try:
            call()
        except StoreUnavailableError as exc:
            self._unrecorded[item.id] = call
            _log.warning("The outcome cannot be stored; kept", channel=item.channel, key=item.key, error=str(exc))

    def _record_again(self) -> None:
        for row, call in list(self._unrecorded.items()):
            try:
                call()
            except StoreUnavailableError:
                return
            del self._unrecorded[row]
