"""Limits the requests of one account: by its rate limit, and by pauses after failures.

A new page must not wait behind less important rows. So a part of the rate limit is reserved for new incidents, and the
limit is never used up: the next request is always possible within a second or two, and the most important row gets it.

A receiver that is down must not be tried once for each waiting row, and a single failing row must not block the others.
So after a failure the account pauses, for longer the more *different* rows have failed since its last success. In
addition each row waits for its own retry.
"""

from collections import deque
from typing import Final

from celery_monitor.core import backoff
from celery_monitor.core.model import FIRST_UPDATE, OutboxItem

LENGTH: Final = 60.0
"""Seconds of the sliding window that a rate limit applies to."""
UNPACED_SHARE: Final = 0.6
"""Fraction of the limit that may be used at once; the rest is spread over the minute."""
UPDATE_SHARE: Final = 0.5
"""Fraction of the limit that notifications other than new incidents may use."""
MIN_PACED_LIMIT: Final = 10
"""Limits below this are not divided."""
UNREACHABLE_AFTER: Final = 3
"""Different rows failed since the last success, from which on the receiver counts as unreachable."""
PAUSE_CAP: Final = 60.0
"""Maximum pause of an account in seconds: how late a new page can be once the receiver is back."""


class SlidingWindow:
    """At most ``limit`` events in any ``length`` seconds, exactly: it keeps the times of the last events."""

    def __init__(self, limit: int, length: float = LENGTH) -> None:
        self._length = length
        self._limit = limit
        self._times: deque[float] = deque(maxlen=limit)
        paced = limit >= MIN_PACED_LIMIT
        self._update_limit = int(limit * UPDATE_SHARE) if paced else limit
        self._pace = length / (limit - int(limit * UNPACED_SHARE)) if paced else length
        """Seconds within which one more event must always be possible."""

    def wait(self, now: float, *, update: bool) -> float:
        """Seconds until one more event is possible at ``now`` (monotonic seconds), 0 when it is.

        ``update``: it opens no incident.
        """
        times = self._times
        while times and now - times[0] > self._length:
            times.popleft()
        used = len(times)
        if used >= self._limit or (update and used >= self._update_limit):
            return max(self._length - (now - times[0]), 0.001)
        # After this one, ``remaining`` more are possible at once; each further one when an old one leaves the window.
        remaining = self._limit - used - 1
        window_start = now - self._length
        return max(
            0.0,
            max(
                (at - window_start - (remaining + number) * self._pace for number, at in enumerate(times, 1)), default=0
            ),
        )

    def add(self, now: float) -> None:
        """An event happens at ``now``."""
        self._times.append(now)


class SendLimiter:
    """One account. Times are monotonic seconds. ``limit`` is in requests a minute, None for no limit."""

    def __init__(self, limit: int | None) -> None:
        self._window = None if limit is None else SlidingWindow(limit)
        self._failed: set[int] = set()
        """IDs of rows that have failed since the last answer."""
        self._paused_until = 0.0

    def wait(self, item: OutboxItem, now: float) -> float:
        """Seconds until the row may be sent, 0 when it may now."""
        update = item.priority >= FIRST_UPDATE
        limited = 0.0 if self._window is None else self._window.wait(now, update=update)
        asked_for = item.asked_for and item.attempts == 0  # a person's request overrides the pause
        return limited if asked_for else max(limited, self._paused_until - now)

    def sending(self, now: float) -> None:
        """A row is about to be sent."""
        if self._window is not None:
            self._window.add(now)

    def failed(self, row: int, now: float, fraction: float, after: float) -> None:
        """Sending failed. ``after``: seconds that the receiver asked for; ``fraction``: see ``backoff.delay``."""
        self._failed.add(row)
        wait = max(backoff.delay(len(self._failed), fraction, cap=PAUSE_CAP), after)
        self._paused_until = max(self._paused_until, now + wait)

    def note_answer(self) -> bool:
        """The receiver accepted or rejected a row, so it is reachable. Returns whether it was unreachable before."""
        was_unreachable = len(self._failed) >= UNREACHABLE_AFTER
        self._failed.clear()
        self._paused_until = 0.0
        return was_unreachable
