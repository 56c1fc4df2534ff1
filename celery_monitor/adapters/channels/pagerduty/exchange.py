"""Sends one event through pdpyras. No other file uses pdpyras.

pdpyras 5.4 is the last release; to replace it with its successor ``pagerduty``, change the import and the session
below, and run the tests of this package. The retries and the error handling of pdpyras are not used, because the outbox
handles both better and because pdpyras loses events: it retries and sleeps inside ``request``, forever on a 429, and
treats a 202 with an unreadable body as an error although the event was accepted. The response hook of ``adapters/http``
runs before all of this and raises the answer.
"""

import warnings
from collections.abc import Mapping
from typing import Any, Final

from celery_monitor.adapters.http.exchange import CONNECT_TIMEOUT, Answer, Exchange, prepare
from celery_monitor.adapters.http.faults import server

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "The package .pdpyras. is deprecated", UserWarning)
    from pdpyras import EventsAPISession, PDClientError

ACCEPTED: Final = 202
SERVER: Final = server("pagerduty.url")


def post(exchange: Exchange, url: str, key: str, action: str, event: Mapping[str, Any], *, timeout: float) -> Answer:
    """Send the event (without its routing key, which is ``key``) to the API at ``url``.

    Raises NoAnswerError. Takes at most ``timeout`` + GRACE seconds.
    """

    def send() -> None:
        with EventsAPISession(key) as session:
            prepare(session, exchange, {ACCEPTED})
            session.max_network_attempts = 0
            session.url = url
            session.timeout = (min(CONNECT_TIMEOUT, timeout), timeout)
            session.send_event(action, **event)

    return exchange.run(send, url, timeout, SERVER, (PDClientError,))
