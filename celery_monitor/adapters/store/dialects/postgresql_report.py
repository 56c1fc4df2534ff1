"""PostgreSQL: facts about the server and the connection that an operator should know."""

from collections.abc import Callable
from typing import Any, Final

import psycopg

from celery_monitor.adapters.store.dialects.base import ServerReport

_FACTS: Final = (
    "SELECT extract(epoch FROM clock_timestamp())::double precision, pg_backend_pid(), "
    "current_setting('synchronous_commit'), current_setting('synchronous_standby_names'), "
    "(SELECT count(*) FROM pg_stat_replication), current_setting('fsync')"
)
_INACCESSIBLE: Final = (
    "SELECT relname FROM pg_class WHERE relkind = 'r' "
    "AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = coalesce(%s, current_schema())) "
    "AND NOT (pg_has_role(relowner, 'USAGE') AND has_table_privilege(oid, 'SELECT') "
    "AND has_table_privilege(oid, 'INSERT') AND has_table_privilege(oid, 'UPDATE') "
    "AND has_table_privilege(oid, 'DELETE')) ORDER BY relname"
)


def report(
    connection: psycopg.Connection[tuple[Any, ...]], schema: str | None, now: Callable[[], float]
) -> ServerReport:
    """Query them. Two round trips; needs no privileges. ``now`` returns Unix seconds by this machine's clock."""
    asked_at = now()
    row = connection.execute(_FACTS).fetchone()
    after = now()
    inaccessible = connection.execute(_INACCESSIBLE, (schema,)).fetchall()
    at, process, commit, names, standbys, fsync = row or (after, 0, "on", "", 0, "on")
    return ServerReport(
        clock_offset=at - (asked_at + after) / 2,
        # A pooler reports its own number as the process ID of the backend.
        pooled=process != connection.info.backend_pid,
        synchronous_commit=commit,
        synchronous_standbys=names,
        standbys=standbys,
        fsync=fsync == "on",
        inaccessible=tuple(name for (name,) in inaccessible),
    )
