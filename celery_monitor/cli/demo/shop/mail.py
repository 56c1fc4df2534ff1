"""Mails to customers."""

from celery import shared_task

from .pace import pace

_UNREACHABLE = 60
"""One in this many recipients has a server that never answers."""
_SLOW_AT_FIRST = 9
"""One in this many servers does not answer the first attempt."""


@shared_task(bind=True, autoretry_for=(TimeoutError,), retry_backoff=False, default_retry_delay=2, max_retries=2)
def confirmation(self, order: int) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - Celery has no types
    """Confirm to a customer that an order was paid; up to three attempts."""
    _send(f"customer-{order}@example.com", order, attempt=self.request.retries)


def _send(to: str, order: int, attempt: int) -> None:
    pace.work(0.04)
    if order % _UNREACHABLE == 0 or (order % _SLOW_AT_FIRST == 0 and attempt == 0):
        raise TimeoutError(f"smtp.example.com did not accept the mail to {to} in 30 s")
