"""The daemon's part that mails, in a process of its own.

Usage: ``python -m tests.adapters.channels.email.mailer STORE PORT OFFSET``. Schedule, notifier and sender on the real
store, with a clock that is OFFSET seconds ahead. Prints a line when it runs.
"""

import sys
import threading
from zoneinfo import ZoneInfo

from celery_monitor.adapters.channels.email.sender import EmailSender
from celery_monitor.adapters.clock import SystemClock
from celery_monitor.adapters.store import open_store
from celery_monitor.runtime.notifier import Notifier
from celery_monitor.runtime.report import DayReport
from celery_monitor.runtime.schedule import ReportSchedule
from celery_monitor.settings import EmailSettings

SCHEDULE, ZONE = "0 8 * * *", "Europe/Berlin"
PEOPLE = ("ann@shop.example", "bob@shop.example", "carl@shop.example")


class OffsetClock(SystemClock):
    """The machine's clock plus an offset in seconds."""

    def __init__(self, offset: float) -> None:
        self._offset = offset

    def now(self) -> float:
        return super().now() + self._offset


def settings(port: int) -> EmailSettings:
    """Three recipients on a server of this machine."""
    return EmailSettings.model_validate(
        {
            "host": "127.0.0.1",
            "port": port,
            "security": "none",
            "from": "monitor@shop.example",
            "to": PEOPLE,
            "schedule": SCHEDULE,
            "timezone": ZONE,
        }
    )


def main(url: str, port: int, offset: float) -> None:
    """Run until the process is killed."""
    clock = OffsetClock(offset)
    store = open_store(url, retention=30 * 86_400.0, fingerprint_window=0)
    store.start()
    email = settings(port)
    report = DayReport(store.reader, "shop", ZoneInfo(ZONE), paging=False)
    notifier = Notifier(store.outbox, EmailSender(email, report.summary, note=store.outbox.note), clock)
    schedule = ReportSchedule(store.outbox, store.reader, "email", email.schedule, ZoneInfo(ZONE))
    sys.stdout.write("running\n")
    sys.stdout.flush()
    stop = threading.Event()
    while not stop.wait(0.01):
        schedule.run_once(clock.now())
        notifier.run_once()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
