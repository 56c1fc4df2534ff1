"""Standard output, which may be gone or full, and how times are written on it."""

import errno
import os
import sys
from datetime import UTC, datetime
from typing import Final

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Errors of a place that takes nothing more."""


def give_up() -> None:
    """Let what was not written go to nobody; else Python complains at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def rfc3339(at: float, timespec: str = "seconds") -> str:
    """As everywhere in the log, the API and the page: ``2026-11-23T14:02:11Z``. Times that are none stay numbers."""
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")
    except (OverflowError, OSError, ValueError):
        return f"{at:.3f}"
