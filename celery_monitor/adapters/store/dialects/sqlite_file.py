"""SQLite: the file of the database, who has it, and what lies beside it.

The file is used by one daemon and, beside it, by the command line. A lock on ``<file>.lock`` keeps a second daemon out.
Nothing but ``take`` creates the file.
"""

import math
import os
import tempfile
from pathlib import Path

from celery_monitor.adapters.store.dialects.sqlite_refusal import refusal
from celery_monitor.adapters.store.process_lock import ProcessLock
from celery_monitor.adapters.store.sequence import SequenceFile, SequenceRecord
from celery_monitor.errors import StoreInUseError, StoreUnavailableError, StoreUnusableError


class SqliteFile:
    """A database file, or with ``path`` None a temporary one that goes with ``release``.

    The temporary file stands in for SQLite's own memory databases, which cannot be read by one thread while another
    one writes.
    """

    def __init__(self, path: Path | None) -> None:
        self.temporary = path is None
        self._path = path
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._lock = ProcessLock()
        self._identity: tuple[int, int] | None = None
        self._existed = False
        self._sequence: SequenceFile | None = None

    @property
    def path(self) -> Path:
        """Where the file is; a temporary one has no place before ``take``."""
        if self._path is not None:
            return self._path
        if self._directory is None:
            raise StoreUnavailableError("The temporary store is closed")
        return Path(self._directory.name, "celery-monitor.db")

    def beside(self, suffix: str) -> Path:
        """The place of a file that belongs to this one."""
        return self.path.with_name(self.path.name + suffix)

    def take(self) -> None:
        """Take the daemon's lock, and create the file where there is none. Raises as ``SqlStore.start``."""
        if self._path is None and self._directory is None:
            self._directory = _temporary_directory()
        path = self.path
        try:
            self._existed = path.exists()
            holder = self._lock.take(self.beside(".lock"))
            if holder is not None:
                raise StoreInUseError(str(path), holder, "stop that one, or use a different store")
            # What is in it may be of interest to nobody else.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600))
            self._check_files()
            self._identity = self._on_disk()
        except OSError as exc:
            raise refusal(self.path, exc) from exc

    def exists(self) -> bool:
        """Whether there is a file to attach to. Raises StoreUnusableError where that cannot be found out."""
        try:
            return self.path.is_file()
        except OSError as exc:
            raise refusal(self.path, exc) from exc

    def read_sequence(self, identity: str | None) -> SequenceRecord | None:
        """The newest flush that is known to have been committed to this store. ``identity``: None or "" without one.

        Begins to take notes. A file that did not exist before this start is a new store, whatever lies beside it.
        """
        if self._path is None:
            return None
        self._sequence = SequenceFile(self.beside(".sequence"))
        record = self._sequence.read()
        self._sequence.open()
        if identity:
            return record if record is not None and record.identity == identity else None
        return record if self._existed else None

    def write_sequence(self, record: SequenceRecord) -> None:
        """A flush was committed."""
        if self._sequence is not None:
            self._sequence.write(record)

    def verify(self) -> None:
        """Raise StoreUnusableError if the open file is no longer the one at its path.

        Without this, commits would go on, into a file that has no name and is gone with the process.
        """
        try:
            identity = self._on_disk()
        except OSError:
            identity = None
        if identity != self._identity:
            raise StoreUnusableError(
                f"The store {self.path} was removed or replaced while it was in use: restart the monitor"
            )

    def release(self) -> None:
        """Give up the lock; a temporary file is deleted."""
        self._lock.release()
        self._identity = None
        if self._sequence is not None:
            self._sequence.close()
            self._sequence = None
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def disk(self) -> tuple[float, float]:
        """Bytes of the file system that are free for this user, and all of them; a network's may not say."""
        try:
            status = os.statvfs(self.path.parent)
        except OSError:
            return math.inf, math.inf
        if not status.f_blocks:
            return math.inf, math.inf
        return float(status.f_bavail * status.f_frsize), float(status.f_blocks * status.f_frsize)

    def log_size(self) -> int:
        """Bytes of the write-ahead log."""
        try:
            return self.beside("-wal").stat().st_size
        except OSError:
            return 0

    def _on_disk(self) -> tuple[int, int]:
        status = self.path.stat()
        return status.st_dev, status.st_ino

    def _check_files(self) -> None:
        """Raise StoreUnusableError for what is no file and stands where the database or its log does.

        A device or a pipe would be tried again for ever.
        """
        for path in (self.path, *(self.beside(end) for end in ("-wal", "-shm", "-journal"))):
            if path.exists() and not path.is_file():
                raise StoreUnusableError(
                    f"The store {self.path} cannot be opened: {path} is not a regular file (a device, a pipe, a socket "
                    "or a directory): remove it, or set store.url to the path of a file"
                )


def _temporary_directory() -> tempfile.TemporaryDirectory[str]:
    """Raises StoreUnusableError where the machine has no place for one."""
    try:
        return tempfile.TemporaryDirectory(prefix="celery-monitor-")
    except OSError as exc:
        raise StoreUnusableError(
            f"The temporary store of sqlite:///:memory: cannot be created: {exc.strerror}: set TMPDIR to a directory "
            "that the monitor can write, or set store.url to the path of a file"
        ) from exc
