"""``celery-monitor healthcheck``."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from click.testing import CliRunner, Result

from celery_monitor.cli import healthcheck as module
from celery_monitor.cli import main


class Server(HTTPServer):
    """Answers every request with one status and body, and records the requested paths."""

    def __init__(self, status: int, body: bytes, host: str = "127.0.0.1") -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), Handler)
        self.status, self.body, self.paths = status, body, list[str]()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_arguments: object) -> None:
        """Logs nothing."""


@contextmanager
def serving(server: Server) -> Iterator[int]:
    """The port of the running server."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long timeout, for slow machines."""
    monkeypatch.setattr(module, "_TIMEOUT", 60.0)


def healthcheck(port: int, host: str = "0.0.0.0", **environ: str) -> Result:
    """The command, with the daemon configured for this port and address."""
    return CliRunner().invoke(
        main,
        ["healthcheck"],
        env={"CELERY_MONITOR_WEB__PORT": str(port), "CELERY_MONITOR_WEB__HOST": host, **environ},
    )


def test_living_daemon() -> None:
    """A daemon whose /livez answers 200 is healthy: exit code 0, with its checks in one line."""
    server = Server(200, b'{"status": "ok", "checks": {"threads": "ok"}}')
    with serving(server) as port:
        result = healthcheck(port, http_proxy="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9")
    assert (result.exit_code, result.output) == (0, "ok: threads: ok\n")
    assert server.paths == ["/livez"]


def test_stuck_daemon() -> None:
    """Any other answer of /livez: exit code 1, the status and the reasons."""
    with serving(Server(503, b'{"status": "failing", "checks": {"threads": "pump has not turned for 40 s"}}')) as port:
        result = healthcheck(port)
    assert result.exit_code == 1
    assert result.output == "failing, status 503: threads: pump has not turned for 40 s\n"


@pytest.mark.parametrize("status", [200, 404, 500])
@pytest.mark.parametrize("body", [b"<!doctype html>" + b"<p>A whole page</p>" * 1000, b"{}", b"[1]", b"\x1b[2J\xff"])
def test_another_program(status: int, body: bytes) -> None:
    """Any other program on the port is not a daemon, and nothing of its answer is printed."""
    with serving(Server(status, body)) as port:
        result = healthcheck(port)
    assert result.exit_code == 1
    assert result.output == f"not a celery-monitor: another program responded with status {status}\n"


def test_reasons_are_one_line_that_controls_no_terminal() -> None:
    """A long or hostile reason is shortened to a printable line."""
    reason = b'{"status": "failing", "checks": {"threads": "\\u001b[2J\\n' + b"x" * 5000 + b'"}}'
    with serving(Server(503, reason)) as port:
        output = healthcheck(port).output
    assert len(output.splitlines()) == 1
    assert len(output) < 400
    assert "\x1b" not in output


def test_no_daemon() -> None:
    """Without a listener the exit code is 1, with the address."""
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        result = healthcheck(port)
    assert result.exit_code == 1
    assert f"no response from http://127.0.0.1:{port}/livez" in result.output


def test_silent_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that accepts and never answers fails after the timeout."""
    monkeypatch.setattr(module, "_TIMEOUT", 0.2)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        result = healthcheck(silent.getsockname()[1])
    assert result.exit_code == 1
    assert "timed out" in result.output


def test_something_else_on_the_port() -> None:
    """A server that does not speak HTTP is not a daemon."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 smtp.example.com\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        result = healthcheck(other.getsockname()[1])
        thread.join()
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("0.0.0.0", ["127.0.0.1"]),
        ("::", ["127.0.0.1", "::1"]),
        ("[::]", ["127.0.0.1", "::1"]),
        ("::1", ["::1"]),
        ("[::1]", ["::1"]),
        ("10.1.2.3", ["10.1.2.3"]),
        ("localhost", ["localhost"]),
    ],
)
def test_address(monkeypatch: pytest.MonkeyPatch, host: str, asked: list[str]) -> None:
    """The loopback addresses if the daemon listens on all, otherwise its address."""
    hosts: list[str] = []

    def ask(host: str, port: int) -> module.CheckResult:
        hosts.append(host)
        return module.CheckResult(alive=False, ours=False, responded=False, text=f"no response from {host}")

    monkeypatch.setattr(module, "_ask", ask)
    result = healthcheck(1234, host)
    assert (result.exit_code, result.output) == (1, f"no response from {asked[0]}\n")
    assert hosts == asked


@pytest.mark.parametrize("host", ["::", "[::]", "::1", "[::1]"])
def test_a_daemon_on_ipv6_only(host: str) -> None:
    """If nothing listens on IPv4, the daemon is still found."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with serving(Server(200, b'{"checks": {"threads": "ok"}}', "::1")) as port:
        result = healthcheck(port, host)
    assert (result.exit_code, result.output) == (0, "ok: threads: ok\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00" * 5000,
        b"220 smtp.example.com\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n{}",
        b"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 99999999 OK\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 60_000,
        b"HTTP/1.1 200 OK\r\n\r\n" + b'{"checks": {"a": ' + b"9" * 10_000 + b"}}",
        b"\xff\xfe\r\n\r\n",
    ],
)
def test_garbage_is_one_line(answer: bytes) -> None:
    """Any answer gives exit code 1 and one line, never a traceback."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:

        def respond() -> None:
            connection, _ = other.accept()
            with connection, suppress(OSError):
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=respond)
        thread.start()
        result = healthcheck(other.getsockname()[1])
        thread.join()
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    assert len(result.output.splitlines()) == 1


def test_an_answer_that_drips(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout applies to the whole answer, not to each byte."""
    monkeypatch.setattr(module, "_TIMEOUT", 0.3)
    over = threading.Event()
    with closing(socket.create_server(("127.0.0.1", 0))) as other:

        def drip() -> None:
            connection, _ = other.accept()
            with connection, suppress(OSError):
                while not over.wait(0.05):
                    connection.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        result = healthcheck(other.getsockname()[1])
        over.set()
        thread.join()
    assert result.exit_code == 1


def test_port_of_the_command_line() -> None:
    """--port overrides the configuration, as for run; an invalid port is an error."""
    with serving(Server(200, b'{"checks": {}}')) as port:
        assert CliRunner().invoke(main, ["healthcheck", "--port", str(port)]).exit_code == 0
    unknown = healthcheck(0)
    assert unknown.exit_code == 1
    assert "pass it with --port" in unknown.stderr
