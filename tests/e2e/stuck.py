"""The daemon, with a broker library that does not come back from a call: for the test of the watchdog.

    python -m tests.e2e.stuck CONFIG

Everything is the product's own but for the one call, and the watchdog's patience, which is 2 s here and not a minute.
"""

import sys
import threading
from pathlib import Path
from typing import Any

import celery_monitor.app
from celery_monitor.adapters.broker import BrokerSource
from celery_monitor.cli.run import configure_log
from celery_monitor.settings import load


def hang(*_: Any) -> None:
    """What kombu can do in ``close``, without a timeout."""
    threading.Event().wait()


if __name__ == "__main__":
    celery_monitor.app._STUCK_AFTER = 2.0  # type: ignore[misc]
    BrokerSource.poll = hang  # type: ignore[method-assign, assignment]
    settings = load(Path(sys.argv[1]), {})
    configure_log(settings)
    raise SystemExit(celery_monitor.app.App(settings).run())
