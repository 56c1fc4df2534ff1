"""Handles a standard output that is closed or full."""

import errno
import os
import sys
from typing import Final

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Errors of a destination that accepts no more data."""


def give_up() -> None:
    """Discard unwritten output; otherwise Python reports an error when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
