"""The pages in front of the sign-in: they look like the others, and tell nothing of the fleet."""

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
    """The answer to somebody who may not go on. ``back``: where a sign-in leads to."""
    title = _TITLES.get(denied.status, "Not allowed")
    response = page(request, title, denied.message, status=denied.status, back=back if denied.retry else None)
    response.headers.update(denied.headers)
    return response


def page(request: Request, title: str, message: str, *, status: int = 200, back: str | None = "/") -> Response:
    """One sentence, and a way to sign in unless ``back`` is None."""
    sign_in = None if back is None else f"{SIGN_IN[1:]}?next={back}"
    return bare(request, "door.html", status, title=title, message=message, sign_in=sign_in)
