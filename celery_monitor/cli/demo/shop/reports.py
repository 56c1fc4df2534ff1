"""Reports for the shop's managers."""

from celery import shared_task

from .pace import pace

_EMPTY_HOUR = 14
"""One in this many hours has no visitors."""


@shared_task
def nightly(day: int) -> None:
    """The report of a day; scheduled at 02:30."""
    pace.work(1.0 + day % 3)


@shared_task
def export(month: int) -> None:
    """Export all orders of a month, which takes a long time."""
    pace.work(40.0 + month % 5 * 5)


@shared_task
def conversion(hour: int) -> float:
    """The conversion rate of an hour's visitors."""
    pace.work(0.02)
    return _share(orders=100, visitors=hour % _EMPTY_HOUR)


def _share(orders: int, visitors: int) -> float:
    return orders / visitors
