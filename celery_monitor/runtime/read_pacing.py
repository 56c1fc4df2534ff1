"""When to read the stream next: a read costs as much as reading some thirty messages, so reads should not be small.

While few messages arrive, they are read every READ_INTERVAL. At a higher rate, the pause is as long as a batch needs to
arrive: BATCH messages or BATCH_BYTES, whichever comes first, since workers may send many events in one message. A read
of a batch or more is followed by the next one at once, so a backlog is read without pauses. A single small read does
not end this: with a backlog, a read right after an acknowledgement often returns only the first messages that the
broker sends.
"""

import math
from typing import Final

READ_INTERVAL: Final = 0.2
"""Maximum seconds from one read to the next. A failure waits up to this time to be read, and then for its commit."""
BATCH: Final = 300
"""Messages that each read should return."""
BATCH_BYTES: Final = 256 << 10
"""Bytes of messages that each read should return. The socket's buffer holds more."""


class ReadPacing:
    """The time of the next read. ``batch``: messages that each read should return."""

    def __init__(self, batch: int = BATCH) -> None:
        """Start with a read that is due at once."""
        self.next_at = 0.0
        """Monotonic time at which to read next."""
        self._batch = batch
        self._read_at = 0.0
        self._recent = 0.0
        """Batches read within about the last READ_INTERVAL: older reads count less and less."""

    def note(self, messages: int, size: int, at: float, max_pause: float = READ_INTERVAL) -> None:
        """Record a read of messages with ``size`` bytes in total at this monotonic time.

        The next read is ``max_pause`` seconds later at most.
        """
        batches = max(messages / self._batch, size / BATCH_BYTES)
        self._recent = self._recent * math.exp((self._read_at - at) / READ_INTERVAL) + batches
        self._read_at = self.next_at = at
        if batches < 1:
            self.next_at += min(max_pause, READ_INTERVAL / max(self._recent, 1))
