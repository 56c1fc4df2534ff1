"""Ends a process whose Python interpreter is blocked.

A C call that never releases the interpreter lock (a bug in a library, a deadlock) stops all Python threads at once,
including the watchdog, the web server and signal handlers. Only a thread that does not need the lock can end such a
process, and Python has one: the timer of ``faulthandler``. It writes the tracebacks of all threads to standard error
and exits with code 1, which cannot be changed.

The timer measures wall-clock time: a process that was stopped (SIGSTOP, a paused container) for longer than the limit
is ended as soon as it continues.
"""

import contextlib
import faulthandler
import os
import sys
from typing import Final

_STDERR: Final = 2


class InterpreterGuard:
    """Ends the process unless ``extend`` is called again in time. A process has only one such timer."""

    def __init__(self) -> None:
        self._to: int | None = None

    def extend(self, seconds: float) -> None:
        """Restart the timer: end the process in so many seconds."""
        if self._to is None:
            self._to = _unblocked(_STDERR)
        faulthandler.dump_traceback_later(seconds, exit=True, file=self._to)

    def release(self) -> None:
        """Stop the timer."""
        faulthandler.cancel_dump_traceback_later()


def _unblocked(descriptor: int) -> int:
    """Reopen the same pipe, file or terminal non-blocking, so that a full pipe cannot block writing the tracebacks.

    Making the descriptor itself non-blocking would also affect the log, and other processes that share it. A socket
    cannot be reopened, so it is used as it is.
    """
    with contextlib.suppress(OSError):
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
    return sys.__stderr__.fileno() if sys.__stderr__ is not None else descriptor
