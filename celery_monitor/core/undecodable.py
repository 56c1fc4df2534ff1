"""Detects that most messages cannot be decoded, because the fleet serializes its events in an unsupported way.

A single stray message proves nothing and must not make the monitor unready for ever.
"""

from collections import deque
from typing import Final

from celery_monitor.core.text import printable

WINDOW: Final = 300.0
"""Length of the sliding window, in seconds."""
MIN_MESSAGES: Final = 3
"""Minimum number of undecodable messages in the window."""
_STEP: Final = 10.0
_MAX_LENGTH: Final = 80


class UndecodableMessages:
    """Not thread-safe: it belongs to the monitor."""

    def __init__(self) -> None:
        self.problem: str | None = None
        """The problem and its solution, as of the last tick; None if there is none."""
        self._number = 0
        self._kind = ""
        self._seen: deque[tuple[float, int, int]] = deque()

    def note(self, reason: str, content_type: str) -> None:
        """Count an undecodable message. ``reason``: ``compressed``, or because of its content type."""
        self._number += 1
        self._kind = f"{printable(content_type, _MAX_LENGTH) or 'without a content type'}" + (
            f", {reason}" if reason == "compressed" else ""
        )

    def tick(self, now: float, messages: int) -> None:
        """Update ``problem``. ``messages``: number of messages from the fleet so far, decoded or not."""
        samples = self._seen
        if samples and now < samples[-1][0]:
            samples.clear()
        if not samples or now - samples[-1][0] >= _STEP:
            samples.append((now, self._number, messages))
        while now - samples[0][0] > WINDOW:
            samples.popleft()
        _, number, before = samples[0]
        unread, arrived = self._number - number, messages - before
        self.problem = None
        if unread >= MIN_MESSAGES and 2 * unread > arrived:
            self.problem = (
                f"{unread:,} of {arrived:,} messages in the last {WINDOW / 60:.0f} minutes cannot be read "
                f"({self._kind}): set event_serializer = 'json' in the fleet's Celery configuration and restart its "
                "workers"
            )
