"""What differs between databases: one module for each, and the list of them."""

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Dialect

from celery_monitor.adapters.store.dialects.base import Sql, StoreDialect
from celery_monitor.adapters.store.dialects.postgresql_sql import PostgresqlSql
from celery_monitor.adapters.store.dialects.sqlite import SqliteDialect
from celery_monitor.adapters.store.dialects.sqlite_sql import SqliteSql
from celery_monitor.errors import StoreUnusableError

_SQL: Final[Mapping[str, type[Sql]]] = {"sqlite": SqliteSql, "postgresql": PostgresqlSql}


def sql_of(dialect: Dialect) -> Sql:
    """The SQL of a dialect by SQLAlchemy's name."""
    return _SQL[dialect.name](dialect)


def dialect_of(url: str, max_bytes: float) -> StoreDialect:
    """The database of a URL. Raises StoreUnusableError for one that is not understood."""
    scheme, separator, _ = url.partition(":")
    if not separator:
        raise StoreUnusableError("store.url is not a URL: write sqlite:///path/of/a/file.db")
    if scheme.partition("+")[0] != "sqlite":
        raise StoreUnusableError(f"store.url: {scheme} is not supported: write sqlite:///path/of/a/file.db")
    return SqliteDialect(url, max_bytes)
