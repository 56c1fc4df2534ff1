"""Runs queries on the store in a few separate threads, so that slow queries delay nothing else."""

import asyncio
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from celery_monitor.errors import StoreUnavailableError
from celery_monitor.ports import DEADLINE

THREADS: Final = 4
QUERY_TIMEOUT_SECONDS: Final = 10.0
"""Time from the request until the store cancels the query."""
LATE_SECONDS: Final = 1.0
"""Additional time after which a query is abandoned that the store should have cancelled, as its disk may hang."""

T = TypeVar("T")


class Queries:
    """Runs blocking calls."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "query")
        self._shared: dict[Hashable, asyncio.Future[Any]] = {}

    async def shared(self, key: Hashable, call: Callable[[], T]) -> T:
        """The result of ``call``, shared with concurrent calls for the same ``key``.

        So the queries of a refreshing page run once at a time, however many viewers it has. Raises like ``__call__``.
        """
        running = self._shared.get(key)
        if running is None:
            running = self._shared[key] = asyncio.ensure_future(self(call))
            running.add_done_callback(lambda _: self._shared.pop(key, None))
        # A client that disconnects must not cancel the answer for the others.
        result: T = await asyncio.shield(running)
        return result

    async def __call__(self, call: Callable[[], T]) -> T:
        """The result of ``call``.

        Raises:
            QueryTimeoutError: The store has cancelled the call after QUERY_TIMEOUT_SECONDS; its thread is free again.
            StoreUnavailableError: Also if the call did not return even then.
        """
        deadline = time.monotonic() + QUERY_TIMEOUT_SECONDS
        future = asyncio.get_running_loop().run_in_executor(self._pool, _until, deadline, call)
        try:
            return await asyncio.wait_for(future, QUERY_TIMEOUT_SECONDS + LATE_SECONDS)
        except TimeoutError as exc:
            raise StoreUnavailableError(f"the store did not respond within {QUERY_TIMEOUT_SECONDS:.0f} s") from exc

    def stop(self) -> None:
        """Drop calls that have not started."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _until(deadline: float, call: Callable[[], T]) -> T:
    token = DEADLINE.set(deadline)
    try:
        return call()
    finally:
        DEADLINE.reset(token)
