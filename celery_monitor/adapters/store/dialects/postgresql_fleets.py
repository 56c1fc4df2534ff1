"""PostgreSQL: finds other fleets in the same database, each of which has its own schema.

These schemas may belong to other users, so only plain text columns of plain tables are read. A view, a policy, a
generated column or a custom type could run another user's code with the privileges of this one.
"""

from typing import Any, Final

import psycopg
from psycopg import sql

MAX_FLEETS: Final = 50
_MAX_NAME: Final = 255
_MAX_URL: Final = 2_000
_READABLE: Final = """
SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relname = 'meta' AND c.relkind = 'r' AND NOT c.relrowsecurity AND NOT c.relhassubclass
AND n.nspname <> coalesce(%s, current_schema())
AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
AND 2 = (SELECT count(*) FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname IN ('fleet', 'external_url')
         AND a.atttypid = 'text'::regtype AND a.attgenerated = '')
AND EXISTS (SELECT FROM pg_class AS v WHERE v.relnamespace = n.oid AND v.relname = 'celery_monitor_version')
ORDER BY n.nspname LIMIT %s
"""
_FLEET: Final = sql.SQL(
    "(SELECT left(m.fleet, {name}), left(m.external_url, {url}) FROM {table} AS m "
    "WHERE m.fleet <> '' AND m.external_url <> '' LIMIT 1)"
)


def other_fleets(connection: psycopg.Connection[tuple[Any, ...]], schema: str | None) -> list[tuple[str, str]]:
    """(name, URL of the page) of each other fleet, as stored. Runs in the caller's transaction. Two round trips.

    ``schema``: this fleet's schema, which is skipped; None means the first schema of the search path.
    """
    schemas = [name for (name,) in connection.execute(_READABLE, (schema, MAX_FLEETS)).fetchall()]
    if not schemas:
        return []
    query = sql.SQL(" UNION ALL ").join(
        _FLEET.format(name=sql.Literal(_MAX_NAME), url=sql.Literal(_MAX_URL), table=sql.Identifier(name, "meta"))
        for name in schemas
    )
    return sorted((str(fleet), str(url)) for fleet, url in connection.execute(query).fetchall())
