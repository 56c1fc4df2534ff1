"""Connections and transactions. Errors of SQLAlchemy and of the driver end here.

Writers and readers have pools of their own, so that pages that many people look at never keep the flush waiting for a
connection. A failed transaction costs its connection: the next one begins on a fresh one, with nothing half-applied.
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
"""Connections at most; who asks for one more waits POOL_TIMEOUT seconds."""
POOLED: Final = 2
"""Of each kind, that stay open."""
POOL_TIMEOUT: Final = 5.0
ANSWER: Final = 1.0
"""Seconds that a server may take to say that a wait for other writers is over."""


class UnstorableError(StoreUnavailableError):
    """A value cannot be stored: a lone surrogate, a number beyond 64 bits, not a number."""


class Database:
    """One database, whichever it is, by what its dialect says."""

    def __init__(self, dialect: StoreDialect) -> None:
        self._dialect = dialect
        self._writers = self._engine(read_only=False)
        self._readers = self._engine(read_only=True)
        self.dialect = self._writers.dialect
        self.stores_nul = sql_of(self.dialect).stores_nul
        self.shared = dialect.shared
        """Other processes may write to it, one at a time."""
        self.clock = dialect.clock
        """SQL of the time of now, in Unix seconds, by the clock of the database."""
        self.fence: str | None = None
        """The token of ``meta.writer`` without which nothing is written; None: for a command beside the daemon."""

    def start(self, busy: Callable[[Connection], bool]) -> bool:
        """Take the database for this process, create or migrate it. Raises as ``Store.lead``.

        False, with nothing changed, where it would have to be migrated while ``busy`` says that another process leads.
        """
        self._dialect.prepare()
        self._dialect.check()
        with self.read() as connection:
            current = migrate.check(connection, self._dialect.location)
        if not current:
            self._dialect.settle()
            with self.write(fenced=False) as connection:
                if busy(connection):
                    self._dialect.hold()
                    return False
                migrate.upgrade(connection)
        self._dialect.hold()
        self._open_pools()
        return True

    def attach(self) -> None:
        """Check that the database can be used beside its daemon. Raises StoreUnusableError; changes nothing."""
        location = self._dialect.location
        if not self._dialect.exists():
            raise StoreMissingError(
                f"No store found at {location}: the daemon creates it on its first start; check store.url", self.about
            )
        with self.read() as connection:
            if not migrate.check(connection, location):
                raise StoreUnusableError(
                    f"The store {location} was written by an older version of celery-monitor: start the daemon of this "
                    "version, which migrates it when it begins to lead"
                )

    @contextmanager
    def write(
        self, *, fenced: bool = True, lock_wait: float | None = None, silence: float = math.inf
    ) -> Iterator[Connection]:
        """A transaction that has the write lock from its beginning; committed at the end of the block.

        Raises LeaseLostError if ``fence`` no longer holds the lease. Not ``fenced``: the block checks that itself.
        ``lock_wait``: seconds to wait for other writers; None for the usual time. ``silence``: seconds to wait for each
        answer of the server, if those are fewer than usual; with them the outcome is not known.
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
        """A transaction that sees one state of the database, and keeps no writer waiting.

        Raises QueryTimeoutError at ``ports.DEADLINE``, whatever it does then. ``silence``: as of ``write``.
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
        """See StoreDialect. SQLAlchemy cannot give the rows of a query within the block."""
        return self._dialect.pipelined(connection.connection.driver_connection)

    def usage(self, connection: Connection) -> Usage:
        """How much space there is, seen from within a transaction."""
        return self._dialect.usage(connection.connection.driver_connection)

    def use_reserve(self) -> bool:
        """Give up the space that was set aside for a full disk; whether there was any."""
        return self._dialect.use_reserve()

    def read_sequence(self, identity: str | None) -> SequenceRecord | None:
        """The newest flush that is known to have been committed here; None when none is known."""
        return self._dialect.read_sequence(identity)

    def write_sequence(self, record: SequenceRecord) -> None:
        """A flush was committed: known at the next start even where the database has lost it."""
        self._dialect.write_sequence(record)

    def text(self, value: str) -> str:
        """As it was stored, where it was."""
        return value if self.stores_nul else encode.escaped(value)

    @property
    def about(self) -> str:
        """See StoreDialect."""
        return self._dialect.about

    @property
    def location(self) -> str:
        """See StoreDialect."""
        return self._dialect.location

    @property
    def limit(self) -> float:
        """Bytes that it may take; infinite where the monitor does not bound it."""
        return self._dialect.limit

    @property
    def applying(self) -> Path:
        """The file that says which message is being applied, once the database has started."""
        return self._dialect.applying

    def other_user_of_files(self) -> str | None:
        """See StoreDialect."""
        return self._dialect.other_user_of_files()

    def report(self, now: Callable[[], float]) -> ServerReport | None:
        """See StoreDialect."""
        return self._dialect.report(now)

    def verify(self) -> None:
        """Raise StoreUnusableError when the database was taken away under our feet."""
        self._dialect.verify()

    def housekeep(self) -> None:
        """What the database needs once in a while; bounded in time."""
        self._dialect.housekeep()

    def short_timeouts(self) -> AbstractContextManager[None]:
        """See StoreDialect."""
        return self._dialect.short_timeouts()

    def stop(self) -> None:
        """Close all connections, and give the database up for another process."""
        self._readers.dispose()
        self._writers.dispose()
        self._dialect.release()

    def _open_pools(self) -> None:
        """The connections that stay: later all descriptors may be taken."""
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
            # Statements carry what the fleet's tasks have said: never in an error's text.
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
        """The boundary: whatever a driver, or a row that is not ours, raises becomes an error of our taxonomy."""
        try:
            yield
        except MonitorError:
            raise
        except (UnicodeEncodeError, OverflowError) as exc:
            raise UnstorableError("A value cannot be stored") from exc
        except DBAPIError as exc:
            raise self._error_of(exc.orig or exc) from exc
        except self._dialect.errors as exc:  # of a statement that did not go through SQLAlchemy
            raise self._error_of(exc) from exc
        except (SQLAlchemyError, OSError) as exc:
            raise StoreUnavailableError(f"The store is unavailable: {exc}") from exc
        except Exception as exc:
            raise foreign(exc) from exc

    def _error_of(self, exc: BaseException) -> MonitorError:
        """What an error of the driver means to the caller."""
        driver = self.dialect.loaded_dbapi
        if isinstance(exc, (driver.IntegrityError, driver.DataError)):
            return UnstorableError("A value cannot be stored")
        error = self._dialect.classify(exc)
        if isinstance(error, StoreFullError):
            # Whoever tries again has a little space.
            self._dialect.use_reserve()
        return error

    def _unreadable(self, exc: Exception) -> StoreUnusableError:
        """A row is not what this program writes. The text of the cause may hold what a task has said."""
        return StoreUnusableError(
            f"The store {self._dialect.location} contains invalid data, such as after a change by hand "
            f"({type(exc).__name__}): restore a backup, or move the store away to start with an empty one"
        )


def require(connection: Connection, token: str) -> None:
    """Raise LeaseLostError when another process leads; whoever has the write lock leads until the end then."""
    meta = schema.meta.c
    row = connection.execute(select(meta.writer, meta.holder)).first()
    if row is None or row.writer != token:
        holder = f" ({row.holder})" if row is not None and row.holder else ""
        raise LeaseLostError(f"Another celery-monitor{holder} has taken over this store: this process stops writing")


def _unstorable(exc: Exception) -> UnstorableError:
    return UnstorableError(f"A value cannot be stored ({type(exc).__name__})")
