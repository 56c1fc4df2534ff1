"""Queries on the store, in a few threads of their own: however slow they are, nothing else waits for them."""

import asyncio
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from celery_monitor.errors import StoreUnavailableError
from celery_monitor.ports import DEADLINE

THREADS: Final = 4
QUERY_TIMEOUT_SECONDS: Final = 10.0
"""From the request on: the store ends what it still reads then."""
LATE_SECONDS: Final = 1.0
"""After which an answer that the store should have ended is no longer waited for: its disk does not answer."""

T = TypeVar("T")


class Queries:
    """Runs calls that block."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "query")
        self._shared: dict[Hashable, asyncio.Future[Any]] = {}

    async def shared(self, key: Hashable, call: Callable[[], T]) -> T:
        """What ``call`` returns; whoever asks for the same ``key`` meanwhile gets the same answer.

        However many look at a page that stays current, its queries run once at a time. Raises as a call does.
        """
        running = self._shared.get(key)
        if running is None:
            running = self._shared[key] = asyncio.ensure_future(self(call))
            running.add_done_callback(lambda _: self._shared.pop(key, None))
        # One client that leaves must not take the answer from the others.
        result: T = await asyncio.shield(running)
        return result

    async def __call__(self, call: Callable[[], T]) -> T:
        """What ``call`` returns.

        Raises:
            QueryTimeoutError: The store has ended the call after QUERY_TIMEOUT_SECONDS; its thread is free again.
            StoreUnavailableError: Also when the call did not come back from the store even then.
        """
        deadline = time.monotonic() + QUERY_TIMEOUT_SECONDS
        future = asyncio.get_running_loop().run_in_executor(self._pool, _until, deadline, call)
        try:
            return await asyncio.wait_for(future, QUERY_TIMEOUT_SECONDS + LATE_SECONDS)
        except TimeoutError as exc:
            raise StoreUnavailableError(f"the store did not respond within {QUERY_TIMEOUT_SECONDS:.0f} s") from exc

    def stop(self) -> None:
        """Drop what has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _until(deadline: float, call: Callable[[], T]) -> T:
    token = DEADLINE.set(deadline)
    try:
        return call()
    finally:
        DEADLINE.reset(token)
