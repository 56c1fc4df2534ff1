"""A stand-in for PagerDuty's Events API v2 on a loopback port: it enforces the documented contract and keeps alerts.

It answers as the API does (202, 400, 429), unless it was told to misbehave: ``script`` misbehaves for the next
requests, one each; ``behave`` for all others until told otherwise. What it saw is in ``received``, ``alerts`` and
``violations``::

    with PagerDutyServer() as server:
        server.script(Behaviour.status(503), Behaviour.drop(take=True))
        ...
        assert server.opened() == {"shop.charge/2026-11-23T14Z": 1}
        assert server.violations == []
"""

import contextlib
import json
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.servers.certificate import Certificate
from tests.servers.pagerduty_contract import violations
from tests.servers.ports import free_port

RATE_LIMIT = 120
"""Events per routing key in any 60 s."""
PATH = "/v2/enqueue"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the server handles a request. ``take``: the event is accepted, whatever the client sees."""

    kind: str = "answer"
    take: bool = True
    code: int = 202
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    every: float = 0.1

    @classmethod
    def status(cls, code: int, body: bytes = b"", **headers: str) -> "Behaviour":
        """Answer with this status and accept nothing; ``Retry_After="3"`` adds a header."""
        return cls("status", False, code, {name.replace("_", "-"): value for name, value in headers.items()}, body)

    @classmethod
    def redirect(cls, code: int = 307, location: str = PATH) -> "Behaviour":
        """Redirect the client: by default to this server, where the event would count."""
        return cls("status", False, code, {"Location": location})

    @classmethod
    def garbage(cls, body: bytes = b"<html>accepted") -> "Behaviour":
        """Accept the event and answer 202 with an unreadable body."""
        return cls("status", True, 202, {}, body)

    @classmethod
    def drop(cls, *, take: bool) -> "Behaviour":
        """Close the connection without an answer, after the event was accepted or before it was read."""
        return cls("drop", take)

    @classmethod
    def hang(cls, *, take: bool = False) -> "Behaviour":
        """Never answer."""
        return cls("hang", take)

    @classmethod
    def drip(cls, *, every: float = 0.1, take: bool = False, code: int = 0) -> "Behaviour":
        """Answer endlessly, a byte at a time: the status line, or a header after the status ``code``."""
        return cls("drip", take, code, every=every)

    @classmethod
    def drip_body(cls, code: int, *, every: float = 0.1) -> "Behaviour":
        """Send status and headers at once, and a body of a megabyte a byte at a time."""
        return cls("drip_body", code == 202, code, every=every)


@dataclass(slots=True)
class Alert:
    """The state of one dedup key of one routing key."""

    open: bool = False
    opened: int = 0
    """How often an incident was opened: by a trigger while no alert was open."""
    updates: int = 0
    resolves: int = 0


@dataclass(frozen=True, slots=True)
class Received:
    """One request. ``event`` is empty when it was not read; ``code`` 0 when it was not answered."""

    at: float
    """time.monotonic() at its arrival."""
    wall: float
    """time.time() at its arrival."""
    event: Mapping[str, Any]
    violations: list[str]
    taken: bool
    code: int
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def action(self) -> str:
        return str(self.event.get("event_action", ""))

    @property
    def key(self) -> str:
        """The dedup key."""
        return str(self.event.get("dedup_key", ""))

    @property
    def details(self) -> Mapping[str, Any]:
        """custom_details."""
        found: Mapping[str, Any] = self.event.get("payload", {}).get("custom_details", {})
        return found


class PagerDutyServer:
    """See the module. ``keys``: the known routing keys (None: all of 32 characters)."""

    def __init__(
        self,
        *,
        keys: set[str] | None = None,
        certificate: Certificate | None = None,
        rate_limit: int = RATE_LIMIT,
        clock: Callable[[], float] = time.monotonic,
        port: int = 0,
    ) -> None:
        self.received: list[Received] = []
        self.alerts: dict[tuple[str, str], Alert] = {}
        """(routing key, dedup key) → its alert."""
        self.throttled = 0
        """Events refused because of the rate limit."""
        self._keys = keys
        self._certificate = certificate
        self._rate_limit = rate_limit
        self._clock = clock
        self._port = port or free_port()
        self._script: deque[Behaviour] = deque()
        self._otherwise = Behaviour()
        self._times: dict[str, deque[float]] = {}
        self._lock = threading.Lock()
        self.released = threading.Event()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    # --- life ---
    def start(self) -> Self:
        """Listen; the port stays the same when started again."""
        self.released.clear()
        self._server = server = _Server(self, self._port, self._certificate)
        self._thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="pagerduty-server", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Close the port and end what hangs."""
        self.released.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join(60)
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The base URL, for ``pagerduty.url``."""
        return f"{'https' if self._certificate else 'http'}://127.0.0.1:{self._port}"

    # --- what the test does and asks ---
    def script(self, *behaviours: Behaviour) -> None:
        """Use these behaviours for the next requests, one each."""
        with self._lock:
            self._script.extend(behaviours)

    def behave(self, behaviour: Behaviour | None = None) -> None:
        """Use this behaviour for every request that is not scripted; None: that of the API."""
        with self._lock:
            self._otherwise = behaviour or Behaviour()

    @property
    def violations(self) -> list[str]:
        """Every broken rule of every request."""
        return [rule for request in list(self.received) for rule in request.violations]

    def opened(self, routing_key: str | None = None) -> dict[str, int]:
        """Dedup key → how many incidents were opened with it."""
        counts: Counter[str] = Counter()
        with self._lock:
            for (route, key), alert in self.alerts.items():
                if routing_key in {None, route}:
                    counts[key] += alert.opened
        return dict(counts)

    def taken(self) -> list[Received]:
        """The requests with accepted events, in order of arrival."""
        return [request for request in list(self.received) if request.taken]

    def resolve(self, routing_key: str, dedup_key: str) -> None:
        """A human resolves the incident."""
        with self._lock:
            self.alerts[routing_key, dedup_key].open = False

    # --- used by the handler ---
    def next_behaviour(self) -> Behaviour:
        """The behaviour for the current request."""
        with self._lock:
            return self._script.popleft() if self._script else self._otherwise

    def take(
        self, body: bytes, behaviour: Behaviour, at: float, wall: float, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """Check and apply a request; the answer of the API."""
        event, broken = violations(body)
        with self._lock:
            code, answer = self._update_finding(event, broken) if behaviour.take else (behaviour.code, {})
            shown = {"answer": code, "drop": 0, "hang": 0}.get(behaviour.kind, behaviour.code)
            self.received.append(Received(at, wall, event, broken, behaviour.take and code == 202, shown, headers))
        return code, answer

    def skip(self, at: float, wall: float) -> None:
        """Record a request that was not read."""
        with self._lock:
            self.received.append(Received(at, wall, {}, [], taken=False, code=0))

    def _update_finding(self, event: dict[str, Any], broken: list[str]) -> tuple[int, dict[str, Any]]:
        route, key = event.get("routing_key", ""), event.get("dedup_key", "")
        errors = list(broken)
        if self._keys is not None and route not in self._keys:
            errors.append("Invalid routing key")
        if errors:
            return 400, {"status": "invalid event", "message": "Event object is invalid", "errors": errors}
        now, times = self._clock(), self._times.setdefault(route, deque())
        while times and now - times[0] >= 60:
            times.popleft()
        if len(times) >= self._rate_limit:
            self.throttled += 1
            return 429, {
                "status": "throttle exceeded",
                "message": "Requests for this service are arriving too quickly.",
            }
        times.append(now)
        self._apply(self.alerts.setdefault((route, key), Alert()), event["event_action"])
        return 202, {"status": "success", "message": "Event processed", "dedup_key": key}

    @staticmethod
    def _apply(alert: Alert, action: str) -> None:
        if action == "trigger":
            alert.updates += alert.open
            alert.opened += not alert.open
            alert.open = True
        elif action == "resolve" and alert.open:
            alert.resolves += 1
            alert.open = False


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, state: PagerDutyServer, port: int, certificate: Certificate | None) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.state = state
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.certificate, certificate.key)
            # The handshake happens at the first read, in the connection's own thread.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away in the middle are what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """A redirected POST may come as a GET: it is no event."""
        at, wall = time.monotonic(), time.time()
        self.server.state.take(b"", Behaviour.status(405), at, wall, dict(self.headers))
        self._answer(405, {}, b"")

    def do_POST(self) -> None:
        at, wall = time.monotonic(), time.time()
        state = self.server.state
        behaviour = state.next_behaviour()
        if behaviour.kind == "drop" and not behaviour.take:
            state.skip(at, wall)
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != PATH or not self.headers.get("Content-Type", "").startswith("application/json"):
            behaviour = Behaviour.status(404)
        code, answer = state.take(body, behaviour, at, wall, dict(self.headers))
        match behaviour.kind:
            case "answer":
                self._answer(code, {}, json.dumps(answer).encode())
            case "status":
                self._answer(behaviour.code, behaviour.headers, behaviour.body)
            case "hang":
                state.released.wait()
            case "drip":
                head = f"HTTP/1.1 {behaviour.code} Code\r\nX-Drip: " if behaviour.code else ""
                self._drip(head.encode(), behaviour.every)
            case "drip_body":
                self._drip(
                    f"HTTP/1.1 {behaviour.code} Code\r\nContent-Length: 1000000\r\n\r\n".encode(), behaviour.every
                )
        self.close_connection |= behaviour.kind in {"drop", "hang", "drip", "drip_body"}

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Nothing: what came is in ``received``."""

    def _answer(self, code: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _drip(self, head: bytes, every: float) -> None:
        self.wfile.write(head)
        with contextlib.suppress(OSError):
            while not self.server.state.released.wait(every):
                self.wfile.write(b"x")
