"""The command line on another wall clock: ``python -m tests.e2e.other_clock REAL SHOWN SPEED ARGUMENT …``.

Everything is the product's own but the clock: it showed SHOWN when the machine's showed REAL (unix seconds), and it
runs SPEED times as fast. Monotonic time stays as it is.
"""

import sys
import time

from celery_monitor.adapters.clock import SystemClock
from celery_monitor.cli import main

if __name__ == "__main__":
    real, shown, speed = map(float, sys.argv[1:4])
    SystemClock.now = lambda _: shown + (time.time() - real) * speed  # type: ignore[assignment, method-assign]
    sys.argv[1:] = sys.argv[4:]
    main()
