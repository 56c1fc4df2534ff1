"""Reserves for emergencies: disk space for when the disk is full, and file descriptors for when none is left."""

import contextlib
import os
import threading
from pathlib import Path
from typing import Final

MAX_RESERVE: Final = 16 << 20
MIN_RESERVE: Final = 1 << 20
SHARE: Final = 8
"""The reserve takes at most one part in SHARE of the file system and of ``store.max_bytes``."""
SPARES: Final = 8
"""Reserved descriptors. A connection needs two; the first of a process also needs one for the shared memory."""


def reserve_size(limit: float, total: float) -> int:
    """Bytes of the reserve for a store on a file system of ``total`` bytes. As many should stay free beside it."""
    return int(max(MIN_RESERVE, min(MAX_RESERVE, limit // SHARE, total // SHARE)))


class DiskReserve:
    """A file that occupies disk space and is deleted when the disk is full: ``<file>.reserve``."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self.size = size

    @property
    def exists(self) -> bool:
        """Whether the file exists and occupies space."""
        try:
            return self._path.stat().st_blocks > 0
        except OSError:
            return False

    def allocate(self, free: float) -> None:
        """Create the file, if of the ``free`` bytes at least as many remain for others. Does not raise."""
        if free < 2 * self.size or self.exists:
            return
        try:
            # O_NONBLOCK: a named pipe with this name would block the writer when it is full.
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        except OSError:
            return
        try:
            _allocate(file, self.size)
        except OSError:
            self.release()
        finally:
            os.close(file)

    def release(self) -> bool:
        """Free the space. Returns whether there was any. Deletes the file, which needs no descriptor."""
        existed = self.exists
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            return False
        return existed


def _allocate(file: int, size: int) -> None:
    """Allocate blocks, because a sparse file occupies no space. Writes them if the file system cannot allocate."""
    try:
        os.posix_fallocate(file, 0, size)
    except OSError:
        for _ in range(0, size, MIN_RESERVE):
            os.write(file, b"\1" * MIN_RESERVE)


class SpareDescriptors:
    """Spare open files. When no descriptor is left, they are closed so that the store can open its files."""

    def __init__(self) -> None:
        self._spares: list[int] = []
        self._lock = threading.Lock()

    def fill(self) -> None:
        """Open as many as possible, up to SPARES."""
        with self._lock, contextlib.suppress(OSError):
            while len(self._spares) < SPARES:
                self._spares.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def release(self) -> bool:
        """Close them. Returns whether there were any."""
        with self._lock:
            spares, self._spares = self._spares, []
            for spare in spares:
                os.close(spare)
            return bool(spares)
