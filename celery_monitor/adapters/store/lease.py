"""The lease: one row that records which process leads, and until when by the clock of the database.

A process that takes the lease writes a random token into the row. Each of its write transactions requires that token
(``Database.fence``), so a late write of a former leader has no effect. An expired lease still belongs to its holder
until another process takes it.

A SQLite file is also locked: only the process that holds the file lock may take the lease.
"""

import secrets
from typing import Any, Final

from sqlalchemy import Connection, Double, insert, inspect, literal_column, select, update

from celery_monitor.adapters.store import encode, migrate
from celery_monitor.adapters.store.engine import ANSWER_TIMEOUT, Database, require
from celery_monitor.adapters.store.schema import meta
from celery_monitor.adapters.store.sequence import SequenceRecord
from celery_monitor.errors import StoreUnavailableError, StoreUnusableError
from celery_monitor.ports import LeaseState

DEFAULT_TTL: Final = 3.0
"""Seconds."""
_THE_ROW: Final = 1
_NOBODY: Final = LeaseState(holder="", term=0, expires_in=0.0)


class Lease:
    """One process's access to the lease of a database. Methods raise as those of Store."""

    def __init__(self, database: Database, ttl: float, *, fleet: str, url: str) -> None:
        """``ttl``: seconds. ``fleet`` and the ``url`` of its page are stored to tell people whose tables these are."""
        self.ttl = ttl
        self._announced = {"fleet": encode.storable(fleet), "external_url": encode.storable(url)}
        self._database = database
        self._now: Any = literal_column(database.clock, Double)
        self._readable = False
        self._newest: SequenceRecord | None = None
        self._newest_term = 0
        self._checked_term = 0

    def check(self, state: LeaseState) -> None:
        """Raise StoreUnavailableError if the leader has a newer version, because this process could not take over.

        Only a process that starts to lead migrates the database, so one check per term is enough.
        """
        if state.expires_in > 0 and state.term != self._checked_term:
            with self._database.read() as connection:
                try:
                    migrate.check(connection, self._database.location, self._database.setting)
                except StoreUnusableError as exc:
                    raise StoreUnavailableError(str(exc)) from exc
            self._checked_term = state.term

    def newest(self) -> SequenceRecord | None:
        """The newest flush that this process has read while another one led. The next call starts anew.

        After a failover of the database server, the new server may lack flushes whose messages were acknowledged. The
        former leader would notice, but it no longer leads. With this record, the new leader notices.
        """
        newest, self._newest = self._newest, None
        return newest

    def state(self) -> LeaseState:
        """The lease as stored. Nobody leads on a database without tables, or with tables that predate the lease."""
        with self._database.read() as connection:
            return self._state(connection)

    def busy(self, connection: Connection) -> bool:
        """Whether another process leads. Never on a SQLite file, which only the process with its lock can lead on."""
        return self._database.shared and self._state(connection).expires_in > 0

    def take(self, connection: Connection, token: str, holder: str) -> bool:
        """Become the leader, whose writes require this token. Returns False if another process leads."""
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
        """Extend the lease by its duration from now. Raises LeaseLostError."""
        # A longer wait would be of no use: by then the lease has expired and may belong to another process.
        with self._database.write(fenced=False, lock_wait=self.ttl, silence=self.ttl + ANSWER_TIMEOUT) as connection:
            require(connection, token)
            connection.execute(update(meta).values(self.extension()))

    def resign(self, token: str) -> None:
        """Release the lease at once, if it still has this token. Afterwards the token permits no write."""
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
        self._remember(row.term, SequenceRecord(row.identity or "", row.sequence, row.at))
        return LeaseState(row.holder, row.term, row.expires_in)

    def _remember(self, term: int, flush: SequenceRecord) -> None:
        """Remember the newest flush of the newest term.

        A new term starts the record anew, because its leader has already reported what was lost before. Within a term,
        an older flush than before means that the database has lost flushes, so the newer one stays remembered.
        """
        newest = self._newest
        if (
            newest is None
            or term > self._newest_term
            or flush.identity != newest.identity
            or flush.sequence > newest.sequence
        ):
            self._newest, self._newest_term = flush, term
