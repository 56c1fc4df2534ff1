"""Pictures of products: slow, and many at once when a supplier sends a new catalogue."""

from celery import shared_task

from .pace import pace


@shared_task
def resize(picture: int) -> None:
    """Create smaller versions of a picture."""
    pace.work(0.3 + picture % 7 * 0.08)
