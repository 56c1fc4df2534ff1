"""Checks that a request comes from a page of this site: browsers send credentials for other sites' requests too."""

from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers

OTHER_SITE: Final = "the request comes from another site"
_PORTS: Final = {"http": 80, "https": 443}
_SAME: Final = frozenset({"same-origin", "none"})


def of_this_site(headers: Headers, external_url: str | None, *, form: bool) -> bool:
    """Whether the browser says that a page of this site made the request. Without that, a ``form`` is refused.

    Behind a proxy that changes ``Host``, the page's origin is that of ``external_url``. Without HTTPS only ``Origin``
    is available: browsers send ``Sec-Fetch-Site`` only to trustworthy origins.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site in _SAME
    if origin is None:
        return not form
    page = _origin(origin)
    host = origin.partition("://")[2] == headers.get("host")
    return page is not None and (host or (external_url is not None and page == _origin(external_url)))


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    """Scheme, host and port; None if the URL is invalid."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
