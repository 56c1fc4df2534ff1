"""The daemon, with one body that ends the process: for the test of messages that are set aside.

python -m tests.e2e.fatal CONFIG
"""

import os
import signal
import sys

from celery_monitor.cli.run import run
from celery_monitor.core import intake
from celery_monitor.core.decode import Discarded, events_of
from celery_monitor.core.model import Delivery, Event

FATAL = b"the process dies of this"


def _die(delivery: Delivery) -> list[Event | Discarded]:
    if FATAL in delivery.body and delivery.refused is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return events_of(delivery)


if __name__ == "__main__":
    vars(intake)["events_of"] = _die
    run(["--config", sys.argv[1]])
