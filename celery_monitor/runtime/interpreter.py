"""The end of a process whose interpreter is blocked.

A call into C that keeps the interpreter's lock (a library's bug, a deadlock) stops every thread of Python at once: the
watchdog, the web server, and the handlers of signals. Only a thread that needs no lock can end such a process, and
Python has one: ``faulthandler``'s timer. It writes the tracebacks of all threads to standard error and ends the process
with code 1; it cannot give another code.

The timer measures real time: a process that was stopped (SIGSTOP, a paused container) for longer than the limit is
ended when it goes on.
"""

import contextlib
import faulthandler
import os
import sys
from typing import Final

_STDERR: Final = 2


class InterpreterGuard:
    """Ends the process unless ``extend`` is called again in time. There is one timer in a process."""

    def __init__(self) -> None:
        self._to: int | None = None

    def extend(self, seconds: float) -> None:
        """Let the process live for so many seconds more."""
        if self._to is None:
            self._to = _unblocked(_STDERR)
        faulthandler.dump_traceback_later(seconds, exit=True, file=self._to)

    def release(self) -> None:
        """Stop the timer."""
        faulthandler.cancel_dump_traceback_later()


def _unblocked(descriptor: int) -> int:
    """The same pipe, file or terminal, opened anew so that a full one cannot keep the tracebacks' writer waiting.

    Setting the descriptor itself to non-blocking would do so for the log, and for other processes that share it.
    A socket cannot be opened anew: it stays as it is.
    """
    with contextlib.suppress(OSError):
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
    return sys.__stderr__.fileno() if sys.__stderr__ is not None else descriptor
