"""What differs between databases: modules for each database, and the list of databases."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sqlalchemy import Dialect

from celery_monitor.adapters.store.dialects.base import Sql, StoreDialect
from celery_monitor.adapters.store.dialects.postgresql_sql import PostgresqlSql
from celery_monitor.adapters.store.dialects.sqlite import SqliteDialect
from celery_monitor.adapters.store.dialects.sqlite_sql import SqliteSql
from celery_monitor.errors import StoreUnusableError
from celery_monitor.settings.secret import SecretSource
from celery_monitor.settings.store import POSTGRESQL, STORE_URL, StoreSchema

_SQL: Final[Mapping[str, type[Sql]]] = {"sqlite": SqliteSql, "postgresql": PostgresqlSql}


def sql_of(dialect: Dialect) -> Sql:
    """The SQL of a SQLAlchemy dialect."""
    return _SQL[dialect.name](dialect)


def dialect_of(
    url: SecretSource,
    *,
    password: SecretSource,
    directory: Path,
    max_bytes: float,
    lease_ttl: float,
    schema: StoreSchema | None,
    setting: str = STORE_URL,
) -> StoreDialect:
    """The database of a URL. Raises StoreUnusableError if the URL is not supported.

    ``schema``: for PostgreSQL. ``lease_ttl``: seconds after which the lease of a silent leader expires. ``setting``:
    name of the setting or option that contains the URL, for remedies.
    """
    text = url.get() or ""
    scheme = text.partition(":")[0].partition("+")[0]
    if scheme == "sqlite":
        return SqliteDialect(text, max_bytes, setting)
    if scheme in POSTGRESQL:
        try:
            from celery_monitor.adapters.store.dialects.postgresql import PostgresqlDialect  # noqa: PLC0415  # optional
        except ImportError as exc:
            raise StoreUnusableError(
                f"{setting}: PostgreSQL needs psycopg, which is not installed here: pip install "
                "'celery-monitor[postgresql]'"
            ) from exc
        return PostgresqlDialect(url, password, directory, schema=schema, idle_timeout=lease_ttl, setting=setting)
    raise StoreUnusableError(
        f"{setting} is invalid: use sqlite:///path/of/a/file.db or postgresql://user@host/database"
    )
