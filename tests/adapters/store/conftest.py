"""A store's file, and fixtures that open it."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.adapters.store.dialects import sqlite

Open = Callable[..., SqlStore]


@pytest.fixture(autouse=True)
def patient_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long timeout, because SQLite does not serve writers in turn on a slow disk."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 120.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the store's file."""
    return tmp_path / "store.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Open]:
    """Creates stores on ``path``, not started, and stops them after the test."""
    stores: list[SqlStore] = []

    def make(
        url: str | None = None,
        *,
        retention: float = 30 * 86_400.0,
        fingerprint_window: int = 4000,
        quiet_retention: float = 86_400.0,
        max_bytes: float = math.inf,
    ) -> SqlStore:
        url = f"sqlite:///{path}" if url is None else url
        made = open_store(
            url,
            retention=retention,
            fingerprint_window=fingerprint_window,
            quiet_retention=quiet_retention,
            max_bytes=max_bytes,
        )
        stores.append(made)
        return stores[-1]

    yield make
    for store in stores:
        store.stop()


@pytest.fixture
def store(opened: Open) -> SqlStore:
    """A started store on ``path``."""
    started = opened()
    started.start()
    return started
