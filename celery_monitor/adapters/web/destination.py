"""Redirects to the sign-in and back, never to another site."""

from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from celery_monitor.adapters.web.render import root

SIGN_IN: Final = "/sign-in"
SIGN_OUT: Final = "/sign-out"
MAX_NEXT: Final = 512
_NEVER: Final = frozenset(' "<>\\')


def following(request: Request) -> str:
    """The path to go to after the sign-in: ``next``, if it is a path of this site."""
    path = request.query_params.get("next", "/")
    plain = path.isascii() and path.isprintable() and _NEVER.isdisjoint(path)
    ours = path.startswith("/") and not path.startswith(("//", SIGN_IN, SIGN_OUT))
    return path if plain and ours and len(path) <= MAX_NEXT else "/"


def here(scope: Scope) -> str:
    """The address of a request as ``next`` for the sign-in; for a form, which cannot be repeated, the overview."""
    if scope["method"] not in {"GET", "HEAD"}:
        return "/"
    query = scope["query_string"].decode("ascii", "replace")
    path = scope["raw_path"].decode("ascii", "replace") + (f"?{query}" if query else "")
    return quote(path, safe="/") if len(path) <= MAX_NEXT else "/"


def redirects(request: Request) -> bool:
    """Whether a browser requests a complete page, so that it can be redirected to the sign-in."""
    return request.method == "GET" and request.headers.get("sec-fetch-mode", "navigate") == "navigate"


def to_sign_in(request: Request) -> Response:
    """Redirect to the sign-in, which returns here."""
    return RedirectResponse(f"{root(request)}{SIGN_IN[1:]}?next={here(request.scope)}", 303)
