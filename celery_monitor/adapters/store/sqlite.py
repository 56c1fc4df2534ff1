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
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from celery_monitor.adapters.store.sequence import Noted, SequenceFile
from celery_monitor.errors import MonitorError, QueryTimeoutError, StoreUnavailableError, StoreUnusableError

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another writer (the command line) before the caller has to try again."""
CHECKED_SIZE: Final = 64 * 1024 * 1024
"""Files up to this size are read in full at start, to find damage before anything is built on it."""
WAL_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of the write-ahead log that stay on disk after a checkpoint."""
VACUUM_PAGES: Final = 2000
"""Free pages given back to the file system in one go: 8 MB."""

STEPS_PER_LOOK: Final = 20_000
"""Steps of SQLite's machine between two looks at the deadline: about a millisecond."""

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class SqliteFile:
    """A database file, or with ``path`` None a temporary one that goes with ``release``.

    The temporary file stands in for SQLite's own memory databases, which cannot be read by one thread while another
    one writes.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
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
        self._existed = path.exists()
        try:
            self._take_lock(path.with_name(path.name + ".lock"))
            # What is in it may be of interest to nobody else.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._identity = self._on_disk()
        except OSError as exc:
            raise self._unusable(exc) from exc

    def exists(self) -> bool:
        """Whether there is a file to attach to."""
        return self.path.is_file()

    def connect(self, *, read_only: bool = False) -> sqlite3.Connection:
        """A connection without implicit transactions.

        ``synchronous=FULL``: what is acknowledged to the broker after a commit must survive a loss of power, which
        NORMAL does not promise in WAL mode.
        """
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
        connection.execute("PRAGMA cache_size=-8000")
        if read_only:
            connection.execute("PRAGMA query_only=ON")
        return connection

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
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT * 1000:.0f}")
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            if free > max(VACUUM_PAGES, pages // 4):
                # Gives a row for each page; only a script is stepped to its end.
                connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")

    def classify(self, exc: BaseException) -> MonitorError:
        """What an error of the driver means to the caller."""
        code = getattr(exc, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _DAMAGED:
            return self.damaged(str(exc))
        if code == sqlite3.SQLITE_INTERRUPT:
            return too_slow()
        return StoreUnavailableError(f"The store {self.path} cannot be used now: {exc}")

    def damaged(self, finding: str) -> StoreUnusableError:
        """The error for a file that is no database or a broken one."""
        return StoreUnusableError(
            f"The store {self.path} is damaged or not a database ({finding}). It was left as it is: "
            "restore a copy, or move it away to begin with an empty one"
        )

    def release(self) -> None:
        """Give up the lock; a temporary file is deleted."""
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
        try:
            with contextlib.closing(self.connect()) as connection:
                yield connection
        except sqlite3.Error as exc:
            raise self.classify(exc) from exc

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
