"""A fleet that keeps books: each task writes down what it does, apart from all events.

Environment: as ``tests.fleet.app``, and ``LEDGER``: the file that tells each start, success and failure.
"""

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from celery import Celery

QUEUE: Final = "ledger"
FAILING: Final = 30
"""Tasks that fail: ``ledger.fail_0`` and so on. Each is an incident of its own."""

app = Celery("ledger", broker=os.environ.get("FLEET_BROKER_URL", "memory://"), set_as_current=False)
app.conf.update(
    task_default_queue=QUEUE,
    task_send_sent_event=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=4,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    worker_hijack_root_logger=False,
)


class LedgerError(Exception):
    """The exception of a failing task."""


@dataclass
class Books:
    """The records of the tasks."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    """Task → started, succeeded, failed."""
    failed_at: dict[str, float] = field(default_factory=dict)
    """Task → when it failed first, in unix time."""


def read(path: Path) -> Books:
    """The current records. The last line may be incomplete."""
    books = Books()
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    for line in whole.splitlines():
        at, task, what = line.split()
        books.counts.setdefault(task, Counter())[what] += 1
        if what == "failed":
            books.failed_at.setdefault(task, float(at))
    return books


def _note(task: str, what: str) -> None:
    # One write of a short line to a file that is open for appending: it stays whole beside those of other processes.
    with Path(os.environ["LEDGER"]).open("ab", buffering=0) as file:
        file.write(f"{time.time():.6f} {task} {what}\n".encode())


@app.task(name="ledger.work")
def work() -> None:
    """Succeed."""
    _note("ledger.work", "started")
    _note("ledger.work", "succeeded")


def _failing(name: str) -> None:
    @app.task(name=name)
    def fail() -> None:
        _note(name, "started")
        _note(name, "failed")
        raise LedgerError(name)


for _number in range(FAILING):
    _failing(f"ledger.fail_{_number}")
