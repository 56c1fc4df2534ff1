"""What is set aside for bad times: space on the disk, and file descriptors."""

import contextlib
import os
import threading
from pathlib import Path
from typing import Final

MAX_RESERVE: Final = 16 << 20
MIN_RESERVE: Final = 1 << 20
SHARE: Final = 8
"""At most this part of the file system, or of ``store.max_bytes``, is set aside."""
SPARES: Final = 8
"""Descriptors: a connection needs two, and the first one of a process the shared memory's."""


def reserve_size(limit: float, total: float) -> int:
    """Bytes to set aside, and as many to keep free beside them, for a store on a file system of ``total`` bytes."""
    return int(max(MIN_RESERVE, min(MAX_RESERVE, limit // SHARE, total // SHARE)))


class DiskReserve:
    """A file that holds space, given up when the disk is full: ``<file>.reserve``."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self.size = size

    @property
    def held(self) -> bool:
        """Whether there is something to give up."""
        try:
            return self._path.stat().st_blocks > 0
        except OSError:
            return False

    def hold(self, free: float) -> None:
        """Set the space aside, where ``free`` bytes leave as much again to everybody else. Raises nothing."""
        if free < 2 * self.size or self.held:
            return
        try:
            # O_NONBLOCK: a named pipe in its place would keep the writer waiting when it is full.
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
        """Give the space up; whether there was any. Removed rather than cut: that needs no descriptor."""
        held = self.held
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            return False
        return held


def _allocate(file: int, size: int) -> None:
    """Real blocks: a hole would hold nothing. Where the file system cannot allocate, they are written."""
    try:
        os.posix_fallocate(file, 0, size)
    except OSError:
        for _ in range(0, size, MIN_RESERVE):
            os.write(file, b"\1" * MIN_RESERVE)


class SpareDescriptors:
    """Open files that nobody needs, so that the store can open its own when all others are taken."""

    def __init__(self) -> None:
        self._spares: list[int] = []
        self._lock = threading.Lock()

    def fill(self) -> None:
        """Take as many as there are to be had, up to SPARES."""
        with self._lock, contextlib.suppress(OSError):
            while len(self._spares) < SPARES:
                self._spares.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def release(self) -> bool:
        """Give them up; whether there were any."""
        with self._lock:
            spares, self._spares = self._spares, []
            for spare in spares:
                os.close(spare)
            return bool(spares)
