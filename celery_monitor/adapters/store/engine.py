"""Connections and transactions. Translates errors of SQLAlchemy and of the driver into those of this program.

Writers and readers have separate connection pools, so a flush never waits for a connection because many people view
pages. A transaction that fails closes its connection, so the next one starts on a new connection without leftovers.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, create_engine, event, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from celery_monitor.adapters.store import encode, migrate, schema
from celery_monitor.adapters.store.dialects import sql_of
from celery_monitor.adapters.store.dialects.base import ServerReport, StoreDialect, Usage, too_slow
from celery_monitor.adapters.store.sequence import SequenceRecord
from celery_monitor.errors import (
    LeaseLostError,
    MonitorError,
    StoreFullError,
    StoreMissingError,
    StoreUnavailableError,
    StoreUnusableError,
)
from celery_monitor.ports import DEADLINE

WRITERS: Final = 8
READERS: Final = 16
"""Maximum connections of each kind. A caller that needs one more waits up to POOL_TIMEOUT seconds."""
POOLED: Final = 2
"""Connections of each kind that stay open."""
POOL_TIMEOUT: Final = 5.0
ANSWER_TIMEOUT: Final = 1.0
"""Seconds that a server may take to report that a wait for a lock has timed out."""


class UnstorableError(StoreUnavailableError):
    """A value cannot be stored: it contains a lone surrogate, an integer beyond 64 bits, or NaN."""


class Database:
    """One database. Its dialect provides what differs between SQLite and PostgreSQL."""

    def __init__(self, dialect: StoreDialect) -> None:
        self._dialect = dialect
        self._writers = self._engine(read_only=False)
        self._readers = self._engine(read_only=True)
        self.dialect = self._writers.dialect
        self.stores_nul = sql_of(self.dialect).stores_nul
        self.shared = dialect.shared
        """Whether other processes may lead on it, one at a time."""
        self.clock = dialect.clock
        """SQL expression for the current Unix time by the clock of the database."""
        self.fence: str | None = None
        """Token that ``meta.writer`` must contain for a write to succeed; None in a command beside the daemon."""

    def start(self, busy: Callable[[Connection], bool]) -> bool:
        """Open the database for this process, and create or migrate it if needed. Raises as ``Store.lead``.

        Returns False and changes nothing if the database needs a migration and ``busy`` returns that another process
        leads.
        """
        self._dialect.prepare()
        self._dialect.check()
        with self.read() as connection:
            current = migrate.check(connection, self._dialect.location, self._dialect.setting)
        if not current:
            self._dialect.set_format()
            with self.write(fenced=False) as connection:
                if busy(connection):
                    self._dialect.set_up_reserves()
                    return False
                migrate.upgrade(connection)
        self._dialect.set_up_reserves()
        self._open_pools()
        return True

    def attach(self) -> None:
        """Check that the database can be used beside the daemon. Changes nothing. Raises StoreUnusableError."""
        exists, location = self._dialect.exists(), self._dialect.location
        if not exists:
            raise StoreMissingError(
                f"No store found at {location}: the daemon creates it on its first start; check "
                f"{self._dialect.setting}",
                self.about,
            )
        with self.read() as connection:
            if not migrate.check(connection, location, self._dialect.setting):
                raise StoreUnusableError(
                    f"The store {location} was written by an older version of celery-monitor: start the daemon of this "
                    "version, which migrates it when it begins to lead"
                )

    @contextmanager
    def write(
        self, *, fenced: bool = True, lock_wait: float | None = None, silence: float = math.inf
    ) -> Iterator[Connection]:
        """A transaction that holds the write lock from its start and is committed at the end of the block.

        ``fenced``: raises LeaseLostError if ``fence`` is no longer the token of the lease; otherwise the block has to
        check this. ``lock_wait``: seconds to wait for other writers; None means the default. ``silence``: seconds to
        wait for each answer of the server, if shorter than the default. After such a timeout, it is unknown whether the
        transaction was committed.
        """
        with self._translated(_unstorable), self._writers.connect() as connection:
            driver = connection.connection.driver_connection
            try:
                if lock_wait is not None:
                    connection.execution_options(lock_wait=lock_wait)
                self._dialect.limit_silence(driver, silence)
                with connection.begin():
                    if fenced and self.fence is not None:
                        require(connection, self.fence)
                    yield connection
                self._dialect.limit_silence(driver, math.inf)
            except BaseException:
                connection.invalidate()
                raise

    @contextmanager
    def read(self, *, silence: float = math.inf) -> Iterator[Connection]:
        """A transaction that sees one consistent state of the database and does not block writers.

        Raises QueryTimeoutError at ``ports.DEADLINE``, even during a query. ``silence``: see ``write``.
        """
        deadline = DEADLINE.get()
        if time.monotonic() >= deadline:
            raise too_slow()
        with self._translated(self._unreadable), self._readers.connect() as connection:
            driver = connection.connection.driver_connection
            try:
                self._dialect.limit_silence(driver, silence)
                with connection.begin(), self._dialect.ended_at(driver, deadline):
                    yield connection
                self._dialect.limit_silence(driver, math.inf)
            except BaseException:
                connection.invalidate()
                raise

    def end_abandoned(self, silent_for: float) -> int:
        """See StoreDialect."""
        with self.read() as connection:
            return self._dialect.end_abandoned(connection.connection.driver_connection, silent_for)

    def other_fleets(self) -> list[tuple[str, str]]:
        """See StoreDialect."""
        with self.read() as connection:
            return self._dialect.other_fleets(connection.connection.driver_connection)

    def pipelined(self, connection: Connection) -> AbstractContextManager[None]:
        """See StoreDialect. Within the block, SQLAlchemy cannot return rows of a query."""
        return self._dialect.pipelined(connection.connection.driver_connection)

    def usage(self, connection: Connection) -> Usage:
        """The used and available space, as this transaction sees it."""
        return self._dialect.usage(connection.connection.driver_connection)

    def use_reserve(self) -> bool:
        """Release the space that was reserved for a full disk. Returns whether there was any."""
        return self._dialect.use_reserve()

    def read_sequence(self, identity: str | None) -> SequenceRecord | None:
        """The newest flush that this process or an earlier one has recorded as committed; None if there is none."""
        return self._dialect.read_sequence(identity)

    def write_sequence(self, record: SequenceRecord) -> None:
        """Record that a flush was committed, so that the next start notices if the database has lost it."""
        self._dialect.write_sequence(record)

    def text(self, value: str) -> str:
        """The text as it would be stored, for comparison with a stored value."""
        return value if self.stores_nul else encode.escaped(value)

    @property
    def about(self) -> str:
        """See StoreDialect."""
        return self._dialect.about

    @property
    def setting(self) -> str:
        """See StoreDialect."""
        return self._dialect.setting

    @property
    def location(self) -> str:
        """See StoreDialect."""
        return self._dialect.location

    @property
    def limit(self) -> float:
        """Maximum bytes of the database; infinite if the monitor does not limit it."""
        return self._dialect.limit

    @property
    def applying(self) -> Path:
        """Path of the file that records which message is being applied. Available after ``start``."""
        return self._dialect.applying

    def other_user_of_files(self) -> str | None:
        """See StoreDialect."""
        return self._dialect.other_user_of_files()

    def report(self, now: Callable[[], float]) -> ServerReport | None:
        """See StoreDialect."""
        return self._dialect.report(now)

    def verify(self) -> None:
        """Raise StoreUnusableError if the database was moved, deleted or replaced while it is in use."""
        self._dialect.verify()

    def housekeep(self) -> None:
        """Do the periodic maintenance that the database needs. Takes a bounded time."""
        self._dialect.housekeep()

    def short_timeouts(self) -> AbstractContextManager[None]:
        """See StoreDialect."""
        return self._dialect.short_timeouts()

    def stop(self) -> None:
        """Close all connections and release the database for another process."""
        self._readers.dispose()
        self._writers.dispose()
        self._dialect.release()

    def _open_pools(self) -> None:
        """Open the connections that stay open now, because later the process may have run out of file descriptors."""
        with self._translated(_unstorable), ExitStack() as opened:
            for engine in (self._writers, self._readers):
                for _ in range(POOLED):
                    opened.enter_context(engine.connect())

    def _engine(self, *, read_only: bool) -> Engine:
        engine = create_engine(
            self._dialect.driver,
            creator=lambda: self._dialect.connect(read_only=read_only),
            poolclass=QueuePool,
            pool_size=POOLED,
            max_overflow=(READERS if read_only else WRITERS) - POOLED,
            pool_timeout=POOL_TIMEOUT,
            pool_use_lifo=True,
            # Parameters contain data of the fleet's tasks, which must not appear in an error message.
            hide_parameters=True,
            **self._dialect.options,
        )

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            lock_wait = connection.get_execution_options().get("lock_wait")
            connection.exec_driver_sql(self._dialect.begin(read_only=read_only, lock_wait=lock_wait))

        return engine

    @contextmanager
    def _translated(self, foreign: Callable[[Exception], MonitorError]) -> Iterator[None]:
        """Translate what a driver, or the conversion of an invalid row, raises. ``foreign``: any other exception."""
        try:
            yield
        except MonitorError:
            raise
        except (UnicodeEncodeError, OverflowError) as exc:
            raise UnstorableError("A value cannot be stored") from exc
        except DBAPIError as exc:
            raise self._error_of(exc.orig or exc) from exc
        except self._dialect.errors as exc:  # from a statement that bypassed SQLAlchemy
            raise self._error_of(exc) from exc
        except (SQLAlchemyError, OSError) as exc:
            raise StoreUnavailableError(f"The store is unavailable: {exc}") from exc
        except Exception as exc:
            raise foreign(exc) from exc

    def _error_of(self, exc: BaseException) -> MonitorError:
        """The error that tells the caller what to do about an error of the driver."""
        driver = self.dialect.loaded_dbapi
        if isinstance(exc, (driver.IntegrityError, driver.DataError)):
            return UnstorableError("A value cannot be stored")
        error = self._dialect.classify(exc)
        if isinstance(error, StoreFullError):
            # The next attempt has a little more space.
            self._dialect.use_reserve()
        return error

    def _unreadable(self, exc: Exception) -> StoreUnusableError:
        """For a row that this program did not write. Omits the text of the cause, which may contain data of a task."""
        return StoreUnusableError(
            f"The store {self._dialect.location} contains invalid data, such as after a change by hand "
            f"({type(exc).__name__}): restore a backup, or move the store away to start with an empty one"
        )


def require(connection: Connection, token: str) -> None:
    """Raise LeaseLostError if another process leads. Otherwise none can take the lease before this transaction ends.

    The transaction must hold the write lock.
    """
    meta = schema.meta.c
    row = connection.execute(select(meta.writer, meta.holder)).first()
    if row is None or row.writer != token:
        holder = f" ({row.holder})" if row is not None and row.holder else ""
        raise LeaseLostError(f"Another celery-monitor{holder} has taken over this store: this process stops writing")


def _unstorable(exc: Exception) -> UnstorableError:
    return UnstorableError(f"A value cannot be stored ({type(exc).__name__})")
