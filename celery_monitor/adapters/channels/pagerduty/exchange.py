"""One event, one HTTP request, by pdpyras; the only file that knows it.

pdpyras 5.4 is the last of its line; to put its successor ``pagerduty`` in its place, exchange the import and
``_EventsSession``'s base, and run the tests of this package. What pdpyras does by itself is switched off here,
because the outbox does it better or because it loses pages:

- It retries and sleeps inside of ``request``, on a 429 for ever. It follows redirects, and a 302 turns the
  POST into a GET that succeeds. It takes a 202 with an unreadable body for an error though the event was
  taken. All three happen after requests' response hook: ours raises the answer as soon as the status line and
  headers are there.
- Its timeouts are those of one read: a server that sends a byte now and then holds it for ever. The request
  has a thread of its own here, and when its time is up its socket is shut down.

A connection is made for each request and not kept: pages are rare, and a connection that a firewall has
forgotten costs a page its whole timeout. Proxies (``HTTPS_PROXY``, ``NO_PROXY``) and ``REQUESTS_CA_BUNDLE``
are taken from the environment, as requests does; passwords from ``.netrc`` are not.
"""

import contextlib
import socket
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from celery_monitor.adapters.channels.pagerduty.faults import (
    FOREIGN,
    SERVER,
    NoAnswerError,
    no_answer,
    without_password,
)
from celery_monitor.network import Fault, remedy

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "The package .pdpyras. is deprecated", UserWarning)
    from pdpyras import EventsAPISession, PDClientError

ACCEPTED: Final = 202
CONNECT_TIMEOUT: Final = 5.0
"""Seconds for one address of the host, and for its TLS handshake."""
GRACE: Final = 0.5
"""Seconds in which a request must end once its socket is shut down; a name lookup does not."""
_BODY_LIMIT: Final = 4096
"""Bytes read of an answer that says no."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said. ``text``: the beginning of the body; empty for a 202, whose body says nothing."""

    status: int
    retry_after: str | None
    text: str


class Exchange:
    """One request. ``post`` is called once; ``abort`` from any thread."""

    def __init__(self) -> None:
        self._connection: HTTPConnection | None = None
        self._aborted: str | None = None
        self._thread: threading.Thread | None = None
        self._answer: Answer | None = None
        self._error: NoAnswerError | None = None

    @property
    def alive(self) -> bool:
        """Whether the request still runs: an aborted one does while it waits for a name server. It sends nothing."""
        return self._thread is not None and self._thread.is_alive()

    def post(self, url: str, key: str, action: str, event: Mapping[str, Any], timeout: float) -> Answer:
        """Send the event (without its routing key, which is ``key``) to the API at ``url``.

        Raises NoAnswerError. Takes at most ``timeout`` + GRACE seconds, whatever the server does.
        """
        self._thread = threading.Thread(
            target=self._send, args=(url, key, action, event, timeout), name="pagerduty-request", daemon=True
        )
        self._thread.start()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self.abort(f"no answer within {timeout:g} s")
            self._thread.join(GRACE)
        if self._answer is not None:
            return self._answer
        if self._aborted is None and self._error is not None:
            raise self._error
        raise NoAnswerError(self._aborted or "no answer", remedy(Fault.SILENT, SERVER))

    def abort(self, reason: str) -> None:
        """End the request now, wherever it is; ``reason`` is its NoAnswerError."""
        self._aborted = reason
        sock = getattr(self._connection, "sock", None)
        if sock is not None:
            # Of socket.socket: an SSLSocket's own shutdown pulls its TLS state away from under the other
            # thread.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def connecting(self, connection: HTTPConnection) -> None:
        """A connection is about to be made, or has been made. Raises ConnectionAbortedError after ``abort``."""
        self._connection = connection
        if self._aborted:
            raise ConnectionAbortedError(self._aborted)

    def _send(self, url: str, key: str, action: str, event: Mapping[str, Any], timeout: float) -> None:
        try:
            with _EventsSession(key, self) as session:
                session.url = url
                session.timeout = (min(CONNECT_TIMEOUT, timeout), timeout)
                session.send_event(action, **event)
        except _AnsweredError as exc:
            self._answer = replace(exc.answer, text=without_password(exc.answer.text, url))
        except (PDClientError, *FOREIGN) as exc:
            self._error = no_answer(exc, url)


class _AnsweredError(Exception):
    """Carries the answer past everything that pdpyras and requests would do with it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class _EventsSession(EventsAPISession):  # type: ignore[misc]  # pdpyras has no types
    max_network_attempts = 0

    def __init__(self, key: str, exchange: Exchange) -> None:
        super().__init__(key)
        self.auth = _unchanged  # else requests looks into .netrc
        self.hooks["response"].append(_answered)
        for prefix in ("https://", "http://"):
            self.mount(prefix, _Adapter(exchange))


def _unchanged(request: PreparedRequest) -> PreparedRequest:
    return request


def _answered(response: Response, **_: object) -> None:
    """Called by requests when the headers have come, before redirects and body."""
    text = b""
    if response.status_code != ACCEPTED:
        with contextlib.suppress(HTTPError, OSError):
            text = response.raw.read(_BODY_LIMIT, decode_content=True)
    response.close()
    raise _AnsweredError(
        Answer(response.status_code, response.headers.get("Retry-After"), text.decode("utf-8", "replace"))
    )


class _Adapter(HTTPAdapter):
    """Tells the exchange of the connection, so that it can be shut down."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        super().__init__(max_retries=0)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the base's
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        exchange, base = self._exchange, pool.ConnectionCls

        class Watched(base):  # type: ignore[valid-type, misc]  # which base depends on the scheme
            def connect(self) -> None:
                exchange.connecting(self)
                super().connect()
                exchange.connecting(self)

        pool.ConnectionCls = Watched
        return pool
