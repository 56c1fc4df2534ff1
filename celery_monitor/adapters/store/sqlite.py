"""SQLite: all that is not the same in every database, but for the upsert (see ``statements``).

The file is used by one daemon and, beside it, by the command line. A lock on ``<file>.lock`` keeps a second daemon out;
the kernel drops it with the process, so there is never a stale one. Connections open the file only if it exists:
nothing but ``prepare`` creates it.
"""

import contextlib
import errno
import fcntl
import math
import os
import socket
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from celery_monitor.adapters.store.reserve import SMALLEST, DiskReserve, SpareDescriptors, reserve_size
from celery_monitor.adapters.store.sequence import Noted, SequenceFile
from celery_monitor.errors import (
    MonitorError,
    QueryTimeoutError,
    StoreFullError,
    StoreUnavailableError,
    StoreUnusableError,
)

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

KEPT_LOG: Final = 8 * 1024 * 1024
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


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes."""

    used: int
    """By pages that hold something, and by the log."""
    reusable: int
    """Free pages of the file."""
    disk_free: float
    """What the file system has for us, without what is set aside or should be."""
    headroom: int


class SqliteFile:
    """A database file, or with ``path`` None a temporary one that goes with ``release``.

    ``max_bytes`` bounds what is set aside for a full disk.

    The temporary file stands in for SQLite's own memory databases, which cannot be read by one thread while another
    one writes.
    """

    def __init__(self, path: Path | None, max_bytes: float = math.inf) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._reserve: DiskReserve | None = None
        self._spares = SpareDescriptors()
        self._anchor: sqlite3.Connection | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._lock: int | None = None
        self._identity: tuple[int, int] | None = None
        self._existed = False
        self._sequence: SequenceFile | None = None

    @property
    def path(self) -> Path:
        """Where the file is; a temporary one has no place before ``prepare``."""
        if self._path is not None:
            return self._path
        if self._temporary is None:
            raise StoreUnavailableError("The temporary store is closed")
        return Path(self._temporary.name, "celery-monitor.db")

    def prepare(self) -> None:
        """Take the daemon's lock, and create the file where there is none. Raises as ``Store.start``."""
        if self._path is None and self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="celery-monitor-")
        path = self.path
        try:
            self._existed = path.exists()
            self._take_lock(path.with_name(path.name + ".lock"))
            # What is in it may be of interest to nobody else.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._identity = self._on_disk()
        except OSError as exc:
            raise self._unusable(exc) from exc
        if self._path is not None:
            size = reserve_size(self._max_bytes, self._disk()[1])
            self._reserve = DiskReserve(path.with_name(path.name + ".reserve"), size)

    def exists(self) -> bool:
        """Whether there is a file to attach to. Raises StoreUnusableError where that cannot be found out."""
        try:
            return self.path.is_file()
        except OSError as exc:
            raise self._unusable(exc) from exc

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
        synchronous = "OFF" if self._path is None else "FULL"
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
        except sqlite3.Error:
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
            self._reserve.hold(self._disk()[0])

    def use_reserve(self) -> bool:
        """Give up what was set aside on the disk; whether there was anything."""
        return self._reserve is not None and self._reserve.release()

    def usage(self, connection: Any) -> Usage:  # noqa: ANN401 - the pool knows no type
        """How much space there is, seen from within a transaction."""
        (pages,), (free,), (size,) = (
            connection.execute(f"PRAGMA {what}").fetchone() for what in ("page_count", "freelist_count", "page_size")
        )
        used, reusable = (pages - free) * size + self._log_size(), free * size
        if self._reserve is None:
            return Usage(used, reusable, math.inf, 0)
        missing = 0 if self._reserve.held else self._reserve.size
        return Usage(used, reusable, max(0.0, self._disk()[0] - missing), self._reserve.size)

    @staticmethod
    @contextlib.contextmanager
    def ended_at(connection: Any, answer_by: float) -> Iterator[None]:  # noqa: ANN401 - the pool knows no type
        """Within the block each statement ends with an error at this monotonic time."""
        if answer_by == math.inf:
            yield
            return
        connection.set_progress_handler(lambda: time.monotonic() >= answer_by, STEPS_PER_LOOK)
        yield
        # After an error the connection is not used again.
        connection.set_progress_handler(None, 0)

    @staticmethod
    def begin(*, read_only: bool) -> str:
        """A writer takes the write lock at once: taken later, it could fail without waiting."""
        return "BEGIN" if read_only else "BEGIN IMMEDIATE"

    def check(self) -> None:
        """Raise StoreUnusableError when the file is damaged. Files above CHECKED_SIZE are looked at in part."""
        small = self.path.stat().st_size <= CHECKED_SIZE
        with self._own_connection() as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)" if small else "PRAGMA schema_version").fetchone()
            if small and found != "ok":
                raise self.damaged(str(found))
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

    def noted(self, identity: str | None) -> Noted | None:
        """The newest flush that is known to have been committed to this store. ``identity``: None or "" without one.

        Begins to take notes. A file that did not exist before this start is a new store, whatever lies beside it.
        """
        if self._path is None:
            return None
        self._sequence = SequenceFile(self._path.with_name(self._path.name + ".sequence"))
        found = self._sequence.read()
        self._sequence.open()
        if identity:
            return found if found is not None and found.identity == identity else None
        return found if self._existed else None

    def note(self, noted: Noted) -> None:
        """A flush was committed."""
        if self._sequence is not None:
            self._sequence.write(noted)

    def verify(self) -> None:
        """Raise StoreUnusableError when the file that is open is not the one in its place any more.

        Without this, commits would go on, into a file that has no name and is gone with the process.
        """
        try:
            found = self._on_disk()
        except OSError:
            found = None
        if found != self._identity:
            raise StoreUnusableError(
                f"The store {self.path} was removed or replaced while it was in use: start the monitor again"
            )

    def housekeep(self) -> None:
        """Move the log into the file where no reader is in the way, and give back space when much of it is free."""
        with self._own_connection() as connection:
            connection.execute("PRAGMA busy_timeout=0")
            usage = self.usage(connection)
            scarce = usage.disk_free < usage.headroom
            keep = scarce and self._log_size() <= KEPT_LOG
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
            self._reserve.hold(self._disk()[0])

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
        if code is None and isinstance(exc, sqlite3.OperationalError):
            # The module's own; its text would show the value.
            return self.damaged("it holds a text that is not UTF-8")
        if code == sqlite3.SQLITE_INTERRUPT:
            return too_slow()
        text = f"The store {self.path} cannot be used now: {exc}"
        if code in _NO_SPACE:
            return StoreFullError(text)
        if code is not None and code & 0xFF == sqlite3.SQLITE_CANTOPEN and self._disk()[0] < SMALLEST:
            return StoreFullError(f"{text}: the disk is full")
        return StoreUnavailableError(text)

    def damaged(self, finding: str) -> StoreUnusableError:
        """The error for a file that is no database or a broken one."""
        return StoreUnusableError(
            f"The store {self.path} is damaged or not a database ({finding}). It was left as it is: "
            "restore a copy, or move it away to begin with an empty one"
        )

    def release(self) -> None:
        """Give up the lock; a temporary file is deleted."""
        if self._anchor is not None:
            with contextlib.suppress(sqlite3.Error):
                self._anchor.close()
            self._anchor = None
        self._spares.release()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._identity = None
        if self._sequence is not None:
            self._sequence.close()
            self._sequence = None
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

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
        except sqlite3.Error as exc:
            found = self.classify(exc)
            if isinstance(found, StoreFullError):
                self.use_reserve()
            raise found from exc

    def _disk(self) -> tuple[float, float]:
        """Bytes of the file system that are free for this user, and all of them; a network's may not say."""
        try:
            status = os.statvfs(self.path.parent)
        except OSError:
            return math.inf, math.inf
        if not status.f_blocks:
            return math.inf, math.inf
        return float(status.f_bavail * status.f_frsize), float(status.f_blocks * status.f_frsize)

    def _log_size(self) -> int:
        try:
            return self.path.with_name(self.path.name + "-wal").stat().st_size
        except OSError:
            return 0

    def _on_disk(self) -> tuple[int, int]:
        status = self.path.stat()
        return status.st_dev, status.st_ino

    def _take_lock(self, path: Path) -> None:
        if self._lock is not None:
            return
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 200).decode(errors="replace").strip() or "unknown process"
            os.close(lock)
            raise StoreUnusableError(
                f"The store {self.path} is in use by another celery-monitor ({holder}): stop that one, "
                "or give this one another store.url"
            ) from None
        except OSError:
            os.close(lock)
            raise
        self._lock = lock
        # Only a person reads it: a full disk must not keep the daemon from its start.
        with contextlib.suppress(OSError):
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def _unusable(self, exc: OSError) -> MonitorError:
        path = self.path
        if isinstance(exc, FileNotFoundError) and path.parent.is_dir():
            remedy = f"no file can be made in {path.parent}: set store.url to another place"
        elif isinstance(exc, FileNotFoundError):
            remedy = f"the directory {path.parent} does not exist: create it, or set store.url to another place"
        elif isinstance(exc, IsADirectoryError):
            remedy = "it is a directory: set store.url to the path of a file"
        elif exc.errno in {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR}:
            remedy = f"{exc.strerror}: set store.url to the path of a file"
        elif isinstance(exc, PermissionError) or exc.errno == errno.EROFS:
            remedy = (
                f"user {os.getuid()} may not write {exc.filename or path.parent}: make it and its directory writable "
                "for the monitor, or set store.url to another place"
            )
        else:
            return StoreUnavailableError(f"The store {path} cannot be opened now: {exc.strerror}")
        return StoreUnusableError(f"The store {path} cannot be opened: {remedy}")


def too_slow() -> QueryTimeoutError:
    """The error for a query that has reached its deadline."""
    return QueryTimeoutError(
        "The query took too long and was ended: ask for less, by a task, an exception or a shorter time (since, until)"
    )
