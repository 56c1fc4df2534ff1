"""Every implementation of a port, started and stopped around each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.ports import Store
from tests.fakes import MemoryStore

RETENTION = 30 * 86_400.0
FINGERPRINT_WINDOW = 4
MAX_ENDED = 5


@pytest.fixture
def sql(store_url: str, tmp_path: Path) -> Iterator[SqlStore]:
    """The real store, on SQLite and on PostgreSQL, started, with its outbox and reader."""
    store = open_store(
        store_url, directory=tmp_path, retention=RETENTION, fingerprint_window=FINGERPRINT_WINDOW, max_ended=MAX_ENDED
    )
    store.start()
    yield store
    store.stop()


@pytest.fixture(params=["sqlite", "postgresql", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A Store, started and empty."""
    if request.param != "memory":
        on_server = request.param == "postgresql"
        url = request.getfixturevalue("postgresql_url") if on_server else f"sqlite:///{tmp_path}/store.db"
        real = open_store(url, directory=tmp_path, retention=RETENTION, fingerprint_window=FINGERPRINT_WINDOW)
        real.start()
        yield real
        real.stop()
        return
    memory = MemoryStore(fingerprint_window=FINGERPRINT_WINDOW)
    memory.start()
    yield memory
