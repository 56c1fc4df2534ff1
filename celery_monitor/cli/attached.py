"""The store for commands that can run while the daemon is running."""

from collections.abc import Iterator
from contextlib import contextmanager

from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.settings import Settings


@contextmanager
def attached_store(settings: Settings) -> Iterator[SqlStore]:
    """The configured store, without the leader's lease, for reading, silences and retries. See SqlStore.attach."""
    store = open_store(
        settings.store.url_source(),
        password=settings.store.password_source(),
        schema=settings.schema_of_store,
        retention=settings.store.retention,
        fingerprint_window=0,
    )
    store.attach()
    try:
        yield store
    finally:
        store.stop()
