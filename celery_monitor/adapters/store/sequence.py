"""Records the newest committed flush in a file beside the database: ``<file>.sequence``.

SQLite recovers a damaged write-ahead log up to its first broken frame and drops the rest without an error. A restored
backup lacks newer flushes, also without an error. The messages of these flushes were acknowledged, so the broker does
not deliver them again. This file reveals the loss: it is written after each commit and compared at the next start.

The file may be behind the database, if the process was killed between the two or power was lost before the kernel wrote
the file. That means nothing. A database that is behind the file has lost flushes.
"""

import contextlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MAGIC: Final = "celery-monitor-sequence-1"
_LENGTH: Final = 128
"""Bytes of the file. It fits into a sector, and no later write needs more space than the first."""


@dataclass(frozen=True, slots=True)
class SequenceRecord:
    """A committed flush."""

    identity: str
    """The identity of the store."""
    sequence: int
    at: float
    """Unix seconds."""


class SequenceFile:
    """Reads and writes the record. No method raises: without the file, only this check is missing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def read(self) -> SequenceRecord | None:
        """The last record; None if the file is missing, incomplete or has another format."""
        try:
            with open(self._path, "rb", opener=_without_waiting) as file:
                line = file.read(_LENGTH).decode().rstrip()
            body, _, checksum = line.rpartition(" ")
            magic, identity, sequence, at = body.split(" ")
            if magic != _MAGIC or zlib.crc32(body.encode()) != int(checksum, 16):
                return None
            return SequenceRecord(identity, int(sequence), float(at))
        except (OSError, ValueError):
            return None

    def open(self) -> None:
        """Keep the file open for ``write``, so that a commit needs no descriptor."""
        self.close()
        with contextlib.suppress(OSError):
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)

    def write(self, record: SequenceRecord) -> None:
        """Record a flush. Takes a few microseconds: the file is not synced, because a lagging file does no harm."""
        if self._file is None:
            return
        body = f"{_MAGIC} {record.identity} {record.sequence} {record.at!r}"
        line = f"{body} {zlib.crc32(body.encode()):08x}".ljust(_LENGTH - 1) + "\n"
        with contextlib.suppress(OSError):
            os.pwrite(self._file, line.encode(), 0)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _without_waiting(path: str, flags: int) -> int:
    """An opener for ``open`` that does not block if the path is a named pipe."""
    return os.open(path, flags | os.O_NONBLOCK)
