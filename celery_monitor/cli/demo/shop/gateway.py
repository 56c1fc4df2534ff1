"""The client of the payment provider."""

from .pace import GATEWAY, pace

_DECLINED = 12
"""One in this many cards is declined."""


class ProviderError(Exception):
    """The provider returned an error."""


class CardDeclinedError(Exception):
    """The bank declined the card."""


class GatewayTimeoutError(Exception):
    """The provider did not report the result of the payment."""


def submit(order: int, cents: int) -> str:
    """Charge a card. Returns the provider's receipt. Raises CardDeclinedError and GatewayTimeoutError."""
    try:
        return _post("/v1/charges", {"order": order, "amount": cents, "currency": "eur"})
    except ProviderError as exc:
        raise CardDeclinedError(f"card of order {order} was declined: insufficient funds") from exc
    except TimeoutError as exc:
        raise GatewayTimeoutError(f"no answer for order {order} in 10 s; nothing was charged twice") from exc


def _post(path: str, payload: dict[str, object]) -> str:
    order = payload["order"]
    assert isinstance(order, int)  # noqa: S101 - what the caller passes
    pace.work(0.03 + order % 8 * 0.02)
    if GATEWAY in pace.broken():
        raise TimeoutError(f"POST https://pay.example.com{path}: read timed out after 10 s")
    if order % _DECLINED == 0:
        raise ProviderError(f"POST https://pay.example.com{path}: 402 Payment Required (insufficient_funds)")
    return f"ch_{order:08d}"
