"""The store of a command that works beside the daemon."""

from collections.abc import Iterator
from contextlib import contextmanager

from celery_monitor.adapters.store import SqlStore, open_store
from celery_monitor.settings import Settings


@contextmanager
def attached_store(settings: Settings) -> Iterator[SqlStore]:
    """The store of the settings, for reading and for what people write, without leading. See SqlStore.attach."""
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
