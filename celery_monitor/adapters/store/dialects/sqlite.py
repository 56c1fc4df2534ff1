"""SQLite: connections, locks, disk space and errors.

Connections open the file only if it exists. Only ``prepare`` creates it.
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
from celery_monitor.adapters.store.dialects.sqlite_refusal import not_writable
from celery_monitor.adapters.store.reserve import MIN_RESERVE, DiskReserve, SpareDescriptors, reserve_size
from celery_monitor.adapters.store.sequence import SequenceRecord
from celery_monitor.errors import MonitorError, StoreFullError, StoreUnavailableError, StoreUnusableError

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another writer, such as a command, before the write fails and the caller retries."""
CHECKED_SIZE: Final = 64 * 1024 * 1024
"""Bytes up to which a file is checked in full at the start, so that damage is found before the data is used."""
WAL_LIMIT: Final = 64 * 1024 * 1024
"""Maximum bytes of the write-ahead log after a checkpoint."""
WRITER_CACHE: Final = 8000
READER_CACHE: Final = 2000
"""Cache of a connection, in KiB. A process may have 8 connections of writers and 16 of readers."""
VACUUM_PAGES: Final = 2000
"""Free pages that one run returns to the file system: 8 MB."""

STEPS_PER_CHECK: Final = 20_000
"""Instructions of SQLite's virtual machine between two checks of the deadline: about a millisecond."""

MAX_REUSED_LOG: Final = 8 * 1024 * 1024
"""While the disk is nearly full, a log of up to this many bytes is not truncated, so that it can be reused."""
SMALL_VACUUM: Final = (500, 50, 5)
"""Numbers of pages to try to return while the disk is nearly full. Each may need a page in the log."""

_NO_SPACE: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_WRITE,  # a quota or the maximum size of a file is exceeded
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_TRUNCATE,
    }
)
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_NOT_OPEN: Final = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY})
"""SQLite does not say why; a reader needs write permission, too, for the log and its index."""


class SqliteDialect:
    """See ``base.StoreDialect``. Raises StoreUnusableError for an invalid URL.

    ``max_bytes`` limits the size of the file and of the disk reserve. ``setting``: see ``dialect_of``.
    """

    driver = "sqlite://"
    options: Mapping[str, Any] = {}
    shared = False
    errors: tuple[type[Exception], ...] = (sqlite3.Error,)
    clock = "(julianday('now') - 2440587.5) * 86400.0"

    def __init__(self, url: str, max_bytes: float, setting: str) -> None:
        try:
            parsed = make_url(url)
        except ArgumentError as exc:
            raise StoreUnusableError(f"{setting} is not a valid URL: use sqlite:///path/to/file.db") from exc
        if parsed.query:
            raise StoreUnusableError(f"{setting} takes no parameters (nothing after a question mark)")
        memory = parsed.database in {None, "", ":memory:"}
        self.limit = max_bytes
        self.setting = setting
        self._file = SqliteFile(None if memory else Path(parsed.database or "").absolute(), setting)
        self._reserve: DiskReserve | None = None
        self._spares = SpareDescriptors()
        self._anchor: sqlite3.Connection | None = None

    @property
    def path(self) -> Path:
        """Path of the file. Available after ``prepare``."""
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
        """See StoreDialect. Takes the daemon's lock, and creates the file if it does not exist."""
        self._file.take()
        if not self._file.temporary:
            size = reserve_size(self.limit, self._file.disk()[1])
            self._reserve = DiskReserve(self._file.beside(".reserve"), size)

    @staticmethod
    def other_user_of_files() -> str | None:
        """See StoreDialect. The lock of the database covers the files, too."""
        return None

    def exists(self) -> bool:
        """See StoreDialect."""
        return self._file.exists()

    def connect(self, *, read_only: bool = False) -> sqlite3.Connection:
        """A connection without implicit transactions.

        ``synchronous=FULL``, because messages are acknowledged after a commit, so it must survive a power loss; NORMAL
        does not guarantee this in WAL mode. If no descriptor is left, this uses the spare ones.
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
        # In a container with a read-only file system, a large sort cannot use a temporary file.
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute(f"PRAGMA cache_size=-{READER_CACHE if read_only else WRITER_CACHE}")
        if read_only:
            connection.execute("PRAGMA query_only=ON")
        try:
            # Opens the log, too, because later there may be no descriptor for it.
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        except (sqlite3.Error, UnicodeDecodeError):
            connection.close()
            raise
        return connection

    def set_up_reserves(self) -> None:
        """Reserve descriptors and disk space, and open a connection that keeps the log alive.

        When the last connection is closed, SQLite deletes the log. On a full disk there may be no space for a new one.
        """
        self._spares.fill()
        if self._anchor is None:
            with self._driver():
                self._anchor = self.connect(read_only=True)
        if self._reserve is not None:
            self._reserve.allocate(self._file.disk()[0])

    def use_reserve(self) -> bool:
        """See StoreDialect."""
        return self._reserve is not None and self._reserve.release()

    def usage(self, connection: Any) -> Usage:  # noqa: ANN401 - the pool knows no type
        """See StoreDialect."""
        (pages,), (free,), (size,) = (
            connection.execute(f"PRAGMA {pragma}").fetchone()
            for pragma in ("page_count", "freelist_count", "page_size")
        )
        used, reusable = (pages - free) * size + self._file.log_size(), free * size
        if self._reserve is None:
            return Usage(used, reusable, math.inf, 0)
        missing = 0 if self._reserve.exists else self._reserve.size
        return Usage(used, reusable, max(0.0, self._file.disk()[0] - missing), self._reserve.size)

    @staticmethod
    @contextlib.contextmanager
    def ended_at(connection: Any, deadline: float) -> Iterator[None]:  # noqa: ANN401 - the pool knows no type
        """See StoreDialect."""
        if deadline == math.inf:
            yield
            return
        connection.set_progress_handler(lambda: time.monotonic() >= deadline, STEPS_PER_CHECK)
        yield
        # Not in ``finally``: after an error, the connection is closed.
        connection.set_progress_handler(None, 0)

    @staticmethod
    def pipelined(connection: Any) -> contextlib.AbstractContextManager[None]:  # noqa: ANN401 - the pool knows no type
        """See StoreDialect. No effect, because there are no network round trips to save."""
        del connection
        return contextlib.nullcontext()

    @staticmethod
    def begin(*, read_only: bool, lock_wait: float | None = None) -> str:
        """See StoreDialect. A writer takes the lock at once, because taking it later can fail without waiting."""
        del lock_wait
        return "BEGIN" if read_only else "BEGIN IMMEDIATE"

    def limit_silence(self, connection: sqlite3.Connection, seconds: float) -> None:
        """See StoreDialect. No effect, because there is no server."""

    @staticmethod
    def end_abandoned(connection: sqlite3.Connection, silent_for: float) -> int:
        """See StoreDialect. There are none: the kernel releases the locks of a process when it ends."""
        del connection, silent_for
        return 0

    def check(self) -> None:
        """Raise StoreUnusableError if the file is damaged. Files larger than CHECKED_SIZE are checked only in part."""
        small = self.path.stat().st_size <= CHECKED_SIZE
        with self._own_connection() as connection:
            (finding,) = connection.execute("PRAGMA quick_check(1)" if small else "PRAGMA schema_version").fetchone()
            if small and finding != "ok":
                raise self.damaged(str(finding))
            self._reuse_log(connection)

    def _reuse_log(self, connection: sqlite3.Connection) -> None:
        """Make SQLite write the log from its beginning again. On a full disk, there is no space to append to it."""
        connection.execute("PRAGMA busy_timeout=0")
        for _ in range(2):
            try:
                connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode not in _NO_SPACE:
                    raise
                if self.use_reserve():
                    continue
            # There is no space to checkpoint the log, so it stays. A small write may still fit into it.
            break

    def set_format(self) -> None:
        """See StoreDialect."""
        with self._own_connection() as connection:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("PRAGMA journal_mode=WAL")

    def housekeep(self) -> None:
        """Checkpoint the log if no reader prevents it, and return space to the file system if much of it is free."""
        with self._own_connection() as connection:
            connection.execute("PRAGMA busy_timeout=0")
            usage = self.usage(connection)
            scarce = usage.disk_free < usage.headroom
            if scarce and self._file.log_size() <= MAX_REUSED_LOG:
                self._reuse_log(connection)
            else:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT * 1000:.0f}")
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            if free > max(VACUUM_PAGES, pages // 4):
                # The pragma returns a row per page. Only ``executescript`` runs it to the end.
                connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
            elif scarce and usage.reusable > 2 * usage.headroom:
                # Free space for a new reserve.
                self._vacuum_a_little(connection)
        if self._reserve is not None:
            self._reserve.allocate(self._file.disk()[0])

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
        """See StoreDialect."""
        code = getattr(exc, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _DAMAGED:
            return self.damaged(str(exc))
        if code is None and isinstance(exc, sqlite3.OperationalError | UnicodeDecodeError):
            # Raised by the module sqlite3 for text that is not UTF-8. Its message would contain that text.
            return self.damaged("it contains text that is not UTF-8")
        if code == sqlite3.SQLITE_INTERRUPT:
            return too_slow()
        text = f"The store {self.path} is unavailable: {exc}"
        if code in _NO_SPACE:
            return StoreFullError(text)
        if code is not None and code & 0xFF == sqlite3.SQLITE_CANTOPEN and self._file.disk()[0] < MIN_RESERVE:
            return StoreFullError(f"{text}: the disk is full")
        not_open = code is not None and code & 0xFF in _NOT_OPEN
        reason = not_writable(self.path, self.setting) if not_open else None
        return StoreUnavailableError(f"{text}: {reason}" if reason else text)

    def damaged(self, finding: str) -> StoreUnusableError:
        """The error for a file that is damaged or not a database."""
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
        """See StoreDialect. A file belongs to one fleet."""
        del connection
        return []

    def report(self, now: Callable[[], float]) -> None:
        """See StoreDialect."""

    def verify(self) -> None:
        """See StoreDialect."""
        self._file.verify()

    @staticmethod
    def short_timeouts() -> contextlib.AbstractContextManager[None]:
        """See StoreDialect. No effect, because there is no server."""
        return contextlib.nullcontext()

    def release(self) -> None:
        """See StoreDialect. Deletes a temporary file."""
        if self._anchor is not None:
            with contextlib.suppress(sqlite3.Error):
                self._anchor.close()
            self._anchor = None
        self._spares.release()
        self._file.release()

    @contextlib.contextmanager
    def _own_connection(self) -> Iterator[sqlite3.Connection]:
        """A connection for statements that cannot run inside a transaction."""
        with self._driver(), contextlib.closing(self.connect()) as connection:
            yield connection

    @contextlib.contextmanager
    def _driver(self) -> Iterator[None]:
        """Translate errors of the driver."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as exc:
            error = self.classify(exc)
            if isinstance(error, StoreFullError):
                self.use_reserve()
            raise error from exc
