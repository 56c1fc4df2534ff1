"""A store from what the configuration says of it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Final

from celery_monitor.adapters.store import restore
from celery_monitor.adapters.store.budget import Budget
from celery_monitor.adapters.store.dialects import dialect_of
from celery_monitor.adapters.store.engine import Database
from celery_monitor.adapters.store.flush import FlushWriter
from celery_monitor.adapters.store.lease import DEFAULT_TTL, Lease
from celery_monitor.adapters.store.merge_series import SeriesMerge
from celery_monitor.adapters.store.retention import Retention
from celery_monitor.adapters.store.store import SqlStore
from celery_monitor.settings.secret import Secret, SecretSource
from celery_monitor.settings.store import StoreSchema

_NO_PASSWORD: Final = SecretSource(None)
_HERE: Final = Path()


def open_store(
    url: SecretSource | str,
    *,
    retention: float,
    fingerprint_window: int,
    password: SecretSource = _NO_PASSWORD,
    directory: Path = _HERE,
    max_bytes: float = math.inf,
    quiet_retention: float = restore.QUIET_RETENTION,
    max_series: int = 10_000,
    max_incidents: int = 2_000,
    max_ended: int = 10_000,
    hosts: bool = False,
    lease_ttl: float = DEFAULT_TTL,
    schema: StoreSchema | None = None,
    yield_point: Callable[[], None] = lambda: None,
) -> SqlStore:
    """A store by its URL. Does no I/O. ``retention`` is in seconds, ``max_bytes`` what it may take on the disk.

    ``quiet_retention``: suppressed and resolved incidents first seen longer than so many seconds before the last flush
    are not read at the start.
    ``max_series``: more are folded into one before they are read, which has a host where ``hosts``. ``max_incidents``:
    more do not come back, open ones before others. ``max_ended``: runs that have ended that are kept.
    ``lease_ttl``: seconds; see Store. ``schema``: of the tables in PostgreSQL, and the fleet's name; None: wherever the
    search path leads.
    ``yield_point`` is called a few times during a commit, and may block for a moment, so that a scrape goes first.
    URLs are ``sqlite:///relative/path``, ``sqlite:////absolute/path``, and ``sqlite://`` for a temporary store that
    goes with ``stop``; and ``postgresql://user@host:port/database?parameters`` as libpq reads them, with ``password``
    where it is not in them, and small files of the process in ``directory``. Raises StoreUnusableError for any other.
    """
    source = url if isinstance(url, SecretSource) else SecretSource(Secret(url))
    database = Database(
        dialect_of(
            source,
            password=password,
            directory=directory,
            max_bytes=max_bytes,
            lease_ttl=lease_ttl,
            schema=schema,
        )
    )
    flush = FlushWriter(
        database.dialect, fingerprint_window=fingerprint_window, max_ended=max_ended, yield_point=yield_point
    )
    merge = SeriesMerge(database.dialect, max_series=max_series, hosts=hosts)
    budget = Budget(database, database.limit)
    return SqlStore(
        database,
        Lease(
            database,
            lease_ttl,
            fleet="" if schema is None else schema.fleet,
            url="" if schema is None else schema.external_url,
        ),
        flush,
        merge,
        budget,
        retention=Retention(database, retention, max_ended),
        quiet_retention=quiet_retention,
        max_incidents=max_incidents,
    )
