"""One request, with an answer or an error within its time, whatever the server does.

What requests does by itself and must not happen here is switched off by ``prepare``:

- It follows redirects, and a 302 turns the POST into a GET that succeeds. It reads whole bodies, however long. Both
  happen after the response hook: ours raises the answer as soon as the status line and headers are there.
- It takes passwords from ``.netrc``. Proxies (``HTTPS_PROXY``, ``NO_PROXY``) and ``REQUESTS_CA_BUNDLE`` are taken
  from the environment, as requests does.
- Its timeouts are those of one read: a server that sends a byte now and then holds it for ever. The request
  has a thread of its own here, and when its time is up its socket is shut down.

A connection is made for each request and not kept: notifications are rare, and a connection that a firewall has
forgotten costs one its whole timeout.
"""

import contextlib
import math
import socket
import threading
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from celery_monitor.adapters.http.faults import FOREIGN, NoAnswerError, no_answer, refused_by_proxy, without_password
from celery_monitor.network import Fault, ServerTerms, remedy

CONNECT_TIMEOUT: Final = 5.0
"""Seconds for one address of the host, and for its TLS handshake."""
GRACE: Final = 0.5
"""Seconds in which a request must end once its socket is shut down; a name lookup does not."""
BODY_LIMIT: Final = 4096
"""Bytes read of an answer that says no."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said. ``text``: the beginning of the body; empty for one that says yes."""

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

    def run(
        self,
        send: Callable[[], object],
        url: str,
        timeout: float,
        server: ServerTerms,
        also: tuple[type[Exception], ...] = (),
    ) -> Answer:
        """Call ``send``, which makes one request to ``url`` by a session that ``prepare`` got.

        ``also``: what a library above requests may raise. Raises NoAnswerError. Takes at most ``timeout`` + GRACE
        seconds, whatever the server does.
        """
        self._thread = threading.Thread(
            target=self._send, args=(send, url, server, also), name="http-request", daemon=True
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
        raise NoAnswerError(self._aborted or "no answer", remedy(Fault.SILENT, server))

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

    def _send(
        self, send: Callable[[], object], url: str, server: ServerTerms, also: tuple[type[Exception], ...]
    ) -> None:
        caught: tuple[type[Exception], ...] = (*also, *FOREIGN)
        try:
            send()
        except _AnsweredError as exc:
            if exc.answer.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
                self._error = refused_by_proxy(exc.answer.text, url)
                return
            self._answer = replace(exc.answer, text=without_password(exc.answer.text, url))
        except caught as exc:
            self._error = no_answer(exc, url, server)


def prepare(session: Session, exchange: Exchange, accepted: Container[int], limit: int = BODY_LIMIT) -> None:
    """Make a session's one request one of the exchange's. ``accepted``: statuses whose bodies say nothing.

    ``limit``: bytes read of other bodies.
    """
    session.auth = _unchanged  # else requests looks into .netrc
    session.hooks["response"].append(partial(_answered, accepted, limit))
    for prefix in ("https://", "http://"):
        session.mount(prefix, _Adapter(exchange))


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds that the server asked to wait; None when it did not, or not readably."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
        except (ValueError, OverflowError):  # the latter of an offset that no time zone has
            return None
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    return max(seconds, 0.0) if math.isfinite(seconds) else None


class _AnsweredError(Exception):
    """Carries the answer past everything that pdpyras and requests would do with it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def _unchanged(request: PreparedRequest) -> PreparedRequest:
    return request


def _answered(accepted: Container[int], limit: int, response: Response, **_: object) -> None:
    """Called by requests when the headers have come, before redirects and body."""
    text = b""
    if response.status_code not in accepted:
        with contextlib.suppress(HTTPError, OSError):
            text = response.raw.read(limit, decode_content=True)
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
