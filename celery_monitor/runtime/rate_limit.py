"""An account that notifications are sent with: how many it may take in a minute, and whether it takes any now.

A new page must not wait behind what is less important. So a part of the rate limit is kept for new incidents, and the
limit is never used up: whatever waits, the next request is possible within a second or two, and the most important row
gets it.

A receiver that is down must not be asked once for each row that waits, and a row that fails alone must not keep back
the others. So after a failure the account rests, and the longer the more *different* rows have failed since its last
success; each row waits for its own retry beside that.
"""

from collections import deque
from typing import Final

from celery_monitor.core import backoff
from celery_monitor.core.model import ASKED_FOR, FIRST_UPDATE, OutboxItem

LENGTH: Final = 60.0
"""Seconds for which a rate limit counts."""
UNPACED_SHARE: Final = 0.6
"""Part of the limit that may be used at once, so that the rest lasts for the minute."""
UPDATE_SHARE: Final = 0.5
"""Part of the limit that what opens no incident may use."""
MIN_PACED_LIMIT: Final = 10
"""A limit below it has no parts."""
UNREACHABLE_AFTER: Final = 3
"""Different rows that have failed since the last success: the fault is the receiver's, not the rows'."""
PAUSE_CAP: Final = 60.0
"""Seconds that an account rests at most: how late a new page can be when the receiver is back."""


class SlidingWindow:
    """At most ``limit`` events in any ``length`` seconds, exactly: it remembers when each of the last was."""

    def __init__(self, limit: int, length: float = LENGTH) -> None:
        self._length = length
        self._limit = limit
        self._times: deque[float] = deque(maxlen=limit)
        paced = limit >= MIN_PACED_LIMIT
        self._update_limit = int(limit * UPDATE_SHARE) if paced else limit
        self._pace = length / (limit - int(limit * UNPACED_SHARE)) if paced else length
        """Seconds within which one more must always be possible."""

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
        # With this one, as many more are possible at once as are left; each later one when an old one is over.
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
        """Rows that have failed since the last one that was answered."""
        self._paused_until = 0.0

    def wait(self, item: OutboxItem, now: float) -> float:
        """Seconds until the row may be sent, 0 when it may now."""
        update = item.priority >= FIRST_UPDATE
        limited = 0.0 if self._window is None else self._window.wait(now, update=update)
        asked_for = item.priority == ASKED_FOR and item.attempts == 0  # by a person, who knows better
        return limited if asked_for else max(limited, self._paused_until - now)

    def sending(self, now: float) -> None:
        """A row is sent."""
        if self._window is not None:
            self._window.add(now)

    def failed(self, row: int, now: float, fraction: float, after: float) -> None:
        """It was not taken. ``after``: seconds that the receiver asked for; ``fraction`` as in ``backoff.delay``."""
        self._failed.add(row)
        wait = max(backoff.delay(len(self._failed), fraction, cap=PAUSE_CAP), after)
        self._paused_until = max(self._paused_until, now + wait)

    def note_answer(self) -> bool:
        """It was taken, or refused for what it is: the receiver is there. Whether it was away before."""
        was_unreachable = len(self._failed) >= UNREACHABLE_AFTER
        self._failed.clear()
        self._paused_until = 0.0
        return was_unreachable
