"""The pages before the sign-in: they look like the others but reveal nothing about the fleet."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from celery_monitor.adapters.web.destination import SIGN_IN
from celery_monitor.adapters.web.refused import Refused
from celery_monitor.adapters.web.render import bare

_TITLES: Final = {
    400: "Sign-in failed",
    401: "Sign in",
    403: "Not allowed",
    429: "Too many failed sign-ins",
    503: "Sign-in is unavailable",
}


def refusal(request: Request, denied: Refused, *, back: str = "/") -> Response:
    """The page for a refused request. ``back``: the address to return to after a sign-in."""
    title = _TITLES.get(denied.status, "Not allowed")
    response = page(request, title, denied.message, status=denied.status, back=back if denied.retry else None)
    response.headers.update(denied.headers)
    return response


def page(request: Request, title: str, message: str, *, status: int = 200, back: str | None = "/") -> Response:
    """A page with a message, and a sign-in link unless ``back`` is None."""
    sign_in = None if back is None else f"{SIGN_IN[1:]}?next={back}"
    return bare(request, "door.html", status, title=title, message=message, sign_in=sign_in)
