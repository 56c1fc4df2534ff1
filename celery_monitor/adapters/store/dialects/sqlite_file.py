"""SQLite: the database file, its lock, and the files beside it.

One daemon uses the file, and commands may use it at the same time. A lock on ``<file>.lock`` excludes a second daemon.
Only ``take`` creates the file.
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
    """A database file. If ``path`` is None, a temporary file that ``release`` deletes. ``setting``: see ``dialect_of``.

    It is used in place of SQLite's in-memory databases, which one thread cannot read while another one writes.
    """

    def __init__(self, path: Path | None, setting: str) -> None:
        self.temporary = path is None
        self._path = path
        self._setting = setting
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._lock = ProcessLock()
        self._identity: tuple[int, int] | None = None
        self._existed = False
        self._sequence: SequenceFile | None = None

    @property
    def path(self) -> Path:
        """Path of the file. Raises StoreUnavailableError for a temporary file before ``take``."""
        if self._path is not None:
            return self._path
        if self._directory is None:
            raise StoreUnavailableError("The temporary store is closed")
        return Path(self._directory.name, "celery-monitor.db")

    def beside(self, suffix: str) -> Path:
        """Path of a file that belongs to the database."""
        return self.path.with_name(self.path.name + suffix)

    def take(self) -> None:
        """Take the daemon's lock, and create the file if it does not exist. Raises as ``SqlStore.start``."""
        if self._path is None and self._directory is None:
            self._directory = _temporary_directory(self._setting)
        path = self.path
        try:
            self._existed = path.exists()
            holder = self._lock.take(self.beside(".lock"))
            if holder is not None:
                raise StoreInUseError(str(path), holder, "stop that one, or use a different store")
            # Readable for this user only: the data may be confidential.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600))
            self._check_files()
            self._identity = self._on_disk()
        except OSError as exc:
            raise refusal(self.path, exc, self._setting) from exc

    def exists(self) -> bool:
        """Whether there is a file to attach to. Raises StoreUnusableError if this cannot be determined."""
        if self._path is None and self._directory is None:
            raise StoreUnusableError(
                f"The store is a temporary file of the daemon, which no command can open: set {self._setting} to the "
                "path of a file"
            )
        try:
            return self.path.is_file()
        except OSError as exc:
            raise refusal(self.path, exc, self._setting) from exc

    def read_sequence(self, identity: str | None) -> SequenceRecord | None:
        """The newest flush that was recorded as committed to this store. Prepares ``write_sequence``.

        ``identity``: the store's; None or "" if it has none. A database file that did not exist before this start is a
        new store, so a record beside it is ignored.
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
        """Record that a flush was committed."""
        if self._sequence is not None:
            self._sequence.write(record)

    def verify(self) -> None:
        """Raise StoreUnusableError if the open file is no longer the one at its path.

        Otherwise, commits would go on into a deleted file, which disappears with the process.
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
        """Release the lock. Deletes a temporary file."""
        self._lock.release()
        self._identity = None
        if self._sequence is not None:
            self._sequence.close()
            self._sequence = None
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def disk(self) -> tuple[float, float]:
        """(free, total) bytes of the file system for this user; infinite if it does not report them."""
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
        """Raise StoreUnusableError if the database or its log is not a regular file.

        Otherwise, the monitor would retry a device or a pipe forever.
        """
        for path in (self.path, *(self.beside(end) for end in ("-wal", "-shm", "-journal"))):
            if path.exists() and not path.is_file():
                raise StoreUnusableError(
                    f"The store {self.path} cannot be opened: {path} is not a regular file (a device, a pipe, a socket "
                    f"or a directory): remove it, or set {self._setting} to the path of a file"
                )


def _temporary_directory(setting: str) -> tempfile.TemporaryDirectory[str]:
    """Raises StoreUnusableError if none can be created."""
    try:
        return tempfile.TemporaryDirectory(prefix="celery-monitor-")
    except OSError as exc:
        raise StoreUnusableError(
            f"The temporary store of sqlite:///:memory: cannot be created: {exc.strerror}: set TMPDIR to a directory "
            f"that the monitor can write, or set {setting} to the path of a file"
        ) from exc
