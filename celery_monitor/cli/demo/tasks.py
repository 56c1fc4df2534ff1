"""The tasks of a small shop, and what goes wrong in it.

What fails is decided by a task's serial number, so that every run shows the same faults in the same proportion.
"""

import time
from collections.abc import Callable
from typing import Final

from celery import Celery, Task

BROKER: Final = "memory://localhost/"
PAYMENTS: Final = "payments"
DEFAULT: Final = "default"
OUTAGE: Final = (20.0, 50.0)
"""Seconds after the start between which the warehouse cannot be reached."""
RATES: Final = {
    "shop.billing.charge": 0.20,
    "shop.orders.confirm": 0.17,
    "shop.mail.remind": 0.12,
    "shop.stock.sync": 0.12,
    "shop.search.index": 0.20,
    "shop.images.resize": 0.08,
    "shop.cart.expire": 0.05,
    "shop.stats.rollup": 0.055,
    "shop.legacy.export": 0.005,
}
"""Shares of the traffic. No worker knows the last one: it was forgotten when the code was removed."""

_DECLINED: Final = 25
_WITHOUT_ADDRESS: Final = 30
_UNREACHABLE: Final = 12
_SLOW_AT_FIRST: Final = 5
_EMPTY_HOUR: Final = 20
"""Each so-manieth task fails."""
_RETRY_AFTER: Final = 1.0


def shop(down: Callable[[], bool]) -> Celery:
    """A Celery application of its own with all tasks. ``down`` says whether the warehouse is out of reach."""
    app = Celery("shop", broker=BROKER, set_as_current=False)
    app.conf.update(
        broker_transport_options={"polling_interval": 0.02},
        broker_connection_retry_on_startup=False,
        task_default_queue=DEFAULT,
        task_routes={"shop.billing.*": {"queue": PAYMENTS}},
        task_send_sent_event=True,
        task_ignore_result=True,
        worker_hijack_root_logger=False,
        worker_prefetch_multiplier=4,
    )
    _faultless(app)
    _faulty(app, down)
    return app


def _faultless(app: Celery) -> None:
    @app.task(name="shop.search.index", shared=False)
    def index(serial: int) -> None:
        time.sleep(0.005 + serial % 5 * 0.003)

    @app.task(name="shop.images.resize", shared=False)
    def resize(serial: int) -> None:
        time.sleep(0.2 + serial % 7 * 0.05)

    @app.task(name="shop.cart.expire", shared=False)
    def expire(serial: int) -> None:
        time.sleep(0.005 + serial % 3 * 0.002)


def _faulty(app: Celery, down: Callable[[], bool]) -> None:
    @app.task(name="shop.billing.charge", shared=False)
    def charge(serial: int) -> None:
        time.sleep(0.02 + serial % 8 * 0.01)
        if serial % _DECLINED == 0:
            raise ValueError(f"card of order {serial} was declined: insufficient funds")

    @app.task(name="shop.orders.confirm", shared=False)
    def confirm(serial: int) -> str:
        time.sleep(0.01)
        order = {"number": serial} | ({"address": "1 Main Street"} if serial % _WITHOUT_ADDRESS else {})
        return str(order["address"])

    @app.task(name="shop.mail.remind", shared=False, bind=True, max_retries=2)
    def remind(task: Task, serial: int) -> None:
        time.sleep(0.03)
        first = not task.request.retries
        if serial % _UNREACHABLE == 0 or (serial % _SLOW_AT_FIRST == 0 and first):
            raise task.retry(exc=TimeoutError("smtp.shop.example did not answer in 30 s"), countdown=_RETRY_AFTER)

    @app.task(name="shop.stock.sync", shared=False)
    def sync(serial: int) -> None:
        time.sleep(0.02 + serial % 4 * 0.01)
        if down():
            raise ConnectionRefusedError("warehouse.shop.example:5432 refused the connection")

    @app.task(name="shop.stats.rollup", shared=False)
    def rollup(serial: int) -> float:
        time.sleep(0.01)
        visits = serial % _EMPTY_HOUR
        return 100 / visits
