"""Waiting for a condition with a deadline, instead of sleeping, and a measure of waiting times."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, TypeVar

_T = TypeVar("_T")


def wait_until(condition: Callable[[], _T], timeout: float = 30.0, *, every: float = 0.02, what: str = "") -> _T:
    """Call ``condition`` until its result is true, and return that result.

    Raises TimeoutError, naming ``what`` and the last result, after ``timeout`` seconds. ``every`` is the
    pause between two calls in seconds; it grows to ten times that, to leave the processor to what is waited
    for.
    """
    deadline = time.monotonic() + timeout
    pause = every
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            message = f"{what or 'the condition'} did not come about in {timeout:g} s; last result: {result!r}"
            raise TimeoutError(message)
        time.sleep(pause)
        pause = min(pause * 1.2, every * 10)


class Stopwatch:
    """Seconds of its block, without those in which the machine kept this process from running.

    For what must not wait long: waiting for a peer counts in full, a stall as a tenth of a second at most.
    """

    _TICK: Final = 0.02
    _MAX_PAUSE: Final = 0.1

    def __init__(self) -> None:
        self.seconds = 0.0
        """Until now, or until the end of the block."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._count, name="stopwatch", daemon=True)

    def _count(self) -> None:
        last = time.monotonic()
        over = False
        while not over:
            over = self._over.wait(self._TICK)
            now = time.monotonic()
            self.seconds += min(now - last, self._MAX_PAUSE)
            last = now

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
