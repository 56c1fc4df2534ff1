"""The shop's catalogue."""

from celery import shared_task

from .pace import pace


@shared_task
def index(product: int) -> None:
    """Index a product for the search."""
    pace.work(0.005 + product % 5 * 0.003)


@shared_task
def expire_cart(cart: int) -> None:
    """Delete an abandoned cart; sent with a countdown."""
    pace.work(0.005 + cart % 3 * 0.002)
