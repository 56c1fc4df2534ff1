"""Figures for the people who run the shop."""

from celery import shared_task

from .pace import pace

_EMPTY_HOUR = 14
"""Each so-manieth hour has no visitors."""


@shared_task
def nightly(day: int) -> None:
    """The figures of a day; runs by a schedule at 02:30."""
    pace.work(1.0 + day % 3)


@shared_task
def export(month: int) -> None:
    """All orders of a month as a file: takes long."""
    pace.work(40.0 + month % 5 * 5)


@shared_task
def conversion(hour: int) -> float:
    """How many of an hour's visitors have bought something."""
    pace.work(0.02)
    return _share(orders=100, visitors=hour % _EMPTY_HOUR)


def _share(orders: int, visitors: int) -> float:
    return orders / visitors
