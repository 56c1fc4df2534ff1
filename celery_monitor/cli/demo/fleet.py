"""A small Celery fleet in this process: real workers on kombu's in-memory broker, and a source of tasks.

A worker is a thread with a thread pool, because that broker works only within a process. Each worker has its own Celery
application, as if it were a separate process. State that Celery keeps per process is corrected below: the application
of a pool's threads, and the counts in heartbeats.
"""

import heapq
import itertools
import random
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from celery import Celery, signals
from celery.concurrency.thread import TaskPool
from celery.events.dispatcher import EventDispatcher
from celery.worker import WorkController

from celery_monitor.cli.demo.application import COUNT, DEFAULT, IMAGES, MAIL, PAYMENTS, Shop
from celery_monitor.cli.demo.shop.pace import WAREHOUSE

WORKERS: Final = {
    "celery@payments-1": (PAYMENTS, 8),
    "celery@default-1": (DEFAULT, 8),
    "celery@mail-1": (MAIL, 4),
    "celery@images-1": (IMAGES, 2),
}
"""hostname → (queue, concurrency)."""
RATES: Final = {
    "shop.orders.place": 0.45,
    "shop.catalog.index": 0.2,
    "shop.stock.sync": 0.14,
    "shop.catalog.expire_cart": 0.07,
    "shop.reports.conversion": 0.06,
    "shop.images.resize": 0.04,
    "shop.payments.refund": 0.03,
    "shop.legacy.export": 0.01,
}
"""Relative frequencies of tasks; a placed order sends three more tasks. The last task is not registered in any worker:
its sender was forgotten when the code was removed."""
EVERY: Final = 20.0
"""Seconds between two stock counts, which are scheduled."""
_OUTAGE: Final = (20.0, 50.0)
"""Seconds after the start at which the warehouse becomes unreachable and reachable again."""
_CATALOGUE: Final = (12.0, 90.0, 60)
"""A supplier's catalogue: seconds until the first one, seconds between two, and pictures in each."""
_EXPORT: Final = (3.0, 65.0)
"""An export: seconds until the first one, and seconds between two."""
_HEARTBEAT: Final = 1.0
"""Seconds; half of Celery's default, because a worker stops at its next heartbeat."""
_READY_WITHIN: Final = 15.0
_ENDS: Final = frozenset({"task-succeeded", "task-failed", "task-retried", "task-rejected", "task-revoked"})
_MAX_WAIT: Final = 0.25
_COUNTDOWNS: Final = {"shop.catalog.expire_cart": 3}


class _Dispatcher(EventDispatcher):  # type: ignore[misc]  # Celery has no types
    """Puts the worker's own counts into its heartbeats: Celery counts all workers of the process together."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # Celery's signature
        self._started = 0
        self._running: set[str] = set()
        self._counting = threading.Lock()
        super().__init__(*args, **kwargs)

    def send(self, kind: str, **fields: Any) -> Any:  # noqa: ANN401  # as above
        """Like Celery's."""
        if kind == "task-started":
            with self._counting:
                self._started += 1
                self._running.add(fields["uuid"])
        elif kind in _ENDS:
            self._running.discard(fields["uuid"])
        elif "processed" in fields:
            fields |= {"processed": self._started, "active": len(self._running)}
        return super().send(kind, **fields)


class _Pool(TaskPool):  # type: ignore[misc]  # as above
    """Sets the current application in its threads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # as above
        super().__init__(*args, **kwargs)
        self.executor = ThreadPoolExecutor(self.limit, initializer=self.app.set_current)


# Workers report the module of their pool.
_Pool.__module__ = TaskPool.__module__


class Fleet:
    """The workers and the traffic. ``rate``: tasks per second."""

    def __init__(self, shop: Shop, rate: float) -> None:
        self._counting = threading.Lock()
        self.sent = 0
        """Tasks that the shop and its workers have sent, without retries."""
        self._rate = rate
        self._stop = threading.Event()
        self._shop = shop
        self._app = shop.app()
        self._workers: list[threading.Thread] = []
        self._traffic = threading.Thread(target=self._send, name="demo-traffic", daemon=True)

    def start(self) -> None:
        """Start the workers, wait until they consume, and start the traffic. Raises TimeoutError."""
        signals.after_task_publish.connect(self._note_sent)
        ready = {hostname: threading.Event() for hostname in WORKERS}
        for hostname, (queue, concurrency) in WORKERS.items():
            app = self._shop.app()
            app.events.dispatcher_cls = _Dispatcher
            worker = _worker(app, hostname, queue, concurrency, ready[hostname])
            thread = threading.Thread(target=worker.start, name=f"demo-{hostname}", daemon=True)
            thread.start()
            self._workers.append(thread)
        for hostname, consumes in ready.items():
            if not consumes.wait(_READY_WITHIN):
                raise TimeoutError(f"the worker {hostname} did not start within {_READY_WITHIN:g} s")
        started_at = time.monotonic()
        self._shop.break_when(lambda: (WAREHOUSE,) if _OUTAGE[0] <= time.monotonic() - started_at < _OUTAGE[1] else ())
        self._traffic.start()

    def stop(self, timeout: float) -> None:
        """Stop the traffic, then the workers after they have finished their tasks, in at most ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        self._stop.set()
        self._shop.end()
        if self._traffic.is_alive():
            self._traffic.join(timeout)
        self._app.control.shutdown()
        for thread in self._workers:
            thread.join(max(0.0, deadline - time.monotonic()))
        signals.after_task_publish.disconnect(self._note_sent)

    def _note_sent(self, headers: Mapping[str, Any], **_: object) -> None:
        if not headers.get("retries"):
            with self._counting:
                self.sent += 1

    def _send(self) -> None:
        """Send random and scheduled tasks, each at its time."""
        started_at = time.monotonic()
        for due, name, serial in heapq.merge(*_traffic(self._rate)):
            while not self._stop.wait(min(_MAX_WAIT, max(0.0, started_at + due - time.monotonic()))):
                if time.monotonic() >= started_at + due:
                    break
            if self._stop.is_set():
                return
            self._app.send_task(name, [serial], countdown=_COUNTDOWNS.get(name))


def _traffic(rate: float) -> Iterator[Iterator[tuple[float, str, int]]]:
    """Endless sources of (seconds after the start, task, serial number), each in order."""
    yield _by_chance(rate)
    yield ((EVERY * run, COUNT, run) for run in itertools.count(1))
    first, step = _EXPORT
    yield ((first + step * month, "shop.reports.export", month) for month in itertools.count())
    first, step, pictures = _CATALOGUE
    yield (
        (first + step * number, "shop.images.resize", number * pictures + picture)
        for number in itertools.count()
        for picture in range(pictures)
    )


def _by_chance(rate: float) -> Iterator[tuple[float, str, int]]:
    chance = random.Random(0)  # noqa: S311  # no secret
    serials = {name: itertools.count(1) for name in RATES}
    names, shares = list(RATES), list(RATES.values())
    due = 0.0
    while True:
        due += chance.expovariate(rate)
        name = chance.choices(names, shares)[0]
        yield due, name, next(serials[name])


def _worker(app: Celery, hostname: str, queue: str, concurrency: int, ready: threading.Event) -> WorkController:
    return WorkController(
        app=app,
        hostname=hostname,
        queues=[queue],
        pool=_Pool,
        heartbeat_interval=_HEARTBEAT,
        concurrency=concurrency,
        task_events=True,
        without_gossip=True,
        without_mingle=True,
        ready_callback=lambda _: ready.set(),
    )
