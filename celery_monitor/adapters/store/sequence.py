"""The newest committed flush, kept beside the database: ``<file>.sequence``.

SQLite takes a write-ahead log up to its first broken frame and says nothing of what came after; a backup that somebody
restored is as silent. What was committed there was acknowledged to the broker, so it never comes again. This file makes
the loss visible: it is written after each commit and compared at the next start.

It may be behind the database (the process was killed in between, or power was lost before the kernel wrote it), which
says nothing. Only a database that is behind this file has lost what it had.
"""

import contextlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MAGIC: Final = "celery-monitor-sequence-1"
_LENGTH: Final = 128
"""Bytes, always the same: less than a sector, and no write needs more space than the first one."""


@dataclass(frozen=True, slots=True)
class SequenceRecord:
    """A flush that was committed."""

    identity: str
    """Of the store."""
    sequence: int
    at: float
    """Unix seconds."""


class SequenceFile:
    """Reads and writes the note. Nothing here raises: without the file only this one check is missing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def read(self) -> SequenceRecord | None:
        """What was noted last; None when there is no file, or not one of ours, whole."""
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
        """Note a flush. A few microseconds: it is not synchronised, because being behind does no harm."""
        if self._file is None:
            return
        body = f"{_MAGIC} {record.identity} {record.sequence} {record.at!r}"
        line = f"{body} {zlib.crc32(body.encode()):08x}".ljust(_LENGTH - 1) + "\n"
        with contextlib.suppress(OSError):
            os.pwrite(self._file, line.encode(), 0)

    def close(self) -> None:
        """Give up the descriptor."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _without_waiting(path: str, flags: int) -> int:
    """A named pipe in the file's place would keep the start waiting for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)
