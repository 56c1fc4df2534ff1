"""The daemon, with a broker library that does not come back from a call: for the test of the watchdog.

    python -m tests.e2e.stuck CONFIG [interpreter]

With ``interpreter`` the call keeps the interpreter's lock, so that no other thread runs either.

Everything is the product's own but for the one call, and the patience with it, which is seconds here and not minutes.
"""

import ctypes
import sys
import threading
from typing import Any

import celery_monitor.app
import celery_monitor.leader
import celery_monitor.runtime.committer
from celery_monitor.adapters.broker import BrokerSource
from celery_monitor.cli.run import run


def hang(*_: Any) -> None:
    """Like kombu's ``close``, which has no timeout."""
    threading.Event().wait()


def block(*_: Any) -> None:
    """Like a bug in an extension: calls of ``PyDLL`` hold the interpreter lock."""
    print("in the call", file=sys.stderr, flush=True)  # noqa: T201 - the test waits for it
    ctypes.PyDLL(None).sleep(600)


if __name__ == "__main__":
    celery_monitor.leader.STUCK_AFTER = 2.0  # type: ignore[misc]
    celery_monitor.runtime.committer.MAX_WAIT = 0.5  # type: ignore[misc]  # it is idle, and must not seem stuck
    celery_monitor.app._BLOCKED_AFTER = 4.0  # type: ignore[misc]
    BrokerSource.poll = block if "interpreter" in sys.argv else hang  # type: ignore[method-assign, assignment]
    run(["--config", sys.argv[1]])
