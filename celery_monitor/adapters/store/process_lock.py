"""A file lock that records its holder in the file.

The kernel releases the lock when the process ends, so no stale lock remains. It also excludes processes on other hosts
if the file system shares locks between hosts, as NFS does.
"""

import contextlib
import fcntl
import os
import socket
from pathlib import Path


class ProcessLock:
    """A lock that one process at a time can hold."""

    def __init__(self) -> None:
        self._file: int | None = None

    def take(self, path: Path) -> str | None:
        """Take the lock. Returns None if this process now holds it, otherwise its holder. Raises OSError."""
        if self._file is not None:
            return None
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _first_line(file) or "unknown process"
            os.close(file)
            return holder
        except OSError:
            os.close(file)
            raise
        self._file = file
        # The holder is for people only, so a full disk must not prevent the start.
        with contextlib.suppress(OSError):
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        return None

    def release(self) -> None:
        """Release the lock if this process holds it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _first_line(file: int) -> str:
    """The first line of a small file; empty if it cannot be read."""
    try:
        return os.read(file, 200).decode(errors="replace").strip()
    except OSError:
        return ""
