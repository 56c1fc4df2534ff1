"""Payments."""

from celery import shared_task

from . import gateway, mail
from .pace import pace


@shared_task
def charge(order: int) -> str:
    """Charge the card for an order, and send a confirmation."""
    receipt = gateway.submit(order, cents=1_900 + order % 7 * 250)
    mail.confirmation.delay(order)
    return receipt


@shared_task
def refund(order: int) -> None:
    """Refund a returned order."""
    pace.work(0.15 + order % 4 * 0.05)
