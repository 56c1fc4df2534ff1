"""Checks that the API can be reached as for events, with the proxies and certificates of the environment."""

from http import HTTPStatus
from typing import Final

import requests

from celery_monitor.adapters.channels.pagerduty.exchange import SERVER
from celery_monitor.adapters.http.exchange import CONNECT_TIMEOUT
from celery_monitor.adapters.http.faults import FOREIGN, NoAnswerError, no_answer, origin, refused_by_proxy
from celery_monitor.core.headline import line
from celery_monitor.errors import RetryableError
from celery_monitor.network import Fault, remedy

_PATH: Final = "/v2/enqueue"
_AWAY: Final = frozenset({502, 503, 504})
"""Status codes of a gateway that cannot reach the server behind it."""


def check_reachable(url: str, timeout: float) -> int:
    """Send a request without an event and return the status code. Takes about ``timeout`` seconds at most.

    Raises RetryableError.
    """
    try:
        with requests.Session() as session:
            session.auth = lambda request: request  # otherwise requests reads .netrc
            with session.get(
                f"{url}{_PATH}", timeout=(min(CONNECT_TIMEOUT, timeout), timeout), allow_redirects=False, stream=True
            ) as response:
                status = response.status_code
    except FOREIGN as exc:
        # Without the cause, which may quote the password of a proxy.
        raise _unreachable(url, no_answer(exc, url, SERVER)) from None
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        raise _unreachable(url, refused_by_proxy("", url))
    if status in _AWAY:
        gateway = remedy(Fault.UNREACHABLE, SERVER)
        raise RetryableError(f"PagerDuty ({origin(url)}) responded with status {status}", remedy=gateway)
    return status


def _unreachable(url: str, problem: NoAnswerError) -> RetryableError:
    return RetryableError(f"PagerDuty ({origin(url)}): {line(str(problem), 200)}", remedy=problem.remedy)
