"""The lease: one row that says which process leads, by the clock of the database.

A process that takes it writes a token of its own into the row. Every write transaction of that process requires the
token (``Database.fence``), so nothing of a former leader is applied, however late it comes. An expired lease stays with
its holder until another process takes it.

A SQLite file has a lock of its own: whoever has that lock may take the lease.
"""

import secrets
from typing import Any, Final

from sqlalchemy import Connection, Double, insert, inspect, literal_column, select, update

from celery_monitor.adapters.store import encode, migrate
from celery_monitor.adapters.store.engine import ANSWER, Database, require
from celery_monitor.adapters.store.schema import meta
from celery_monitor.adapters.store.sequence import SequenceRecord
from celery_monitor.errors import StoreUnavailableError, StoreUnusableError
from celery_monitor.ports import LeaseState

DEFAULT_TTL: Final = 3.0
"""Seconds."""
_THE_ROW: Final = 1
_NOBODY: Final = LeaseState(holder="", term=0, expires_in=0.0)


class Lease:
    """The lease of one database, as one process sees it. Methods raise as those of Store."""

    def __init__(self, database: Database, ttl: float, *, fleet: str, url: str) -> None:
        """``ttl``: seconds. ``fleet``: whose counts are written, and ``url``: of its page, for who finds the tables."""
        self.ttl = ttl
        self._announced = {"fleet": encode.storable(fleet), "external_url": encode.storable(url)}
        self._database = database
        self._now: Any = literal_column(database.clock, Double)
        self._readable = False
        self._newest: SequenceRecord | None = None
        self._newest_term = 0
        self._checked_term = 0

    def check(self, state: LeaseState) -> None:
        """Raise StoreUnavailableError where who leads is of a newer version: this process could not take over.

        A database is migrated by who begins to lead on it, so once in a term is enough.
        """
        if state.expires_in > 0 and state.term != self._checked_term:
            with self._database.read() as connection:
                try:
                    migrate.check(connection, self._database.location)
                except StoreUnusableError as exc:
                    raise StoreUnavailableError(str(exc)) from exc
            self._checked_term = state.term

    def newest(self) -> SequenceRecord | None:
        """The newest flush that was seen here while another process led; it is forgotten.

        A server that takes over from one that has failed may lack flushes that its leader has acknowledged. The former
        leader knows, but another process leads then: this is how that one knows.
        """
        newest, self._newest = self._newest, None
        return newest

    def state(self) -> LeaseState:
        """As the row has it. Nobody leads a database without tables, or with those of an older version."""
        with self._database.read() as connection:
            return self._state(connection)

    def busy(self, connection: Connection) -> bool:
        """Whether another process leads. The one that the lease was taken from does not."""
        return self._database.shared and self._state(connection).expires_in > 0

    def take(self, connection: Connection, token: str, holder: str) -> bool:
        """Become the leader, who writes with this token; False while another process leads."""
        lease_until = self._now + self.ttl
        values = {"writer": token, "holder": encode.storable(holder), "lease_until": lease_until, **self._announced}
        identity = connection.execute(select(meta.c.identity)).scalar()
        if identity is None:
            first = {"id": _THE_ROW, "sequence": 0, "epoch": 0, "at": 0.0, "term": 1}
            connection.execute(insert(meta).values(**first, **values, identity=secrets.token_hex(8)))
        elif self.busy(connection):
            return False
        else:
            store_identity = identity or secrets.token_hex(8)
            connection.execute(update(meta).values(**values, identity=store_identity, term=meta.c.term + 1))
        return True

    def extension(self) -> dict[str, Any]:
        """The values that renew the lease, for an UPDATE that requires the token."""
        return {"lease_until": self._now + self.ttl}

    def renew(self, token: str) -> None:
        """Extend it from now on. Raises LeaseLostError."""
        # Whoever cannot renew it in that time has to know: it may be another one's.
        with self._database.write(fenced=False, lock_wait=self.ttl, silence=self.ttl + ANSWER) as connection:
            require(connection, token)
            connection.execute(update(meta).values(self.extension()))

    def resign(self, token: str) -> None:
        """Give it up at once, where it is still held by this token; the token is worth nothing afterwards."""
        given_up = {"writer": "", "lease_until": self._now}
        with self._database.write(fenced=False) as connection:
            connection.execute(update(meta).where(meta.c.writer == token).values(given_up))

    def position(self) -> str | None:
        """See Store."""
        with self._database.read() as connection:
            if not self._is_readable(connection):
                return None
            position: str | None = connection.execute(select(meta.c.position)).scalar()
            return position

    def _is_readable(self, connection: Connection) -> bool:
        if not self._readable:
            tables = inspect(connection)
            columns = tables.get_columns(meta.name) if tables.has_table(meta.name) else ()
            self._readable = meta.c.lease_until.name in {column["name"] for column in columns}
        return self._readable

    def _state(self, connection: Connection) -> LeaseState:
        if not self._is_readable(connection):
            return _NOBODY
        expires_in = (meta.c.lease_until - self._now).label("expires_in")
        columns = (meta.c.holder, meta.c.term, expires_in, meta.c.identity, meta.c.sequence, meta.c.at)
        row = connection.execute(select(*columns)).first()
        if row is None:
            return _NOBODY
        self._see(row.term, SequenceRecord(row.identity or "", row.sequence, row.at))
        return LeaseState(row.holder, row.term, row.expires_in)

    def _see(self, term: int, flush: SequenceRecord) -> None:
        """Of a later term, what was seen before is that leader's to report; of an earlier one, it is what is lost."""
        newest = self._newest
        if (
            newest is None
            or term > self._newest_term
            or flush.identity != newest.identity
            or flush.sequence > newest.sequence
        ):
            self._newest, self._newest_term = flush, term
