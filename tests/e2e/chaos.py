"""A fleet that records its tasks, a daemon that monitors it, a harmful process on the same broker, and the checks."""

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from celery import Celery

from tests.e2e.daemon import Daemon
from tests.e2e.paging import pager
from tests.fleet.ledger import FAILING, QUEUE, Books, read
from tests.servers.celery_worker import CeleryWorker
from tests.servers.pagerduty import PagerDutyServer
from tests.servers.process import ServerProcess
from tests.servers.waiting import Stopwatch, wait_until

WORK_INTERVAL: Final = 0.2
SCRAPE_INTERVAL: Final = 0.5
SHORT_FAILING: Final = 12
MIB: Final = 1 << 20
RULES: Final = [{"name": "ledger", "match": ["ledger.*"], "severity": "critical"}]
"""The fleet's own failures are more severe than the noise."""


class Harm(ServerProcess):
    """The harmful process (``tests/e2e/harm.py``)."""

    stop_timeout = 30.0

    def __init__(self, directory: Path, url: str, seconds: float, seed: int) -> None:
        super().__init__("harm", directory)
        self._arguments = [url, str(seconds), str(seed)]

    def command(self) -> Sequence[str]:
        return [sys.executable, "-m", "tests.e2e.harm", *self._arguments]

    def environment(self) -> Mapping[str, str]:
        return {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}

    def ready(self) -> bool:
        return True


@dataclass
class Arena:
    """One broker with everything that uses it."""

    name: str
    url: str
    daemon: Daemon
    worker: CeleryWorker
    harm: Harm
    server: PagerDutyServer
    books: Path
    sent: Counter[str] = field(default_factory=Counter)
    """Task → how often the fleet's client has sent it."""
    scrapes: list[float] = field(default_factory=list)
    """Seconds that each scrape took."""
    trouble: list[str] = field(default_factory=list)
    """What went wrong meanwhile."""


def arena(
    name: str, url: str, directory: Path, *, disk: Path, server: PagerDutyServer, seconds: float, seed: int
) -> Arena:
    """Everything for one broker, not started."""
    settings: dict[str, dict[str, Any]] = {
        "metrics": {"poll_interval": "1s"},
        "pagerduty": {"update_interval": "1m"},
        "alerts": {"rules": RULES},
        "store": {"retention": "30d"},
    }
    daemon = pager(directory / f"{name}-daemon", url, server, settings)
    daemon.store = disk / "monitor.db"
    daemon.settings["store"]["url"] = f"sqlite:///{daemon.store}"
    books = directory / f"{name}.books"
    worker = CeleryWorker(
        directory / f"{name}-worker",
        url,
        hostname="ledger",
        app="tests.fleet.ledger",
        concurrency=1,
        settings={"LEDGER": str(books)},
    )
    return Arena(name, url, daemon, worker, Harm(directory / f"{name}-harm", url, seconds, seed), server, books)


def drive(one: Arena, seconds: float) -> None:
    """Send the fleet's tasks: work all the time, and the failing tasks one after the other."""
    app = Celery("client", broker=one.url, set_as_current=False)
    app.conf.update(task_default_queue=QUEUE, task_send_sent_event=True, task_ignore_result=True)
    began = time.monotonic()
    # Fewer in five minutes than make a storm.
    number_failing = min(FAILING, max(SHORT_FAILING, int(seconds / 20)))
    failing = iter(range(number_failing))
    apart = seconds / number_failing
    fail_at = began + apart / 2
    while (now := time.monotonic()) < began + seconds:
        names = ["ledger.work"]
        if now >= fail_at:
            fail_at += apart
            names += [f"ledger.fail_{number}" for number in [next(failing, None)] if number is not None]
        for name in names:
            app.send_task(name)
            one.sent[name] += 1
        time.sleep(WORK_INTERVAL)
    app.close()


def scrape(one: Arena, over: threading.Event) -> None:
    """Request the metrics and the probe repeatedly, like Prometheus."""
    while not over.wait(SCRAPE_INTERVAL):
        for path in ("/metrics", "/livez"):
            try:
                with Stopwatch() as took:
                    status, body = one.daemon.get(path, timeout=30)
            except OSError as exc:
                one.trouble.append(f"{path}: {exc!r}")
                return
            one.scrapes.append(took.seconds)
            if status != 200:
                one.trouble.append(f"{path}: {status} {body[:300]}")


@contextmanager
def beside(one: Arena, seconds: float) -> Iterator[None]:
    """Run the fleet's client and the scraper in threads during the block."""
    over = threading.Event()
    threads = [
        threading.Thread(target=drive, args=(one, seconds), name=f"client-{one.name}"),
        threading.Thread(target=scrape, args=(one, over), name=f"scraper-{one.name}"),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        threads[0].join(seconds + 60)
        over.set()
        threads[1].join(60)


def settled(one: Arena) -> Books:
    """The fleet's records when all sent tasks are done."""

    def done() -> Books | None:
        assert one.worker.running, f"the worker on {one.name} has ended"
        books = read(one.books)
        ended = {task: counts["succeeded"] + counts["failed"] for task, counts in books.counts.items()}
        return books if ended == one.sent else None

    books = wait_until(done, 120, every=0.1, what=f"the end of all tasks on {one.name}")
    assert books is not None
    return books


def expected(one: Arena, books: Books) -> dict[str, dict[str, int]]:
    """Task → event → number, according to the fleet's records."""
    return {
        task: {"sent": one.sent[task], "received": one.sent[task]} | dict(counts)
        for task, counts in books.counts.items()
    }


def counted(one: Arena, tasks: Sequence[str]) -> dict[str, dict[str, int]]:
    """The same according to the daemon."""
    found = {}
    for task in tasks:
        status, body = one.daemon.get(f"/api/v1/tasks/{quote(task)}")
        if status == 200:
            found[task] = {kind: number for kind, number in json.loads(body)["counts"].items() if number}
    return found


def until_counted(one: Arena, books: Books, timeout: float = 120.0) -> None:
    """Wait until the daemon's counts equal the records. Raises AssertionError with both."""
    wanted = expected(one, books)
    found: dict[str, dict[str, int]] = {}

    def same() -> bool:
        assert one.daemon.running, f"the daemon on {one.name} has ended"
        nonlocal found
        found = counted(one, list(wanted))
        return found == wanted

    try:
        wait_until(same, timeout, every=0.2)
    except TimeoutError:
        wrong = {task: (found.get(task), counts) for task, counts in wanted.items() if found.get(task) != counts}
        raise AssertionError(f"{one.name}: (counted, true): {wrong}") from None


def delays(one: Arena, books: Books, timeout: float = 120.0) -> dict[str, float]:
    """Task → seconds from its first failure to its page. Waits for all of them."""
    keys = {f"{task}/{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%HZ}": task for task, at in books.failed_at.items()}

    def paged() -> dict[str, float] | None:
        found: dict[str, float] = {}
        for seen in one.server.taken():
            task = keys.get(seen.key)
            if task is not None and seen.action == "trigger":
                found.setdefault(task, seen.wall - books.failed_at[task])
        return found if found.keys() == books.failed_at.keys() else None

    try:
        return wait_until(paged, timeout, every=0.1) or {}
    except TimeoutError:
        seen = {key for received in one.server.taken() for key in [received.key]}
        missing = sorted(task for key, task in keys.items() if key not in seen)
        raise AssertionError(f"{one.name}: no page for {missing}; {one.server.throttled} throttled") from None


def peak_bytes(daemon: Daemon) -> int:
    """The peak of its resident memory."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
