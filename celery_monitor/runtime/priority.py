"""Lets scrapes go before flushes and commits, for a bounded time.

A scrape holds the interpreter lock for its whole duration, and a commit for most of it: run concurrently, each takes as
long as both one after the other. Measured by bench/scrape.py (84,000 lines): the slowest scrapes of a run take 40 to
50 ms with this and 55 to 85 ms without; the median and the commits are the same.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from celery_monitor.ports import Clock

MAX_FLUSH_DELAY: Final = 0.05
"""Seconds that a flush waits for scrapes at most."""
MAX_COMMIT_DELAY: Final = 0.1
"""Seconds after its start during which a commit waits for scrapes."""
RECHECK: Final = 0.005
"""Seconds until a waiting flush checks again."""


class ScrapePriority:
    """``scrape`` is for the thread that renders metrics, ``flush_due`` for the pump's, the rest for the committer's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._idle = threading.Event()
        self._idle.set()
        self._commit_until = 0.0
        self._ended = False

    @contextmanager
    def scrape(self) -> Iterator[None]:
        """A scrape is in progress. One at a time."""
        self._idle.clear()
        try:
            yield
        finally:
            self._idle.set()

    def flush_due(self, due_at: float) -> float:
        """Monotonic time at which to flush or to call this again: ``due_at``, or later during a scrape."""
        mono = self._clock.monotonic()
        if mono < due_at or self._idle.is_set():
            return due_at
        return min(mono + RECHECK, due_at + MAX_FLUSH_DELAY)

    def begin_commit(self) -> None:
        """A commit begins: it may wait for MAX_COMMIT_DELAY from now in total, however many scrapes there are."""
        self._commit_until = self._clock.monotonic() + MAX_COMMIT_DELAY

    @property
    def commit_delay(self) -> float:
        """Seconds for which the current commit may still wait for scrapes."""
        return 0.0 if self._ended else max(0.0, self._commit_until - self._clock.monotonic())

    def yield_to_scrape(self) -> None:
        """Wait for a scrape in progress to finish. Call it between the statements of a commit."""
        self._idle.wait(self.commit_delay)

    def end(self) -> None:
        """The process ends: commits no longer wait."""
        self._ended = True
