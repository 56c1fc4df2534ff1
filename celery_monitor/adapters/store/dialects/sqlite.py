"""SQLite: connections to the file, its locks, its space and its errors.

Connections open the file only if it exists: nothing but ``prepare`` creates it.
"""

import contextlib
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from celery_monitor.adapters.store.dialects.base import Usage, too_slow
from celery_monitor.adapters.store.dialects.sqlite_file import SqliteFile
from celery_monitor.adapters.store.reserve import MIN_RESERVE, DiskReserve, SpareDescriptors, reserve_size
from celery_monitor.adapters.store.sequence import SequenceRecord
from celery_monitor.errors import MonitorError, StoreFullError, StoreUnavailableError, StoreUnusableError

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another writer (the command line) before the caller has to try again."""
CHECKED_SIZE: Final = 64 * 1024 * 1024
"""Files up to this size are read in full at start, to find damage before anything is built on it."""
WAL_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of the write-ahead log that stay on disk after a checkpoint."""
WRITER_CACHE: Final = 8000
READER_CACHE: Final = 2000
"""Cache of a connection, in KiB. There are up to 8 writers and 16 readers, all within the memory of the process."""
VACUUM_PAGES: Final = 2000
"""Free pages given back to the file system in one go: 8 MB."""

STEPS_PER_LOOK: Final = 20_000
"""Steps of SQLite's machine between two looks at the deadline: about a millisecond."""

MAX_REUSED_LOG: Final = 8 * 1024 * 1024
"""A log up to this size stays as it is while the disk is nearly full: it is written again without new space."""
SMALL_VACUUM: Final = (500, 50, 5)
"""Pages given back in one go then, as many as the log has space for: each may need a page of it."""

_NO_SPACE: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_WRITE,  # a quota, or the size of a file
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_TRUNCATE,
    }
)
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class SqliteDialect:
    """See ``base.StoreDialect``. Raises StoreUnusableError for a URL that is not understood.

    ``max_bytes`` bounds what the file takes, and what is set aside for a full disk.
    """

    driver = "sqlite://"
    options: Mapping[str, Any] = {}
    shared = False
    errors: tuple[type[Exception], ...] = (sqlite3.Error,)
    clock = "(julianday('now') - 2440587.5) * 86400.0"

    def __init__(self, url: str, max_bytes: float = math.inf) -> None:
        try:
            parsed = make_url(url)
        except ArgumentError as exc:
            raise StoreUnusableError("store.url is not a valid URL: use sqlite:///path/to/file.db") from exc
        if parsed.query:
            raise StoreUnusableError("store.url takes no parameters (nothing after a question mark)")
        memory = parsed.database in {None, "", ":memory:"}
        self.limit = max_bytes
        self._file = SqliteFile(None if memory else Path(parsed.database or "").absolute())
        self._reserve: DiskReserve | None = None
        self._spares = SpareDescriptors()
        self._anchor: sqlite3.Connection | None = None

    @property
    def path(self) -> Path:
        """Of the file, once it has started."""
        return self._file.path

    @property
    def location(self) -> str:
        """See StoreDialect."""
        return str(self.path)

    @property
    def about(self) -> str:
        """See StoreDialect."""
        return f"SQLite {sqlite3.sqlite_version}, {'a temporary file' if self._file.temporary else self.location}"

    @property
    def applying(self) -> Path:
        """See StoreDialect."""
        return self._file.beside(".applying")

    def prepare(self) -> None:
        """See StoreDialect: the daemon's lock is taken, and the file is made where there is none."""
        self._file.take()
        if not self._file.temporary:
            size = reserve_size(self.limit, self._file.disk()[1])
            self._reserve = DiskReserve(self._file.beside(".reserve"), size)

    @staticmethod
    def other_user_of_files() -> str | None:
        """See StoreDialect: they are taken with the database."""
        return None

    def exists(self) -> bool:
        """See StoreDialect."""
        return self._file.exists()

    def connect(self, *, read_only: bool = False) -> sqlite3.Connection:
        """A connection without implicit transactions.

        ``synchronous=FULL``: what is acknowledged to the broker after a commit must survive a loss of power, which
        NORMAL does not promise in WAL mode. Where no descriptor is left, those that were kept for this are used.
        """
        try:
            return self._connect(read_only=read_only)
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CANTOPEN or not self._spares.release():
                raise
        try:
            return self._connect(read_only=read_only)
        finally:
            self._spares.fill()

    def _connect(self, *, read_only: bool) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rw",
            uri=True,
            timeout=BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )
        synchronous = "OFF" if self._file.temporary else "FULL"
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute(f"PRAGMA journal_size_limit={WAL_LIMIT}")
        # The file system of the container is read-only: large sorts must not look for a temporary directory.
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute(f"PRAGMA cache_size=-{READER_CACHE if read_only else WRITER_CACHE}")
        if read_only:
            connection.execute("PRAGMA query_only=ON")
        try:
            # Opens the log too: later there may be no descriptor for it.
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        except (sqlite3.Error, UnicodeDecodeError):
            connection.close()
            raise
        return connection

    def hold(self) -> None:
        """Set aside descriptors and space, and keep the log open whatever becomes of other connections.

        The last connection that closes removes the log, and on a full disk there may be no space for a new one.
        """
        self._spares.fill()
        if self._anchor is None:
            with self._driver():
                self._anchor = self.connect(read_only=True)
        if self._reserve is not None:
            self._reserve.hold(self._file.disk()[0])

    def use_reserve(self) -> bool:
        """Give up what was set aside on the disk; whether there was anything."""
        return self._reserve is not None and self._reserve.release()

    def usage(self, connection: Any) -> Usage:  # noqa: ANN401 - the pool knows no type
        """How much space there is, seen from within a transaction."""
        (pages,), (free,), (size,) = (
            connection.execute(f"PRAGMA {pragma}").fetchone()
            for pragma in ("page_count", "freelist_count", "page_size")
        )
        used, reusable = (pages - free) * size + self._file.log_size(), free * size
        if self._reserve is None:
            return Usage(used, reusable, math.inf, 0)
        missing = 0 if self._reserve.held else self._reserve.size
        return Usage(used, reusable, max(0.0, self._file.disk()[0] - missing), self._reserve.size)

    @staticmethod
    @contextlib.contextmanager
    def ended_at(connection: Any, deadline: float) -> Iterator[None]:  # noqa: ANN401 - the pool knows no type
        """Within the block each statement ends with an error at this monotonic time."""
        if deadline == math.inf:
            yield
            return
        connection.set_progress_handler(lambda: time.monotonic() >= deadline, STEPS_PER_LOOK)
        yield
        # After an error the connection is not used again.
        connection.set_progress_handler(None, 0)

    @staticmethod
    def pipelined(connection: Any) -> contextlib.AbstractContextManager[None]:  # noqa: ANN401 - the pool knows no type
        """See StoreDialect: there is no way to the database that could be saved."""
        del connection
        return contextlib.nullcontext()

    @staticmethod
    def begin(*, read_only: bool, lock_wait: float | None = None) -> str:
        """A writer takes the write lock at once: taken later, it could fail without waiting."""
        del lock_wait
        return "BEGIN" if read_only else "BEGIN IMMEDIATE"

    def limit_silence(self, connection: sqlite3.Connection, seconds: float) -> None:
        """See StoreDialect: nothing waits for a server."""

    @staticmethod
    def end_abandoned(connection: sqlite3.Connection, silent_for: float) -> int:
        """See StoreDialect: the kernel drops a process's locks with it, and one process writes."""
        del connection, silent_for
        return 0

    def check(self) -> None:
        """Raise StoreUnusableError when the file is damaged. Files above CHECKED_SIZE are looked at in part."""
        small = self.path.stat().st_size <= CHECKED_SIZE
        with self._own_connection() as connection:
            (finding,) = connection.execute("PRAGMA quick_check(1)" if small else "PRAGMA schema_version").fetchone()
            if small and finding != "ok":
                raise self.damaged(str(finding))
            self._reuse_log(connection)

    def _reuse_log(self, connection: sqlite3.Connection) -> None:
        """Have the log written from its beginning again: on a full disk there is no other space for it."""
        connection.execute("PRAGMA busy_timeout=0")
        for _ in range(2):
            try:
                connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode not in _NO_SPACE:
                    raise
                if self.use_reserve():
                    continue
            # Without space for what is in the log it stays; a small write may still fit.
            break

    def settle(self) -> None:
        """Choose what is kept in the file's head, before the first table."""
        with self._own_connection() as connection:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("PRAGMA journal_mode=WAL")

    def housekeep(self) -> None:
        """Move the log into the file where no reader is in the way, and give back space when much of it is free."""
        with self._own_connection() as connection:
            connection.execute("PRAGMA busy_timeout=0")
            usage = self.usage(connection)
            scarce = usage.disk_free < usage.headroom
            keep = scarce and self._file.log_size() <= MAX_REUSED_LOG
            if keep:
                self._reuse_log(connection)
            else:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT * 1000:.0f}")
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            if free > max(VACUUM_PAGES, pages // 4):
                # Gives a row for each page; only a script is stepped to its end.
                connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
            elif scarce and usage.reusable > 2 * usage.headroom:
                # What was set aside and used has to come from somewhere.
                self._vacuum_a_little(connection)
        if self._reserve is not None:
            self._reserve.hold(self._file.disk()[0])

    def _vacuum_a_little(self, connection: sqlite3.Connection) -> None:
        for pages in SMALL_VACUUM:
            try:
                connection.executescript(f"PRAGMA incremental_vacuum({pages})")
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode not in _NO_SPACE:
                    raise
            else:
                return

    def classify(self, exc: BaseException) -> MonitorError:
        """What an error of the driver means to the caller."""
        code = getattr(exc, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _DAMAGED:
            return self.damaged(str(exc))
        if code is None and isinstance(exc, sqlite3.OperationalError | UnicodeDecodeError):
            # The module's own, of a value or of its message about the schema; its text would show it.
            return self.damaged("it contains text that is not UTF-8")
        if code == sqlite3.SQLITE_INTERRUPT:
            return too_slow()
        text = f"The store {self.path} is unavailable: {exc}"
        if code in _NO_SPACE:
            return StoreFullError(text)
        if code is not None and code & 0xFF == sqlite3.SQLITE_CANTOPEN and self._file.disk()[0] < MIN_RESERVE:
            return StoreFullError(f"{text}: the disk is full")
        return StoreUnavailableError(text)

    def damaged(self, finding: str) -> StoreUnusableError:
        """The error for a file that is no database or a broken one."""
        return StoreUnusableError(
            f"The store {self.path} is damaged or not a database ({finding}). It was not modified: restore a "
            "backup, or move it away to start with an empty store"
        )

    def read_sequence(self, identity: str | None) -> SequenceRecord | None:
        """See StoreDialect."""
        return self._file.read_sequence(identity)

    def write_sequence(self, record: SequenceRecord) -> None:
        """See StoreDialect."""
        self._file.write_sequence(record)

    @staticmethod
    def other_fleets(connection: sqlite3.Connection) -> list[tuple[str, str]]:
        """See StoreDialect: a file is of one fleet."""
        del connection
        return []

    def report(self, now: Callable[[], float]) -> None:
        """See StoreDialect."""

    def verify(self) -> None:
        """See StoreDialect."""
        self._file.verify()

    @staticmethod
    def short_timeouts() -> contextlib.AbstractContextManager[None]:
        """See StoreDialect: nothing waits for a server."""
        return contextlib.nullcontext()

    def release(self) -> None:
        """See StoreDialect; a temporary file is deleted."""
        if self._anchor is not None:
            with contextlib.suppress(sqlite3.Error):
                self._anchor.close()
            self._anchor = None
        self._spares.release()
        self._file.release()

    @contextlib.contextmanager
    def _own_connection(self) -> Iterator[sqlite3.Connection]:
        """For what cannot be said inside of a transaction."""
        with self._driver(), contextlib.closing(self.connect()) as connection:
            yield connection

    @contextlib.contextmanager
    def _driver(self) -> Iterator[None]:
        """Errors of the driver end here."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as exc:
            error = self.classify(exc)
            if isinstance(error, StoreFullError):
                self.use_reserve()
            raise error from exc
