"""A small Celery fleet inside of this process: real workers on kombu's in-memory broker, and who gives them work.

A worker is a thread with a pool of threads, because that broker reaches no further than its process.
Each worker has a Celery application of its own, as in processes of their own. What Celery keeps for a whole process
all the same is corrected below: the application of a pool's threads, and the figures of the heartbeats.
"""

import itertools
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from celery import Celery
from celery.concurrency.thread import TaskPool
from celery.events.dispatcher import EventDispatcher
from celery.worker import WorkController

from celery_monitor.cli.demo.tasks import DEFAULT, OUTAGE, PAYMENTS, RATES, shop

WORKERS: Final = {"celery@payments-1": PAYMENTS, "celery@default-1": DEFAULT}
"""hostname → the queue that it consumes."""
_CONCURRENCY: Final = 8
_HEARTBEAT: Final = 1.0
"""Seconds; half of Celery's, because a worker ends with its next heartbeat."""
_READY_WITHIN: Final = 15.0
_ENDS: Final = frozenset({"task-succeeded", "task-failed", "task-retried", "task-rejected", "task-revoked"})
_MAX_WAIT: Final = 0.25


class _Dispatcher(EventDispatcher):  # type: ignore[misc]  # Celery has no types
    """Puts the worker's own figures into its heartbeats: Celery's are those of all workers of the process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # Celery's signature
        self._started = 0
        self._under_way: set[str] = set()
        self._counting = threading.Lock()
        super().__init__(*args, **kwargs)

    def send(self, kind: str, **fields: Any) -> Any:  # noqa: ANN401  # as above
        """As Celery's."""
        if kind == "task-started":
            with self._counting:
                self._started += 1
                self._under_way.add(fields["uuid"])
        elif kind in _ENDS:
            self._under_way.discard(fields["uuid"])
        elif "processed" in fields:
            fields |= {"processed": self._started, "active": len(self._under_way)}
        return super().send(kind, **fields)


class _Pool(TaskPool):  # type: ignore[misc]  # as above
    """Tells its threads which application's tasks they run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # as above
        super().__init__(*args, **kwargs)
        self.executor = ThreadPoolExecutor(self.limit, initializer=self.app.set_current)


class Fleet:
    """The workers and the traffic. ``rate`` is in tasks a second."""

    def __init__(self, rate: float) -> None:
        self.sent = 0
        """Tasks that the shop has sent. Retries, which workers send, are not among them."""
        self._rate = rate
        self._began = 0.0
        self._stop = threading.Event()
        self._shop = shop(self.down)
        self._workers: list[threading.Thread] = []
        self._traffic = threading.Thread(target=self._send, name="demo-traffic", daemon=True)

    def start(self) -> None:
        """Start the workers, wait until they consume, then the traffic. Raises TimeoutError."""
        self._began = time.monotonic()
        for hostname, queue in WORKERS.items():
            app = shop(self.down)
            app.events.dispatcher_cls = _Dispatcher
            ready = threading.Event()
            worker = _worker(app, hostname, queue, ready)
            thread = threading.Thread(target=worker.start, name=f"demo-{hostname}", daemon=True)
            thread.start()
            self._workers.append(thread)
            if not ready.wait(_READY_WITHIN):
                raise TimeoutError(f"the worker {hostname} did not start within {_READY_WITHIN:g} s")
        self._began = time.monotonic()
        self._traffic.start()

    def stop(self, timeout: float) -> None:
        """End the traffic, then the workers, when they have done what they hold; at most ``timeout`` seconds."""
        until = time.monotonic() + timeout
        self._stop.set()
        if self._traffic.is_alive():
            self._traffic.join(timeout)
        self._shop.control.shutdown()
        for thread in self._workers:
            thread.join(max(0.0, until - time.monotonic()))

    def down(self) -> bool:
        """Whether the warehouse is out of reach."""
        return OUTAGE[0] <= time.monotonic() - self._began < OUTAGE[1]

    def _send(self) -> None:
        chance = random.Random(0)  # noqa: S311  # traffic is no secret
        serials = {name: itertools.count(1) for name in RATES}
        names, shares = list(RATES), list(RATES.values())
        due = time.monotonic()
        while not self._stop.wait(min(_MAX_WAIT, max(0.0, due - time.monotonic()))):
            if time.monotonic() < due:
                continue
            due += chance.expovariate(self._rate)
            name = chance.choices(names, shares)[0]
            countdown = 3 if name == "shop.cart.expire" else None
            self._shop.send_task(name, [next(serials[name])], countdown=countdown)
            self.sent += 1


def _worker(app: Celery, hostname: str, queue: str, ready: threading.Event) -> WorkController:
    return WorkController(
        app=app,
        hostname=hostname,
        queues=[queue],
        pool=_Pool,
        heartbeat_interval=_HEARTBEAT,
        concurrency=_CONCURRENCY,
        task_events=True,
        without_gossip=True,
        without_mingle=True,
        ready_callback=lambda _: ready.set(),
    )
