"""The store, the outbox and the reader on one SQL database, by SQLAlchemy Core and Alembic.

A public method is one transaction; it takes and returns values of ``core.model``. Nothing here keeps state that the
database does not have, but for what the last flush has written. No SQL text leaves this package, and no error's text
holds a value that came from the fleet.

Only the daemon calls ``SqlStore.start``; it takes the database for itself. The command line calls ``attach``, and uses
``outbox`` and ``reader`` beside a running daemon.
"""

from celery_monitor.adapters.store.dialects.base import ServerReport
from celery_monitor.adapters.store.opening import open_store
from celery_monitor.adapters.store.store import SqlStore

__all__ = ["ServerReport", "SqlStore", "open_store"]
