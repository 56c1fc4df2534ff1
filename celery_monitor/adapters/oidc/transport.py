"""HTTP requests to the provider: no redirects, short timeouts, small answers, no password from ``.netrc``.

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
"""Timeout for the next part of an answer, in seconds."""
ANSWER_SECONDS: Final = 10.0
"""Timeout for the whole answer, in seconds."""
MAX_ANSWER: Final = 512 << 10
"""Maximum bytes of an answer. The keys of large providers are about 10 kB."""
_PART: Final = 16 << 10


def prepare(session: Session) -> None:
    """Limit the requests of a session."""
    session.auth = _unchanged  # otherwise requests reads .netrc
    for prefix in ("https://", "http://"):
        session.mount(prefix, _Bounded())


def _unchanged(request: PreparedRequest) -> PreparedRequest:
    return request


class _Bounded(HTTPAdapter):
    """Reads the whole answer within the limits, and passes it on as if it had just arrived."""

    def __init__(self) -> None:
        super().__init__(max_retries=0)

    def send(self, request: PreparedRequest, **options: Any) -> Response:  # type: ignore[override]  # noqa: ANN401
        """See HTTPAdapter. Raises ProviderUnavailableError for an answer that is too long, too slow, or a redirect."""
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
