"""Every implementation of a port, each started and stopped around the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.ports import Store
from tests.fakes import MemoryStore

RETENTION = 30 * 86_400.0
KEPT = 4


@pytest.fixture
def sql(tmp_path: Path) -> Iterator[SqlStore]:
    """The real store on a file, started, with its outbox and reader."""
    store = open_store(f"sqlite:///{tmp_path}/store.db", retention=RETENTION, fingerprints_kept=KEPT)
    store.start()
    yield store
    store.stop()


@pytest.fixture(params=["sql", "memory"])
def store(request: pytest.FixtureRequest) -> Store:
    """A Store, started and empty."""
    if request.param == "sql":
        real: SqlStore = request.getfixturevalue("sql")
        return real
    memory = MemoryStore(fingerprints_kept=KEPT)
    memory.start()
    return memory
