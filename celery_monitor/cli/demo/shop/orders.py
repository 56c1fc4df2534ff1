"""Orders, sent by the shop's web pages."""

from celery import shared_task

from . import payments, stock
from .pace import DEPLOY, pace

_WITHOUT_ADDRESS = 40
"""One in this many orders has no address."""
_AFFECTED = 3
"""The same during a faulty release."""


@shared_task
def place(order: int) -> None:
    """Check an order, then send tasks to charge it and to reserve its goods."""
    pace.work(0.01)
    _ship_to(_load(order))
    payments.charge.delay(order)
    stock.reserve.delay(order)


def _load(order: int) -> dict[str, str]:
    every = _AFFECTED if DEPLOY in pace.broken() else _WITHOUT_ADDRESS
    return {"number": str(order)} | ({"address": "1 Main Street"} if order % every else {})


def _ship_to(order: dict[str, str]) -> str:
    return order["address"].strip()
