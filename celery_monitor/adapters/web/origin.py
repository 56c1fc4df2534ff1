"""Whether a request comes from a page of this site: a browser adds its credentials to those of other sites, too."""

from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers

OTHER_SITE: Final = "the request comes from another site"
_SAME: Final = frozenset({"same-origin", "none"})


def of_this_site(headers: Headers, *, form: bool) -> bool:
    """As far as the browser says. A ``form`` has to say it; a program's request may say nothing."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    same = site in _SAME if site is not None else origin is None or urlsplit(origin).netloc == headers.get("host")
    return same and not (form and site is None and origin is None)
