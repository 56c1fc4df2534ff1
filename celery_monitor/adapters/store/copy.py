"""An installation moves: everything in one store is written to another one, of whichever kind, and compared.

Both are taken for this process meanwhile: nobody writes to the source, and nobody starts on the target. The source is
read in one transaction, the target written in one: it has everything in the end, or nothing. Rows pass through in
portions, so memory does not depend on their number.

It may take longer than a lease. The lease of the source is renewed with each portion. That of the target cannot be
renewed, because the copy itself has the writers' lock there until it commits; for the same reason nobody else can take
it. The source's transaction ends before the target is compared: a server ends one that asks nothing for a minute.
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

HELD_FOR: Final = 600.0
"""Seconds for which both stores are taken: a portion may take as long."""
_ROWS: Final = 1_000
"""Of a portion: some megabytes where each has a long traceback."""
_TABLES: Final = [table for table in schema.metadata.sorted_tables if table is not schema.meta]
_OF_THE_PROCESS: Final = frozenset({"id", "writer", "holder", "term", "lease_until", "fleet", "external_url"})
"""What the row of meta says of the process that has taken the target, and not of what was counted."""
_MODULUS: Final = 1 << 64

OnProgress = Callable[[str, int, int], None]
"""A table, how many of its rows are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A table, or a total, on both sides."""

    name: str
    source: int
    target: int
    same: bool
    """The rows are the same ones, value by value; of a total: the numbers are equal."""


class CopySide:
    """One of the two stores. The constructor does no I/O and raises StoreUnusableError as ``open_store``."""

    def __init__(self, url: SecretSource, *, password: SecretSource, schema: StoreSchema, directory: Path) -> None:
        dialect = dialect_of(
            url, password=password, directory=directory, max_bytes=math.inf, lease_ttl=HELD_FOR, schema=schema
        )
        self.database = Database(dialect)
        self._lease = Lease(self.database, HELD_FOR, fleet=schema.fleet, url=schema.external_url)
        self._token: str | None = None
        self._renewed_at = 0.0

    @property
    def about(self) -> str:
        """Which database it is."""
        return self.database.about

    def take(self, holder: str) -> None:
        """Keep daemons away; the tables are made where there are none.

        Raises StoreUnusableError and StoreUnavailableError when a daemon runs on it, with what to do.
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
        """Keep it for longer, once in a while or ``now``. Raises StoreUnavailableError when somebody has taken it."""
        if self._token is None or not (now or time.monotonic() - self._renewed_at > HELD_FOR / 10):
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
        """Let daemons use it."""
        try:
            if self._token is not None:
                self._lease.resign(self._token)
        finally:
            self._token = None
            self.database.stop()


class StoreCopy:
    """From one store to the other."""

    def __init__(self, source: CopySide, target: CopySide, holder: str, on_progress: OnProgress) -> None:
        """``holder``: the name that a daemon is told when it finds one of them taken."""
        self._source = source
        self._target = target
        self._holder = holder
        self._on_progress = on_progress

    def run(self) -> list[Compared]:
        """Copy everything. What was compared, all of it the same.

        Raises StoreUnusableError and StoreUnavailableError, with nothing in the target, whatever went wrong.
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
        """Before anything is changed there."""
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
            # Until here nobody has counted in the source what the copy does not have.
            self._source.renew(now=True)
            if wrong := [pair.name for pair in compared if not pair.same]:
                differs = f"The copy differs from its source in {', '.join(wrong)}"
                raise StoreUnusableError(f"{differs}: nothing was written to {self._target.about}")
        return compared

    def _table(self, reading: Connection, writing: Connection, table: Table) -> tuple[int, int]:
        """Its number of rows, and the checksum that they must have in the target."""
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
