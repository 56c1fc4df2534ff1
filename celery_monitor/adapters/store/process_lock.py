"""A lock on a file, and in the file who has it.

The kernel drops the lock with the process, so there is never a stale one. Processes on other hosts are kept out where
the file system passes locks on, as NFS does.
"""

import contextlib
import fcntl
import os
import socket
from pathlib import Path


class ProcessLock:
    """For one process at a time."""

    def __init__(self) -> None:
        self._file: int | None = None

    def take(self, path: Path) -> str | None:
        """Take it, if this process does not have it. None: it is ours; else who has it. Raises OSError."""
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
        # Only a person reads it: a full disk must not keep the daemon from its start.
        with contextlib.suppress(OSError):
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        return None

    def release(self) -> None:
        """Give it up, if this process has it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _first_line(file: int) -> str:
    """Of a small file; empty where nothing can be read."""
    try:
        return os.read(file, 200).decode(errors="replace").strip()
    except OSError:
        return ""
