"""Builds a store from the configuration."""

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
    """Build the store of a URL. Does no I/O. Raises StoreUnusableError for an unsupported URL.

    URLs are ``sqlite:///relative/path``, ``sqlite:////absolute/path``, ``sqlite://`` for a temporary store that
    ``stop`` deletes, and ``postgresql://user@host:port/database?parameters`` as libpq reads them.

    ``retention``: seconds for which data of the past is stored.
    ``fingerprint_window``: number of newest message fingerprints stored for each connection, at least.
    ``password``: for PostgreSQL, if the URL contains none. ``directory``: for this process's small files beside a
    PostgreSQL database. ``schema``: the PostgreSQL schema of the tables, with the fleet's name; None means the first
    schema of the search path.
    ``max_bytes``: maximum size on disk.
    ``quiet_retention``: suppressed and resolved incidents first seen more than this many seconds before the last flush
    are not restored.
    ``max_series``: when more are stored, ``lead`` merges the excess into one, which has a host label if ``hosts`` is
    true.
    ``max_incidents``: the number restored, open ones first. ``max_ended``: the number of ended runs stored.
    ``lease_ttl``: seconds; see Store.
    ``yield_point``: called a few times during a commit; it may block for a moment so that a scrape goes first.
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
