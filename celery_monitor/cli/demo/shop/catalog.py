"""What the shop's pages show."""

from celery import shared_task

from .pace import pace


@shared_task
def index(product: int) -> None:
    """Make a product findable."""
    pace.work(0.005 + product % 5 * 0.003)


@shared_task
def expire_cart(cart: int) -> None:
    """Give up a cart that nobody has come back to; sent with a countdown."""
    pace.work(0.005 + cart % 3 * 0.002)
