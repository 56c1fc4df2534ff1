"""Waiting for a condition, with a deadline: what the tests do instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

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
