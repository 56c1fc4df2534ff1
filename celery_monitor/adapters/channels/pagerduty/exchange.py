"""One event, by pdpyras; the only file that knows it.

pdpyras 5.4 is the last of its line; to put its successor ``pagerduty`` in its place, exchange the import and the
session below, and run the tests of this package. What pdpyras does by itself is switched off, because the outbox does
it better or because it loses pages: it retries and sleeps inside of ``request``, on a 429 for ever, and takes a 202
with an unreadable body for an error though the event was taken. All of it happens after the response hook of
``adapters/http``, which raises the answer.
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
