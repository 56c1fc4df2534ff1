"""One request, which ends with an answer or an error within its timeout, whatever the server does.

``prepare`` switches off this behaviour of requests:

- It follows redirects, and a 302 turns the POST into a GET that succeeds. It reads whole bodies of any length. Both
  happen after the response hook: ours raises the answer as soon as the status line and the headers are read.
- It uses passwords from ``.netrc``. Proxies (``HTTPS_PROXY``, ``NO_PROXY``) and ``REQUESTS_CA_BUNDLE`` are still taken
  from the environment.
- Its timeouts apply to a single read, so a server that sends a byte now and then blocks it forever. Here the request
  runs in a separate thread, and its socket is shut down at the timeout.

Each request uses a new connection: notifications are rare, and a connection that a firewall has dropped would cost a
request its whole timeout.
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
from http.client import HTTPResponse, parse_headers
from typing import Any, Final

from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from celery_monitor.adapters.http.faults import FOREIGN, NoAnswerError, no_answer, refused_by_proxy, without_password
from celery_monitor.network import Fault, ServerTerms, remedy

CONNECT_TIMEOUT: Final = 5.0
"""Timeout in seconds for one address of the host, and for its TLS handshake."""
GRACE: Final = 0.5
"""Seconds within which a request must end once its socket is shut down. A name lookup may take longer."""
BODY_LIMIT: Final = 4096
"""Maximum bytes read of a negative answer."""
_NOT_INTERIM: Final = frozenset({HTTPStatus.CONTINUE, HTTPStatus.SWITCHING_PROTOCOLS})
"""http.client handles the former. After the latter, HTTP ends."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The server's answer. ``text``: the beginning of the body; empty for a positive answer."""

    status: int
    retry_after: str | None
    text: str


class Exchange:
    """One request. ``post`` is called once; ``abort`` is thread-safe."""

    def __init__(self) -> None:
        self._connection: HTTPConnection | None = None
        self._aborted: str | None = None
        self._thread: threading.Thread | None = None
        self._answer: Answer | None = None
        self._error: NoAnswerError | None = None

    @property
    def alive(self) -> bool:
        """Whether the request still runs. An aborted one runs while it waits for a name server, but sends nothing."""
        return self._thread is not None and self._thread.is_alive()

    def run(
        self,
        send: Callable[[], object],
        url: str,
        timeout: float,
        server: ServerTerms,
        also: tuple[type[Exception], ...] = (),
    ) -> Answer:
        """Call ``send``, which sends one request to ``url`` with a session from ``prepare``.

        ``also``: exceptions of a library on top of requests. Raises NoAnswerError. Takes at most ``timeout`` + GRACE
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
        """Abort the request; ``reason`` becomes its NoAnswerError."""
        self._aborted = reason
        sock = getattr(self._connection, "sock", None)
        if sock is not None:
            # That of socket.socket: an SSLSocket's own shutdown removes its TLS state while it is used by the other
            # thread.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def connecting(self, connection: HTTPConnection) -> None:
        """Record a connection before and after it is made. Raises ConnectionAbortedError after ``abort``."""
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
    """Prepare a session for the only request of the exchange. ``accepted``: statuses whose bodies are not read.

    ``limit``: maximum bytes read of other bodies.
    """
    session.auth = _unchanged  # otherwise requests reads .netrc
    session.hooks["response"].append(partial(_answered, accepted, limit))
    for prefix in ("https://", "http://"):
        session.mount(prefix, _Adapter(exchange))


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds of the Retry-After header; None if it is missing or invalid."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
        except (ValueError, OverflowError):  # OverflowError: an offset outside of any time zone
            return None
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    return max(seconds, 0.0) if math.isfinite(seconds) else None


class _AnsweredError(Exception):
    """Carries the answer past all further handling by pdpyras and requests."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def _unchanged(request: PreparedRequest) -> PreparedRequest:
    return request


def _answered(accepted: Container[int], limit: int, response: Response, **_: object) -> None:
    """Called by requests after the headers, before redirects and body."""
    text = b""
    if response.status_code not in accepted:
        with contextlib.suppress(HTTPError, OSError):
            text = response.raw.read(limit, decode_content=True)
    response.close()
    raise _AnsweredError(
        Answer(response.status_code, response.headers.get("Retry-After"), text.decode("utf-8", "replace"))
    )


class _FinalResponse(HTTPResponse):
    """Skips all interim answers, such as 103 (Early Hints). http.client skips only 100. Source: RFC 9110, 15.2."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # not in its types
            if status in _NOT_INTERIM or status // 100 != 1:
                return version, status, reason
            parse_headers(self.fp)


class _Adapter(HTTPAdapter):
    """Passes the connection to the exchange, so that it can be shut down."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        super().__init__(max_retries=0)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the base's
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        exchange, base = self._exchange, pool.ConnectionCls

        class Watched(base):  # type: ignore[valid-type, misc]  # which base depends on the scheme
            response_class = _FinalResponse

            def connect(self) -> None:
                exchange.connecting(self)
                super().connect()
                exchange.connecting(self)

        pool.ConnectionCls = Watched
        return pool
