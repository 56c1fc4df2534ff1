"""The stock in the warehouse."""

from celery import shared_task

from .pace import WAREHOUSE, pace


class WarehouseError(Exception):
    """The stock is unknown."""


@shared_task
def reserve(order: int) -> None:
    """Reserve the goods of an order."""
    pace.work(0.02 + order % 3 * 0.01)


@shared_task
def sync(shelf: int) -> None:
    """Read the stock of a shelf."""
    pace.work(0.02 + shelf % 4 * 0.01)
    try:
        _connect("warehouse.example.com", 5432)
    except ConnectionRefusedError as exc:
        raise WarehouseError(f"shelf {shelf} was not counted") from exc


@shared_task
def count(run: int) -> None:
    """Compare stock and orders; scheduled at a short interval."""
    pace.work(0.2 + run % 3 * 0.1)


def _connect(host: str, port: int) -> None:
    if WAREHOUSE in pace.broken():
        raise ConnectionRefusedError(111, f"{host}:{port} refused the connection")
