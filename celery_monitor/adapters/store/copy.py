"""Copies a store to an empty one, of the same or another kind of database, and compares the two.

Both stores are leased meanwhile, so no daemon writes to the source or starts on the target. The source is read in one
transaction and the target is written in one, so the target has either everything or nothing in the end. Rows are copied
in portions, so memory does not depend on their number.

A copy may take longer than a lease. The lease of the source is renewed with each portion. That of the target cannot be
renewed, because the copy holds the write lock there until it commits, but for the same reason no other process can take
it. The source's transaction ends before the comparison, because a server ends a transaction that is idle for a minute.
"""

import hashlib
import math
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Table, func, select

from celery_monitor.adapters.store import encode, schema
from celery_monitor.adapters.store.dialects import dialect_of, sql_of
from celery_monitor.adapters.store.engine import Database
from celery_monitor.adapters.store.lease import Lease
from celery_monitor.adapters.store.statements import Bulk, insert
from celery_monitor.core.model import COUNTS
from celery_monitor.errors import (
    LeaseLostError,
    StoreInUseError,
    StoreMissingError,
    StoreUnavailableError,
    StoreUnusableError,
)
from celery_monitor.settings.secret import SecretSource
from celery_monitor.settings.store import StoreSchema

LEASE_TTL: Final = 600.0
"""Seconds of both leases. One portion must take less."""
_ROWS: Final = 1_000
"""Rows of a portion: some megabytes if each has a long traceback."""
_TABLES: Final = [table for table in schema.metadata.sorted_tables if table is not schema.meta]
_OF_THE_PROCESS: Final = frozenset({"id", "writer", "holder", "term", "lease_until", "fleet", "external_url"})
"""Columns of ``meta`` that describe the leading process. The target keeps its own."""
_MODULUS: Final = 1 << 64

OnProgress = Callable[[str, int, int], None]
"""Called with a table, the number of its rows that were copied, and the number of all its rows."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The comparison of a table or of a total. ``source`` and ``target`` are its numbers of rows, or its values."""

    name: str
    source: int
    target: int
    same: bool
    """For a table: all rows have equal values. For a total: the two values are equal."""


class CopySide:
    """The source or the target. The constructor does no I/O and raises StoreUnusableError as ``open_store`` does.

    ``option``: the command-line option that contains the URL, for remedies.
    """

    def __init__(
        self, option: str, url: SecretSource, *, password: SecretSource, schema: StoreSchema, directory: Path
    ) -> None:
        dialect = dialect_of(
            url,
            password=password,
            directory=directory,
            max_bytes=math.inf,
            lease_ttl=LEASE_TTL,
            schema=schema,
            setting=option,
        )
        self.database = Database(dialect)
        self._lease = Lease(self.database, LEASE_TTL, fleet=schema.fleet, url=schema.external_url)
        self._token: str | None = None
        self._renewed_at = 0.0

    @property
    def about(self) -> str:
        """Name of the database, for people."""
        return self.database.about

    def take(self, holder: str) -> None:
        """Take the lease, so that no daemon can lead on it, and create the tables if there are none.

        Raises StoreUnusableError or StoreUnavailableError, with advice, if a daemon runs on it.
        """
        token = secrets.token_hex(8)
        try:
            started = self.database.start(self._lease.busy)
        except StoreInUseError as exc:
            raise StoreInUseError(exc.location, exc.holder, "stop that one, and try again") from None
        if started:
            with self.database.write(fenced=False) as connection:
                if self._lease.take(connection, token, holder):
                    self._token, self._renewed_at = token, time.monotonic()
                    return
        state = self._lease.state()
        raise StoreUnavailableError(
            f"{self.about} is in use by {state.holder or 'a celery-monitor'}. Stop every replica, and try again. "
            f"If it was killed, its lease expires in {max(0.0, state.expires_in):.0f} s"
        )

    def renew(self, *, now: bool = False) -> None:
        """Renew the lease if a tenth of it has passed, or ``now``. Raises StoreUnavailableError if it was lost."""
        if self._token is None or not (now or time.monotonic() - self._renewed_at > LEASE_TTL / 10):
            return
        try:
            self._lease.renew(self._token)
        except LeaseLostError:
            holder = self._lease.state().holder or "a celery-monitor"
            raise StoreUnavailableError(
                f"{self.about} was taken over by {holder} during the copy, so nothing was written. Stop every "
                "replica, and try again"
            ) from None
        self._renewed_at = time.monotonic()

    def close(self) -> None:
        """Release the lease and close the database."""
        try:
            if self._token is not None:
                self._lease.resign(self._token)
        finally:
            self._token = None
            self.database.stop()


class StoreCopy:
    """Copies everything in ``source`` to ``target``."""

    def __init__(self, source: CopySide, target: CopySide, holder: str, on_progress: OnProgress) -> None:
        """``holder``: the name that a daemon reports as the leader if it is started meanwhile."""
        self._source = source
        self._target = target
        self._holder = holder
        self._on_progress = on_progress

    def run(self) -> list[Compared]:
        """Copy everything. Returns the comparisons, all of which are equal.

        Raises StoreUnusableError or StoreUnavailableError; then nothing was written to the target.
        """
        try:
            self._source.database.attach()
            self._refuse_target_in_use()
            self._source.take(self._holder)
            self._target.take(self._holder)
            return self._copied()
        finally:
            try:
                self._source.close()
            finally:
                self._target.close()

    def _refuse_target_in_use(self) -> None:
        """Raise StoreUnusableError if the target has data, before anything is changed in it."""
        target = self._target
        try:
            target.database.attach()
        except StoreMissingError:
            return
        with target.database.read() as connection:
            _refuse_rows(connection, target.about)

    def _copied(self) -> list[Compared]:
        with self._target.database.write(fenced=False) as writing:
            with self._source.database.read() as reading:
                _refuse_rows(writing, self._target.about)
                sums = {table.name: self._table(reading, writing, table) for table in _TABLES}
                self._meta(reading, writing)
                totals = _totals(reading)
            compared = [_compared(table.name, sums[table.name], self._checksum(writing, table)) for table in _TABLES]
            compared += [
                Compared(f"total {name}", was, now, was == now)
                for name, was, now in zip(COUNTS, totals, _totals(writing), strict=True)
            ]
            # If the lease is still held, no daemon has counted anything in the source that the copy lacks.
            self._source.renew(now=True)
            if wrong := [pair.name for pair in compared if not pair.same]:
                differs = f"The copy differs from its source in {', '.join(wrong)}"
                raise StoreUnusableError(f"{differs}: nothing was written to {self._target.about}")
        return compared

    def _table(self, reading: Connection, writing: Connection, table: Table) -> tuple[int, int]:
        """Copy a table. Returns the number of its rows and the checksum that they must have in the target."""
        names = [column.name for column in table.columns]
        write = Bulk(writing.dialect, insert(writing.dialect, table), names)
        count: int = reading.execute(select(func.count()).select_from(table)).scalar_one()
        done = checksum = 0
        for portion in _portions(reading, table):
            rows = portion if self._target.database.stores_nul else [_without_nul(row) for row in portion]
            write.run(writing, rows)
            checksum = (checksum + sum(map(_hash, rows))) % _MODULUS
            done += len(rows)
            self._on_progress(table.name, done, count)
            self._source.renew()
        for statement in sql_of(writing.dialect).continuing(table):
            writing.exec_driver_sql(statement)
        return done, checksum

    def _checksum(self, writing: Connection, table: Table) -> tuple[int, int]:
        number = checksum = 0
        for rows in _portions(writing, table):
            number += len(rows)
            checksum = (checksum + sum(map(_hash, rows))) % _MODULUS
            self._source.renew()
        return number, checksum

    def _meta(self, reading: Connection, writing: Connection) -> None:
        row = reading.execute(select(schema.meta)).mappings().first()
        if row is None:
            return
        values = {name: value for name, value in row.items() if name not in _OF_THE_PROCESS}
        if not self._target.database.stores_nul:
            values = dict(zip(values, _without_nul([*values.values()]), strict=True))
        writing.execute(schema.meta.update().values(values))


def _compared(name: str, was: tuple[int, int], now: tuple[int, int]) -> Compared:
    return Compared(name, was[0], now[0], same=was == now)


def _refuse_rows(connection: Connection, about: str) -> None:
    used = connection.execute(select(schema.meta.c.sequence)).scalar()
    filled = [table.name for table in _TABLES if connection.execute(select(table).limit(1)).first() is not None]
    if used or filled:
        raise StoreUnusableError(
            f"{about} is not empty ({', '.join(filled) or 'it has counted'}): the target of a copy must be empty. "
            "Choose another store, or remove its tables"
        )


def _portions(connection: Connection, table: Table) -> Iterator[list[tuple[Any, ...]]]:
    keys = [column.asc() for column in table.primary_key]
    rows = connection.execute(select(table).order_by(*keys), execution_options={"yield_per": _ROWS})
    for portion in rows.partitions():
        yield [tuple(row) for row in portion]


def _hash(row: Sequence[Any]) -> int:
    return int.from_bytes(hashlib.blake2b(repr(row).encode(errors="surrogatepass"), digest_size=8).digest(), "big")


def _without_nul(row: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(encode.escaped(value) if isinstance(value, str) else value for value in row)


def _totals(connection: Connection) -> list[int]:
    """What /metrics shows, summed up over all tasks, in the order of COUNTS."""
    query = select(*(func.coalesce(func.sum(schema.series.c[name]), 0) for name in COUNTS))
    return [int(value) for value in connection.execute(query).one()]
