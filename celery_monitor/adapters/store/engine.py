"""Connections and transactions. Errors of SQLAlchemy and of the driver end here.

Writers and readers have pools of their own, so that pages that many people look at never keep the flush waiting for a
connection. A failed transaction costs its connection: the next one begins on a fresh one, with nothing half-applied.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from celery_monitor.adapters.store import migrate
from celery_monitor.adapters.store.sequence import Noted
from celery_monitor.adapters.store.sqlite import SqliteFile, Usage, too_slow
from celery_monitor.errors import MonitorError, StoreFullError, StoreUnavailableError, StoreUnusableError
from celery_monitor.ports import ANSWER_BY

WRITERS: Final = 8
READERS: Final = 16
"""Connections at most; who asks for one more waits POOL_TIMEOUT seconds."""
POOLED: Final = 2
"""Of each kind, that stay open."""
POOL_TIMEOUT: Final = 5.0


class UnstorableError(StoreUnavailableError):
    """A value cannot be stored as it is: a lone surrogate, a number beyond 64 bits, not a number."""


class Database:
    """One database by its URL. Raises StoreUnusableError for a URL that is not understood.

    ``max_bytes`` bounds what is set aside for a full disk.
    """

    def __init__(self, url: str, max_bytes: float = math.inf) -> None:
        try:
            parsed = make_url(url)
        except ArgumentError as exc:
            raise StoreUnusableError("store.url is not a URL: write sqlite:///path/of/a/file.db") from exc
        if parsed.get_backend_name() != "sqlite":
            raise StoreUnusableError(
                f"store.url: {parsed.get_backend_name()} is not supported: write sqlite:///path/of/a/file.db"
            )
        if parsed.query:
            raise StoreUnusableError("store.url takes no parameters (nothing after a question mark)")
        memory = parsed.database in {None, "", ":memory:"}
        self._file = SqliteFile(None if memory else Path(parsed.database or "").absolute(), max_bytes)
        self._writers = self._engine(read_only=False)
        self._readers = self._engine(read_only=True)
        self.dialect = self._writers.dialect

    def start(self) -> None:
        """Take the database for this process, create or migrate it. Raises as ``Store.start``."""
        self._file.prepare()
        self._file.check()
        with self.read() as connection:
            current = migrate.check(connection, str(self._file.path))
        if not current:
            self._file.settle()
            with self.write() as connection:
                migrate.upgrade(connection)
        self._file.hold()
        self._open_pools()

    def attach(self) -> None:
        """Check that the database can be used beside its daemon. Raises StoreUnusableError; changes nothing."""
        if not self._file.exists():
            raise StoreUnusableError(
                f"There is no store at {self._file.path}: the daemon creates it at its first start; check store.url"
            )
        with self.read() as connection:
            if not migrate.check(connection, str(self._file.path)):
                raise StoreUnusableError(
                    f"The store {self._file.path} is of an older version of celery-monitor: start the daemon of this "
                    "version once"
                )

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that has the write lock from its beginning; committed at the end of the block."""
        with self._translated(_unstorable), self._writers.connect() as connection:
            try:
                with connection.begin():
                    yield connection
            except BaseException:
                connection.invalidate()
                raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database, and keeps no writer waiting.

        Raises QueryTimeoutError at ``ports.ANSWER_BY``, whatever it does then.
        """
        answer_by = ANSWER_BY.get()
        if time.monotonic() >= answer_by:
            raise too_slow()
        with self._translated(self._unreadable), self._readers.connect() as connection:
            try:
                with connection.begin(), self._file.ended_at(connection.connection.driver_connection, answer_by):
                    yield connection
            except BaseException:
                connection.invalidate()
                raise

    def usage(self, connection: Connection) -> Usage:
        """How much space there is, seen from within a transaction."""
        return self._file.usage(connection.connection.driver_connection)

    def use_reserve(self) -> bool:
        """Give up the space that was set aside for a full disk; whether there was any."""
        return self._file.use_reserve()

    def noted(self, identity: str | None) -> Noted | None:
        """The newest flush that is known to have been committed here; None when none is known."""
        return self._file.noted(identity)

    def note(self, noted: Noted) -> None:
        """A flush was committed: known at the next start even where the database has lost it."""
        self._file.note(noted)

    @property
    def path(self) -> Path:
        """Of the file, once it has started."""
        return self._file.path

    def verify(self) -> None:
        """Raise StoreUnusableError when the database was taken away under our feet."""
        self._file.verify()

    def housekeep(self) -> None:
        """Checkpoint and give back free space; bounded in time."""
        self._file.housekeep()

    def stop(self) -> None:
        """Close all connections, and give the database up for another process."""
        self._readers.dispose()
        self._writers.dispose()
        self._file.release()

    def _open_pools(self) -> None:
        """The connections that stay: later all descriptors may be taken."""
        with self._translated(_unstorable), ExitStack() as opened:
            for engine in (self._writers, self._readers):
                for _ in range(POOLED):
                    opened.enter_context(engine.connect())

    def _engine(self, *, read_only: bool) -> Engine:
        engine = create_engine(
            "sqlite://",
            creator=lambda: self._file.connect(read_only=read_only),
            poolclass=QueuePool,
            pool_size=POOLED,
            max_overflow=(READERS if read_only else WRITERS) - POOLED,
            pool_timeout=POOL_TIMEOUT,
            pool_use_lifo=True,
            # Statements carry what the fleet's tasks have said: never in an error's text.
            hide_parameters=True,
        )

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql(self._file.begin(read_only=read_only))

        return engine

    @contextmanager
    def _translated(self, foreign: Callable[[Exception], MonitorError]) -> Iterator[None]:
        """The boundary: whatever a driver, or a row that is not ours, raises becomes an error of our taxonomy."""
        try:
            yield
        except MonitorError:
            raise
        except (UnicodeEncodeError, OverflowError, IntegrityError, DataError) as exc:
            raise UnstorableError("A value cannot be stored as it is") from exc
        except DBAPIError as exc:
            found = self._file.classify(exc.orig or exc)
            if isinstance(found, StoreFullError):
                # Whoever tries again has a little space.
                self._file.use_reserve()
            raise found from exc
        except SQLAlchemyError as exc:
            raise StoreUnavailableError(f"The store cannot be used now: {exc}") from exc
        except Exception as exc:
            raise foreign(exc) from exc

    def _unreadable(self, exc: Exception) -> StoreUnusableError:
        """A row is not what this program writes. The text of the cause may hold what a task has said."""
        return StoreUnusableError(
            f"The store {self._file.path} holds what this program has not written ({type(exc).__name__}): restore a "
            "copy, or move it away to begin with an empty one"
        )


def _unstorable(exc: Exception) -> UnstorableError:
    return UnstorableError(f"A value cannot be stored as it is ({type(exc).__name__})")
