"""HTTP to the provider: no redirects, little time, small answers, no password out of ``.netrc``.

Proxies (``HTTPS_PROXY``, ``NO_PROXY``) and CA certificates (``REQUESTS_CA_BUNDLE``) are taken from the environment, as
requests does.
"""

import io
import time
from typing import Any, Final

from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter

from celery_monitor.errors import ProviderUnavailableError

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 5.0
"""For the next part of an answer."""
ANSWER_SECONDS: Final = 10.0
"""For all of it."""
MAX_ANSWER: Final = 512 << 10
"""Bytes. The keys of large providers are some 10 kB."""
_PART: Final = 16 << 10


def prepare(session: Session) -> None:
    """Bound what a session does."""
    session.auth = _unchanged  # else requests looks into .netrc
    for prefix in ("https://", "http://"):
        session.mount(prefix, _Bounded())


def _unchanged(request: PreparedRequest) -> PreparedRequest:
    return request


class _Bounded(HTTPAdapter):
    """Reads the whole answer within its bounds, and hands it on as if it had just come."""

    def __init__(self) -> None:
        super().__init__(max_retries=0)

    def send(self, request: PreparedRequest, **options: Any) -> Response:  # type: ignore[override]  # noqa: ANN401
        """See HTTPAdapter. Raises ProviderUnavailableError for an answer that is too long, too slow, or leads away."""
        options |= {"stream": True, "timeout": (CONNECT_SECONDS, READ_SECONDS)}
        response = super().send(request, **options)
        try:
            if response.is_redirect:
                raise ProviderUnavailableError(f"it answers with a redirect (HTTP {response.status_code})")
            body = _read(response)
        finally:
            response.close()
        response.raw = io.BytesIO(body)
        return response


def _read(response: Response) -> bytes:
    deadline = time.monotonic() + ANSWER_SECONDS
    parts, size = [], 0
    while part := response.raw.read1(_PART, decode_content=True):
        size += len(part)
        if size > MAX_ANSWER:
            raise ProviderUnavailableError(f"its answer is longer than {MAX_ANSWER >> 10} KiB")
        if time.monotonic() > deadline:
            raise ProviderUnavailableError(f"its answer took longer than {ANSWER_SECONDS:.0f} s")
        parts.append(part)
    return b"".join(parts)
