"""Standard output, which may be gone or full."""

import errno
import os
import sys
from typing import Final

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Errors of a place that takes nothing more."""


def give_up() -> None:
    """Let what was not written go to nobody; else Python complains at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
