"""PostgreSQL: the schema that a fleet's tables are in, so that many fleets share one database.

A pooler gives each transaction another connection, so every transaction names the schema for itself. Versions before
there was a setting made their tables wherever the connection's search path led: they are used where they are.
"""

import contextlib
import hashlib
from typing import Any, Final

import psycopg
from psycopg import sql

from celery_monitor.errors import StoreUnusableError
from celery_monitor.settings.store import StoreSchema

WRITERS_LOCK: Final = 4_972_656_140_135_219_821
"""Of the writers to tables that lie where the search path leads. Any number, always the same."""
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
    """Where the tables are. ``configured``: None for wherever the search path leads."""

    def __init__(self, configured: StoreSchema | None) -> None:
        self._wanted = configured
        self.name: str | None = None if configured is None else configured.name
        self._known = configured is None or not configured.derived

    def find(self, connection: Connection) -> None:
        """To be called with each new connection; it is asked only once."""
        if self._known or self._wanted is None:
            return
        exists, old = connection.execute(_FOUND, (self._table(self._wanted.name), _TABLE)).fetchone() or (False, None)
        if not exists and old is not None and self._ours(connection, old):
            self.name = old
        self._known = True

    def _ours(self, connection: Connection, old: str) -> bool:
        """Whether the tables elsewhere are not another fleet's, as far as they say."""
        fleet = sql.SQL("SELECT coalesce(to_jsonb(m)->>'fleet', '') FROM {} AS m").format(sql.Identifier(old, "meta"))
        row = connection.execute(fleet).fetchone()
        return row is None or self._wanted is None or row[0] in {"", self._wanted.fleet}

    def create(self, connection: Connection, location: str) -> None:
        """Make the schema where there is none. Raises StoreUnusableError where that is not allowed."""
        if self.name is None:
            return
        exists, allowed = connection.execute(_RIGHTS, (self.name,)).fetchone() or (False, False)
        if exists:
            return
        if not allowed:
            raise self._no_schema(connection, location)
        with contextlib.suppress(psycopg.errors.UniqueViolation, psycopg.errors.DuplicateSchema):  # by another one
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(self.name)))

    def check(self, connection: Connection, location: str) -> None:
        """Raise StoreUnusableError where the user may not create tables, and could not create the schema either."""
        exists, may_create_it = connection.execute(_RIGHTS, (self.name,)).fetchone() or (False, False)
        if not exists and self.name is not None:
            if may_create_it:
                return
            raise self._no_schema(connection, location)
        # None where no schema of the search path exists.
        schema, allowed = connection.execute(_MAY_CREATE, (self.name,)).fetchone() or (None, None)
        if not allowed:
            user, schema = connection.info.user, self.name or schema
            raise StoreUnusableError(
                f"The store {location} cannot be used: user {user} may not create tables in schema {schema}; as a "
                f'superuser of that database: GRANT CREATE ON SCHEMA {schema or "public"} TO "{user}"'
            )

    def exists(self, connection: Connection) -> bool:
        """Whether the tables are there."""
        table = _TABLE if self.name is None else self._table(self.name)
        row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
        return bool(row and row[0])

    def size(self, connection: Connection) -> int:
        """Bytes of all tables."""
        row = connection.execute(_SIZE, (self.name,)).fetchone()
        return int(row[0]) if row else 0

    @property
    def local(self) -> str:
        """SQL that makes a transaction use it."""
        return "" if self.name is None else f"SET LOCAL search_path TO {_quoted(self.name)}; "

    @property
    def lock(self) -> int:
        """The key of its writers' advisory lock; that of an older version where the tables are that version's."""
        if self.name is None or (self._wanted is not None and self.name != self._wanted.name) or self.name == "public":
            return WRITERS_LOCK
        digest = hashlib.blake2b(f"celery-monitor/{self.name}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)

    @property
    def suffix(self) -> str:
        """For names that tell stores apart; empty where an older version had none."""
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
