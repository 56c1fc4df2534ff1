"""The store, the outbox and the reader on one SQL database, built with SQLAlchemy Core and Alembic.

Each public method is one transaction, which takes and returns values of ``core.model``. This package caches nothing of
the database except what the last flush wrote. No SQL leaves it, and no error message contains a value of the fleet.

Only the daemon calls ``SqlStore.lead`` or ``start``, which take the lease of the database. Commands call ``attach``
and use ``outbox``, ``reader`` and ``silences`` beside a running daemon.
"""

from celery_monitor.adapters.store.dialects.base import ServerReport
from celery_monitor.adapters.store.opening import open_store
from celery_monitor.adapters.store.store import SqlStore

__all__ = ["ServerReport", "SqlStore", "open_store"]
