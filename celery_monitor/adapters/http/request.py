"""Requests with a plain session of requests."""

from collections.abc import Callable, Container, Mapping
from functools import partial
from typing import Final

from requests import Session

from celery_monitor.adapters.http.exchange import BODY_LIMIT, CONNECT_TIMEOUT, Answer, Exchange, prepare
from celery_monitor.adapters.http.faults import NoAnswerError, origin, server
from celery_monitor.core.headline import line
from celery_monitor.errors import RetryableError

TAKEN: Final = range(200, 300)
REPAIRED_BY_A_PERSON: Final = frozenset({*range(300, 400), 401, 403, 404, 405})
"""Status codes that repeat until somebody changes the URL, the secret or the server. Redirects are not followed."""
_AGENT: Final = {"user-agent": "celery-monitor"}

Request = Callable[[Session, tuple[float, float]], object]
"""Sends one request with a session, with timeouts in seconds for the connection and for each read."""


def ask(
    exchange: Exchange,
    request: Request,
    *,
    url: str,
    timeout: float,
    channel: str,
    silent: Container[int] = TAKEN,
    limit: int = BODY_LIMIT,
) -> Answer:
    """Send one request to ``url``, which comes from a channel's settings. Raises NoAnswerError.

    ``silent``: statuses whose bodies are not read; ``limit``: maximum bytes read of others.
    """

    def send() -> None:
        with Session() as session:
            prepare(session, exchange, silent, limit)
            request(session, (min(CONNECT_TIMEOUT, timeout), timeout))

    return exchange.run(send, url, timeout, server(f"the url of channel {channel}"))


def post(url: str, body: bytes, headers: Mapping[str, str]) -> Request:
    """A POST with a JSON body."""
    return partial(_post, url=url, body=body, headers={"content-type": "application/json", **headers, **_AGENT})


def reach(url: str, timeout: float, channel: str) -> int:
    """Check with HEAD that a server answers. Returns the status code. Raises RetryableError."""
    try:
        return ask(Exchange(), partial(_head, url=url), url=url, timeout=timeout, channel=channel).status
    except NoAnswerError as exc:
        # Without the cause, which may contain the URL.
        raise RetryableError(f"{origin(url)}: {line(str(exc), 200)}", remedy=exc.remedy) from None


def _post(session: Session, timeout: tuple[float, float], *, url: str, body: bytes, headers: Mapping[str, str]) -> None:
    session.post(url, data=body, headers=headers, timeout=timeout, allow_redirects=False, stream=True)


def _head(session: Session, timeout: tuple[float, float], *, url: str) -> None:
    session.head(url, headers=_AGENT, timeout=timeout, allow_redirects=False, stream=True)
