"""The server: probes, passwords, headers, its port and its end."""

import base64
import errno
import socket
import threading
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from celery_monitor.adapters.web import Site, WebServer, connection, queries
from celery_monitor.core.summary import Summary
from celery_monitor.errors import ConfigError, PortUnavailableError, StoreUnavailableError
from celery_monitor.ports import HealthReport, Reader
from celery_monitor.settings.web import WebSettings
from tests.adapters.web.conftest import Serve, Served, served
from tests.adapters.web.fleet import NOW, Fleet
from tests.servers.waiting import wait_until

OPEN = ("/metrics", "/livez", "/readyz", "/health")
GUARDED = (
    "/",
    "/tasks/a",
    "/errors",
    "/failures",
    "/incidents",
    "/workers",
    "/api/v1/tasks",
    "/openapi.json",
    "/nothing",
    "/app.js",
)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long timeouts for slow clients and queries, so that other waiting clients show."""
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 100.0)
    monkeypatch.setattr(connection, "RESPONSE_SECONDS", 100.0)
    monkeypatch.setattr(queries, "QUERY_TIMEOUT_SECONDS", 100.0)


def test_probes_say_why(site: Served, fleet: Fleet) -> None:
    """A failing probe has status 503 with the reasons, and lists what is fine, too."""
    assert site.get("/livez").json() == {"status": "ok", "checks": {"threads": "ok"}, "notes": {}, "about": {}}
    fleet.live = HealthReport({"threads": "pump has not turned for 70 s"})
    answer = site.get("/livez")
    assert answer.status_code == 503
    checks = {"threads": "pump has not turned for 70 s"}
    assert answer.json() == {"status": "failing", "checks": checks, "notes": {}, "about": {}}


def test_health_is_an_alias_of_readyz(site: Served, fleet: Fleet) -> None:
    """/readyz and /health are equal, and differ from /livez."""
    fleet.ready = HealthReport({"broker": "connection refused", "store": None})
    for path in ("/readyz", "/health"):
        answer = site.get(path)
        assert answer.status_code == 503
        assert answer.json()["checks"] == {"broker": "connection refused", "store": "ok"}
    assert site.get("/livez").status_code == 200


def test_metrics_without_a_store(serve: Serve, fleet: Fleet) -> None:
    """Metrics and probes answer while the store is unavailable or hangs, and while the monitor starts."""
    fleet.trouble, fleet.starting = StoreUnavailableError("the disk is full"), True
    site = serve()
    assert [site.get(path).status_code for path in OPEN] == [200] * 4


@pytest.fixture
def guarded(serve: Serve, tmp_path: Path) -> Served:
    """A site with a password from a file."""
    (tmp_path / "password").write_text("se cret:é\n")
    return serve(username="ops", password_file=tmp_path / "password")


def test_everything_but_metrics_and_probes_asks_for_the_password(guarded: Served) -> None:
    """Without the password only metrics and probes are accessible."""
    assert [guarded.get(path).status_code for path in OPEN] == [200] * 4
    for path in GUARDED:
        answer = guarded.get(path)
        assert (path, answer.status_code) == (path, 401)
        assert answer.headers["www-authenticate"].startswith('Basic realm="celery-monitor"')


def test_a_program_is_refused_in_json(guarded: Served) -> None:
    """On the API, a missing password is reported in JSON, like all errors."""
    for path in ("/api/v1/tasks", "/api/v1", "/api/nothing", "/openapi.json"):
        assert guarded.get(path).json() == {"error": "HTTP Basic authentication required"}
    assert guarded.get("/").headers["content-type"].startswith("text/html")


def test_the_description_says_that_there_is_a_password(guarded: Served, serve: Serve) -> None:
    """The description has the password and the refusal only if one is configured."""
    document = guarded.get("/openapi.json", auth=("ops", "se cret:é")).json()
    assert document["components"]["securitySchemes"] == {"password": {"type": "http", "scheme": "basic"}}
    assert document["security"] == [{"password": []}]
    assert all("401" in one["responses"] for path in document["paths"].values() for one in path.values())
    free = serve().get("/openapi.json").json()
    assert "security" not in free
    assert not any("401" in one["responses"] for path in free["paths"].values() for one in path.values())


def test_the_password_opens(guarded: Served) -> None:
    """With user name and password everything is accessible."""
    assert guarded.get("/api/v1/tasks", auth=("ops", "se cret:é")).status_code == 200


def _basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic !",
        "Basic =========",
        "Basic \xff",
        _basic("ops"),
        _basic("ops:"),
        _basic("ops:wrong"),
        _basic("x:se cret:é"),
        _basic(":se cret:é"),
        _basic("ops:se cret:é "),
        _basic("ops:se cret:é").replace("Basic", "Bearer"),
    ],
)
def test_anything_else_does_not_open(guarded: Served, header: str) -> None:
    """A wrong name, password, scheme or encoding is refused."""
    answer = guarded.get("/api/v1/tasks", headers={"authorization": header.encode("latin-1")})
    assert answer.status_code == 401


def test_a_changed_password_counts(guarded: Served, tmp_path: Path) -> None:
    """A new password in the file replaces the old one."""
    (tmp_path / "password").write_text("another")
    assert guarded.get("/api/v1/tasks", auth=("ops", "another")).status_code == 200
    assert guarded.get("/api/v1/tasks", auth=("ops", "se cret:é")).status_code == 401


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/api/v1/tasks", "/nothing", "/"])
def test_headers_of_security(site: Served, path: str) -> None:
    """Every answer forbids scripts except the page's own file, frames, sniffing and caching."""
    answer = site.get(path)
    headers = answer.headers
    is_page = answer.text.startswith("<!doctype html>")
    scripts = [part for part in headers["content-security-policy"].split("; ") if part.startswith("script-src")]
    assert scripts == (["script-src 'self'"] if is_page else [])
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


def test_scrapes_share_a_rendering(site: Served, fleet: Fleet) -> None:
    """Scrapes that arrive during a rendering share the next one."""
    gate = fleet.metrics.gate = threading.Event()
    answers: list[int] = []

    def scrape() -> None:
        answers.append(site.get("/metrics").status_code)

    threads = [threading.Thread(target=scrape) for _ in range(12)]
    threads[0].start()
    wait_until(lambda: fleet.metrics.rendered == 1)
    for thread in threads[1:]:
        thread.start()
    wait_until(lambda: fleet.metrics.asked == len(threads))
    gate.set()
    for thread in threads:
        thread.join(60)
    assert answers == [200] * 12
    assert fleet.metrics.rendered == 2


@pytest.mark.usefixtures("patient")
def test_a_slow_store_holds_up_nobody(site: Served, fleet: Fleet) -> None:
    """While more queries hang than there are threads, metrics and probes answer."""
    gate = fleet.gate = threading.Event()
    threads = [threading.Thread(target=site.get, args=("/api/v1/tasks",)) for _ in range(10)]
    for thread in threads:
        thread.start()
    try:
        for path in OPEN:
            began = time.monotonic()
            assert site.get(path).status_code == 200
            assert time.monotonic() - began < 30
    finally:
        gate.set()
        for thread in threads:
            thread.join(60)


def test_a_query_is_given_up(site: Served, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A query that hangs is answered with status 503 at its deadline."""
    monkeypatch.setattr("celery_monitor.adapters.web.queries.QUERY_TIMEOUT_SECONDS", 0.2)
    gate = fleet.gate = threading.Event()
    try:
        answer = site.get("/api/v1/tasks")
    finally:
        gate.set()
    assert answer.status_code == 503
    assert "did not respond" in answer.json()["error"]


def test_reports_are_prepared(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Today's and yesterday's, once, later if the store is not open yet. The server can stop meanwhile."""
    monkeypatch.setattr("celery_monitor.adapters.web.site.PREPARE_AFTER", (0.0, 0.0, 0.0, 60.0))
    made, asked, parts = fleet.sources(), list[date](), list[tuple[str, int]]()

    def report(day: date, now: float) -> Summary:
        asked.append(day)
        if len(asked) == 1:
            raise StoreUnavailableError("not open yet")
        return made.report(day, now)

    def part(_: Summary, root: str, number: int) -> str:
        parts.append((root, number))
        return ""

    site = Site(WebSettings(), replace(made, report=report, report_part=part))
    with served(WebServer(site, host="127.0.0.1", port=0)):
        wait_until(lambda: len(parts) == 2)
    today = datetime.fromtimestamp(NOW, UTC).date()
    assert asked == [today, today, today - timedelta(days=1)]
    fleet.trouble = StoreUnavailableError("never")
    with served(WebServer(Site(WebSettings(), fleet.sources()), host="127.0.0.1", port=0)) as one:
        assert one.get("/livez").status_code == 200


def test_templates_are_compiled_one_at_a_time(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a pause after each, in which a scrape can run."""
    compiled = list[str]()
    monkeypatch.setattr("celery_monitor.adapters.web.site.PREPARE_AFTER", (0.0, 60.0))
    monkeypatch.setattr("celery_monitor.adapters.web.pages.compile_template", compiled.append)
    monkeypatch.setattr("celery_monitor.adapters.web.pages.COMPILE_PAUSE", 60.0)
    with served(WebServer(Site(WebSettings(), fleet.sources()), host="127.0.0.1", port=0)) as one:
        wait_until(lambda: bool(compiled))
        assert one.get("/livez").status_code == 200
        assert len(compiled) == 1


def test_earlier_days_are_prepared(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newest first, as many as are kept, and again later, whatever happens to the store."""
    monkeypatch.setattr("celery_monitor.adapters.web.site.PREPARE_AFTER", (0.0, 0.0))
    monkeypatch.setattr("celery_monitor.adapters.web.site.PREPARE_DAYS_EVERY", 0.01)
    monkeypatch.setattr("celery_monitor.adapters.web.site.PAUSE", 0.0)
    asked = list[date]()

    def prepare(day: date, _: float) -> bool:
        asked.append(day)
        if len(asked) == 4:
            raise StoreUnavailableError("for a moment")
        return len(asked) != 3

    site = Site(WebSettings(), replace(fleet.sources(), prepare_report=prepare, retention=3 * 86_400.0))
    with served(WebServer(site, host="127.0.0.1", port=0)):
        wait_until(lambda: len(asked) >= 12)
    today = datetime.fromtimestamp(NOW, UTC).date()
    back = [(today - day).days for day in asked]
    assert back[:12] == [0, 1, 2, 0, 0, 1, 2, 3, 0, 1, 2, 3]


def test_only_what_is_cheap_is_prepared(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hours of a queue take half a second to read, so they are read on request. Days are read one at a time."""
    monkeypatch.setattr("celery_monitor.adapters.web.site.PREPARE_AFTER", (0.0, 60.0))
    asked, prepared, made = set[str](), list[date](), fleet.sources()

    class Noting:
        def __getattr__(self, name: str) -> Any:
            asked.add(name)
            return getattr(made.reader, name)

    def prepare(day: date, _: float) -> bool:
        prepared.append(day)
        return True

    site = Site(WebSettings(), replace(made, reader=cast("Reader", Noting()), prepare_report=prepare))
    with served(WebServer(site, host="127.0.0.1", port=0)) as one:
        wait_until(lambda: bool(prepared))
        assert len(prepared) == 1
        assert "queue_hours" not in asked
        assert one.get("/queues/billing").status_code == 200
        assert "queue_hours" in asked


def test_a_fault_of_ours_is_told_without_details(site: Served, fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected error is answered with status 500 without its text, and is logged."""
    fleet.trouble = RuntimeError("amqp://user:secret@host")  # type: ignore[assignment]
    for path in ("/api/v1/tasks", "/failures"):
        answer = site.get(path)
        assert answer.status_code == 500
        assert "secret" not in answer.text
        wait_until(lambda: "Exception in ASGI application" in caplog.text)
        caplog.clear()


def test_a_taken_port_is_told(site: Served, fleet: Fleet) -> None:
    """A port in use may be temporary: no configuration error, and reported with a remedy."""
    second = WebServer(Site(WebSettings(), fleet.sources()), host="127.0.0.1", port=site.server.port)
    told = (
        r"^cannot listen on 127\.0\.0\.1, port \d+: Address already in use.*another celery-monitor.*ss -ltnp.*web\.port"
    )
    with pytest.raises(PortUnavailableError, match=told):
        second.start()


def test_a_port_of_the_system_is_told(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports below 1024 need a privilege, which containers usually do not have."""

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied (while attempting to bind on address ('::', 80, 0, 0))")

    monkeypatch.setattr(socket, "create_server", refused)
    told = r"^web\.port: cannot listen on ::, port 80: Permission denied: use a port from 1024"
    with pytest.raises(ConfigError, match=told):
        WebServer(Site(WebSettings(), fleet.sources()), host="::", port=80).start()


def test_an_unknown_host_is_told(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that does not exist or is not local is an error of web.host; an unavailable name server is not."""
    site = Site(WebSettings(), fleet.sources())
    resolve = socket.getaddrinfo

    def lookup(host: str, *args: object, **options: object) -> object:
        # The machine's name server may be away.
        if host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    for host in ("no.such.host.invalid", "192.0.2.1"):
        told = rf"^web\.host: cannot listen on {host}, port 0: [A-Za-z ]+: use an address of this machine, or ::"
        with pytest.raises(ConfigError, match=told):
            WebServer(site, host=host, port=0).start()

    def away(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", away)
    with pytest.raises(PortUnavailableError, match=r"Temporary failure.*web\.host"):
        WebServer(site, host="monitor.example.com", port=0).start()


def test_both_families(fleet: Fleet) -> None:
    """On :: it answers over IPv4 and IPv6."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    server = WebServer(Site(WebSettings(), fleet.sources()), host="::", port=0)
    server.start()
    stop = threading.Event()
    thread = threading.Thread(target=server.serve, args=(stop, lambda: None))
    thread.start()
    try:
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{server.port}/livez", timeout=60).status_code == 200
    finally:
        stop.set()
        thread.join(60)
        server.stop()


def test_it_listens_before_it_serves(fleet: Fleet) -> None:
    """A client that connects between start and serve is answered, not refused."""
    server = WebServer(Site(WebSettings(), fleet.sources()), host="127.0.0.1", port=0)
    server.start()
    stop = threading.Event()
    thread = threading.Thread(target=server.serve, args=(stop, lambda: None))
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        thread.start()
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    stop.set()
    thread.join(60)
    server.stop()


def test_it_reports_its_turns(site: Served) -> None:
    """The serving loop reports progress to the watchdog."""
    wait_until(lambda: len(site.turns) > 5)


@pytest.mark.usefixtures("patient")
def test_it_stops_in_time_whatever_clients_do(site: Served, fleet: Fleet) -> None:
    """Silent clients, clients that do not read, and hanging queries do not delay the end."""
    fleet.metrics.body = [b"x" * 1_000_000] * 100
    gate = fleet.gate = threading.Event()
    address = ("127.0.0.1", site.server.port)
    silent, deaf, waiting = (socket.create_connection(address, timeout=60) for _ in range(3))
    with silent, deaf, waiting:
        deaf.sendall(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n")
        waiting.sendall(b"GET /api/v1/tasks HTTP/1.1\r\nhost: a\r\n\r\n")
        assert deaf.recv(10)
        site.stop.set()
        site.thread.join(30)
        assert not site.thread.is_alive()
        gate.set()


def test_it_can_be_started_again(fleet: Fleet) -> None:
    """After a failure, serving restarts on the same port, and the daemon counts meanwhile."""
    server = WebServer(Site(WebSettings(), fleet.sources()), host="127.0.0.1", port=0)
    server.start()
    port = server.port

    def fail() -> None:
        raise RuntimeError("a turn that fails")

    with pytest.raises(RuntimeError):
        server.serve(threading.Event(), fail)
    stop = threading.Event()
    thread = threading.Thread(target=server.serve, args=(stop, lambda: None))
    thread.start()
    try:
        wait_until(lambda: _answers(port))
        assert server.port == port
    finally:
        stop.set()
        thread.join(60)
        server.stop()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/livez", timeout=60).status_code == 200
    except httpx.TransportError:
        return False
