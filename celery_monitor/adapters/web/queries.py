"""Queries on the store, in a few threads of their own: however slow they are, nothing else waits for them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from celery_monitor.errors import StoreUnavailableError

THREADS: Final = 4
PATIENCE_SECONDS: Final = 10.0

T = TypeVar("T")


class Queries:
    """Runs calls that block."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "query")

    async def __call__(self, call: Callable[[], T]) -> T:
        """What ``call`` returns.

        Raises:
            StoreUnavailableError: Also when there is no answer within PATIENCE_SECONDS. A call that has begun goes on
                then, and keeps its thread.
        """
        future = asyncio.get_running_loop().run_in_executor(self._pool, call)
        try:
            return await asyncio.wait_for(future, PATIENCE_SECONDS)
        except TimeoutError as exc:
            raise StoreUnavailableError(f"the store has not answered within {PATIENCE_SECONDS:.0f} s") from exc

    def stop(self) -> None:
        """Drop what has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)
