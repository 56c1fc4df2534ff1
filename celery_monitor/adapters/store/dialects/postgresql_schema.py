"""PostgreSQL: the schema that contains a fleet's tables. With one schema each, several fleets can share a database.

Each transaction sets the schema, because a pooler may assign it another connection. Versions without this setting
created the tables in the first schema of the search path. Such tables are used where they are.
"""

import contextlib
import hashlib
from typing import Any, Final

import psycopg
from psycopg import sql

from celery_monitor.errors import StoreUnusableError
from celery_monitor.settings.store import StoreSchema

WRITERS_LOCK: Final = 4_972_656_140_135_219_821
"""Key of the writers' advisory lock for tables in the first schema of the search path. An arbitrary constant."""
_TABLE: Final = "celery_monitor_version"
_FOUND: Final = (
    "SELECT to_regclass(%s) IS NOT NULL, n.nspname FROM (SELECT to_regclass(%s) AS id) AS found "
    "LEFT JOIN pg_class AS c ON c.oid = found.id LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace"
)
_RIGHTS: Final = (
    "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = coalesce(%s, current_schema())), "
    "has_database_privilege(current_database(), 'CREATE')"
)
_MAY_CREATE: Final = "SELECT current_schema(), has_schema_privilege(coalesce(%s, current_schema()), 'CREATE')"
_SIZE: Final = (
    "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class "
    "WHERE relkind = 'r' "
    "AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = coalesce(%s, current_schema()))"
)
Connection = psycopg.Connection[tuple[Any, ...]]


class TableSchema:
    """The schema of the tables. ``configured``: None means the first schema of the search path."""

    def __init__(self, configured: StoreSchema | None) -> None:
        self._configured = configured
        self.name: str | None = None if configured is None else configured.name
        self._found = configured is None or not configured.derived

    def find(self, connection: Connection) -> None:
        """Find the tables of an older version. Call it with each new connection; only the first call runs a query."""
        if self._found or self._configured is None:
            return
        exists, old = connection.execute(_FOUND, (self._table(self._configured.name), _TABLE)).fetchone() or (
            False,
            None,
        )
        if not exists and old is not None and self._is_of_fleet(connection, old):
            self.name = old
        self._found = True

    def _is_of_fleet(self, connection: Connection, old: str) -> bool:
        """Whether the tables in the schema ``old`` name this fleet or none."""
        fleet = sql.SQL("SELECT coalesce(to_jsonb(m)->>'fleet', '') FROM {} AS m").format(sql.Identifier(old, "meta"))
        row = connection.execute(fleet).fetchone()
        return row is None or self._configured is None or row[0] in {"", self._configured.fleet}

    def create(self, connection: Connection, location: str) -> None:
        """Create the schema if it does not exist. Raises StoreUnusableError if the user may not create it."""
        if self.name is None:
            return
        exists, allowed = connection.execute(_RIGHTS, (self.name,)).fetchone() or (False, False)
        if exists:
            return
        if not allowed:
            raise self._no_schema(connection, location)
        # Another process may create it at the same time.
        with contextlib.suppress(psycopg.errors.UniqueViolation, psycopg.errors.DuplicateSchema):
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(self.name)))

    def check(self, connection: Connection, location: str) -> None:
        """Raise StoreUnusableError if the user may not create the tables, or the schema if it does not exist."""
        exists, may_create_it = connection.execute(_RIGHTS, (self.name,)).fetchone() or (False, False)
        if not exists and self.name is not None:
            if may_create_it:
                return
            raise self._no_schema(connection, location)
        # The schema is None if no schema of the search path exists.
        schema, allowed = connection.execute(_MAY_CREATE, (self.name,)).fetchone() or (None, None)
        if not allowed:
            user, schema = connection.info.user, self.name or schema
            raise StoreUnusableError(
                f"The store {location} cannot be used: user {user} may not create tables in schema {schema}; as a "
                f'superuser of that database: GRANT CREATE ON SCHEMA {schema or "public"} TO "{user}"'
            )

    def exists(self, connection: Connection) -> bool:
        """Whether the tables exist."""
        table = _TABLE if self.name is None else self._table(self.name)
        row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
        return bool(row and row[0])

    def size(self, connection: Connection) -> int:
        """Bytes of all tables in the schema."""
        row = connection.execute(_SIZE, (self.name,)).fetchone()
        return int(row[0]) if row else 0

    @property
    def local(self) -> str:
        """SQL that makes the current transaction use the schema."""
        return "" if self.name is None else f"SET LOCAL search_path TO {_quoted(self.name)}; "

    @property
    def lock(self) -> int:
        """Key of the writers' advisory lock. For tables of an older version, it is that version's key."""
        if (
            self.name is None
            or (self._configured is not None and self.name != self._configured.name)
            or self.name == "public"
        ):
            return WRITERS_LOCK
        digest = hashlib.blake2b(f"celery-monitor/{self.name}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)

    @property
    def suffix(self) -> str:
        """Part of file names that distinguishes schemas; empty for tables of an older version, which had none."""
        return "" if self.lock == WRITERS_LOCK else f"/{self.name}"

    @staticmethod
    def _table(schema: str) -> str:
        return f"{_quoted(schema)}.{_TABLE}"

    def _no_schema(self, connection: Connection, location: str) -> StoreUnusableError:
        user = connection.info.user
        return StoreUnusableError(
            f"The store {location} cannot be used: user {user} may not create the schema {self.name}; as a "
            f'superuser of that database: CREATE SCHEMA {_quoted(self.name or "")} AUTHORIZATION "{user}"; or name one '
            "that exists in store.schema"
        )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
