"""SQLite: why the operating system cannot open or create the database file, and what to do about it."""

import errno
import os
from pathlib import Path
from typing import Final

from celery_monitor.errors import MonitorError, StoreFullError, StoreUnavailableError, StoreUnusableError
from celery_monitor.settings.store import STORE_URL

_NOT_A_FILE: Final = {
    errno.EISDIR: "it is a directory",
    errno.ENXIO: "it is a socket or a device",
    errno.ENAMETOOLONG: os.strerror(errno.ENAMETOOLONG),
    errno.ELOOP: os.strerror(errno.ELOOP),
}
_FULL: Final = {
    errno.ENOSPC: "the file system is full: free space or inodes on it",
    errno.EDQUOT: "the disk quota is used up: free space, or raise the quota",
}


def refusal(path: Path, exc: OSError, setting: str) -> MonitorError:
    """The error for an attempt to open the store at ``path``, with its cause and the remedy.

    ``setting``: the name of the setting or option that contains the URL.
    It is a StoreUnavailableError if a later attempt may succeed with the same configuration.
    """
    if exc.errno in _FULL:
        return StoreFullError(f"The store {path} cannot be opened now: {_FULL[exc.errno]}")
    cause = _cause(path, exc, setting)
    if cause is None:
        return StoreUnavailableError(f"The store {path} cannot be opened now: {exc.strerror}")
    return StoreUnusableError(f"The store {path} cannot be opened: {cause}")


def not_writable(path: Path, setting: str = STORE_URL) -> str | None:
    """Why a store at ``path`` cannot be written, and what to do; None if no reason is found. Writes nothing.

    ``setting``: as in ``refusal``.
    """
    directory = path.parent
    try:
        if (reason := _no_directory(directory, setting)) is not None:
            return reason
        if os.statvfs(directory).f_flag & os.ST_RDONLY:
            return _read_only(directory, setting)
        if path.exists() and not os.access(path, os.W_OK):
            return _no_permission(path, setting)
    except PermissionError as exc:
        return _no_permission(_refused(path, exc), setting)
    except OSError:
        return None  # The file system itself fails, such as a network volume that is gone.
    return None if os.access(directory, os.W_OK | os.X_OK) else _no_permission(directory, setting)


def _no_directory(directory: Path, setting: str) -> str | None:
    """Why the directory does not exist, and what to do; None if it exists. Raises PermissionError."""
    if directory.is_dir():
        return None
    in_the_way = next((place for place in (directory, *directory.parents) if place.exists()), directory)
    if in_the_way.exists() and not in_the_way.is_dir():
        return f"{in_the_way} is not a directory: set {setting} to the path of a file"
    return f"the directory {directory} does not exist: create it, or set a different {setting}"


def _read_only(directory: Path, setting: str) -> str:
    return f"{directory} is on a read-only file system: mount a writable volume there, or set a different {setting}"


def _no_permission(place: Path, setting: str) -> str:
    return (
        f"user {os.getuid()} has no write permission for {place}: make it and its directory writable by the monitor, "
        f"run the command as the monitor's user, or set a different {setting}"
    )


def _cause(path: Path, exc: OSError, setting: str) -> str | None:
    """Why a file cannot be opened, and what to do; None if the cause may disappear by itself."""
    if exc.errno == errno.EROFS:
        return _read_only(path.parent, setting)
    if isinstance(exc, PermissionError):
        return _no_permission(_refused(path, exc), setting)
    if isinstance(exc, FileNotFoundError | NotADirectoryError):
        reason = _no_directory(path.parent, setting)
        if reason is not None:
            return reason
    if isinstance(exc, FileNotFoundError):
        return f"cannot create a file in {path.parent}: set a different {setting}"
    kind = _NOT_A_FILE.get(exc.errno or 0)
    return None if kind is None else f"{kind}: set {setting} to the path of a file"


def _refused(path: Path, exc: PermissionError) -> Path:
    """What this user may not write: the file of the error, or its directory if the file does not exist."""
    file = Path(exc.filename or path)
    try:
        return file if file.exists() else file.parent
    except OSError:
        return file.parent
