"""Queries have a deadline that the store knows, and their threads become free again."""

import asyncio
import math
import time

import pytest

from celery_monitor.adapters.web import queries
from celery_monitor.adapters.web.queries import THREADS, Queries
from celery_monitor.errors import QueryTimeoutError
from celery_monitor.ports import DEADLINE


def endless() -> None:
    """A query that the store ends at the deadline."""
    while time.monotonic() < DEADLINE.get():
        time.sleep(0.005)
    raise QueryTimeoutError("took too long")


def test_slow_queries_leave_their_threads_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """All threads reach their deadline, and the next query is answered by one of them."""

    async def ask() -> list[object]:
        asked = Queries()
        monkeypatch.setattr(queries, "QUERY_TIMEOUT_SECONDS", 0.05)
        slow = await asyncio.gather(*(asked(endless) for _ in range(THREADS)), return_exceptions=True)
        monkeypatch.setattr(queries, "QUERY_TIMEOUT_SECONDS", 60.0)
        last = await asked(lambda: math.isfinite(DEADLINE.get()))
        asked.stop()
        return [*map(type, slow), last]

    assert asyncio.run(ask()) == [QueryTimeoutError] * THREADS + [True]
    assert DEADLINE.get() == math.inf
