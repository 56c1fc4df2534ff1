"""Slow, silent and hostile clients on real sockets: metrics and probes still answer."""

import contextlib
import resource
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from celery_monitor.adapters.web import connection, server
from tests.adapters.web.conftest import Serve, Served
from tests.adapters.web.fleet import Fleet
from tests.servers.waiting import wait_until

PROMPT = 30.0
"""Seconds in which an honest client is answered, on a busy machine: less than the deadlines of the others."""


def dial(site: Served) -> socket.socket:
    """Connect a client."""
    return socket.create_connection(("127.0.0.1", site.server.port), timeout=60)


def answers(site: Served) -> bool:
    """Whether metrics and probes answer promptly, each on a new connection."""
    for path in ("/metrics", "/livez", "/readyz"):
        began = time.monotonic()
        answer = site.get(path)
        assert answer.status_code in {200, 503}
        assert time.monotonic() - began < PROMPT, path
    return True


def is_cut(client: socket.socket) -> bool:
    """Whether the server has closed the connection, possibly after an answer."""
    client.settimeout(0.02)
    try:
        while client.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


@pytest.fixture(autouse=True)
def deadlines(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Long deadlines for busy machines; a test shortens the one that it waits for."""
    for name in ("REQUEST_SECONDS", "RESPONSE_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(connection, name, 100.0)
    return monkeypatch


def test_a_thousand_idle_connections(site: Served) -> None:
    """A thousand silent connections block nobody, and few of them stay open."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit < 3000:
        pytest.skip("this process may not open so many files")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(dial(site)) for _ in range(1000)]
        assert answers(site)
        staying = [client for client in clients if not is_cut(client)]
        assert len(staying) <= connection.MAX_CONNECTIONS
        assert answers(site)


@pytest.mark.parametrize(
    "start", [b"", b"G", b"GET /metrics HTTP/1.1\r\nhost: a\r\n", b"POST / HTTP/1.1\r\nhost: a\r\n"]
)
def test_a_request_that_does_not_end(site: Served, deadlines: pytest.MonkeyPatch, start: bytes) -> None:
    """A client that does not complete its request is disconnected in time, even if it sends byte by byte."""
    began = time.monotonic()
    with deadlines.context() as early:
        early.setattr(connection, "REQUEST_SECONDS", 0.5)
        with dial(site) as client:
            with contextlib.suppress(OSError):
                client.sendall(start)
            while time.monotonic() - began < 40:
                with contextlib.suppress(OSError):
                    client.sendall(b"x")
                if is_cut(client):
                    break
            assert 0.3 < time.monotonic() - began < 39
    assert answers(site)


def test_a_body_that_does_not_end(site: Served, deadlines: pytest.MonkeyPatch) -> None:
    """A client that sends an endless body is answered and disconnected."""
    with dial(site) as client, deadlines.context() as early:
        client.sendall(b"POST /livez HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 405")
        # It counts from the first byte after the answer.
        early.setattr(connection, "REQUEST_SECONDS", 0.5)
        began = time.monotonic()
        while time.monotonic() - began < 40:
            try:
                client.sendall(b"x" * 1000)
            except OSError:
                break
            if is_cut(client):
                break
        assert time.monotonic() - began < 39
    assert answers(site)


def test_an_answer_that_is_not_taken(site: Served, fleet: Fleet, deadlines: pytest.MonkeyPatch) -> None:
    """A client that does not read its answer is disconnected in time."""
    fleet.metrics.body = [b"x" * 500_000] * 200
    with dial(site) as client, deadlines.context() as early:
        # Within it the answer has to begin.
        early.setattr(connection, "RESPONSE_SECONDS", 3.0)
        client.sendall(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n")
        assert client.recv(10)
        wait_until(lambda: _closed_by_peer(client), 40)
    fleet.metrics.body = [b"up 1\n"]
    assert answers(site)


def _closed_by_peer(client: socket.socket) -> bool:
    """Without reading: the kernel's state of the connection (the first byte of tcp_info; 1 is established)."""
    return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 1


def test_clients_that_do_not_read_are_few(site: Served, fleet: Fleet) -> None:
    """Of many clients that do not read, all but a few are disconnected: each may hold an exposition."""
    fleet.metrics.body = [b"x" * 500_000] * 200
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(dial(site)) for _ in range(40)]
        for client in clients:
            client.sendall(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n")
        wait_until(lambda: sum(not _closed_by_peer(client) for client in clients) <= connection.MAX_STALLED, 60)
        fleet.metrics.body = [b"up 1\n"]
        assert answers(site)


def test_a_slow_reader_gets_everything(site: Served, fleet: Fleet) -> None:
    """A slow, honest client gets its complete answer, and a second one on the same connection."""
    fleet.metrics.body = [b"x" * 100_000] * 30
    with dial(site) as client:
        for _ in range(2):
            client.sendall(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n")
            got = b""
            while len(got.partition(b"\r\n\r\n")[2]) < 3_000_000:
                got += client.recv(20_000)
            assert got.startswith(b"HTTP/1.1 200")


def test_a_kept_connection_lives_longer_than_a_request_may_take(site: Served, deadlines: pytest.MonkeyPatch) -> None:
    """A connection may be idle for longer than a request may take, but not forever."""
    deadlines.setattr(connection, "REQUEST_SECONDS", 2.0)
    with dial(site) as client:
        for idle in (connection.IDLE_SECONDS, 1.0):
            deadlines.setattr(connection, "IDLE_SECONDS", idle)
            client.sendall(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n")
            got = b""
            while not got.endswith(b"}}"):
                chunk = client.recv(4000)
                assert chunk
                got += chunk
            if idle > 1:
                time.sleep(2.5)
        wait_until(lambda: is_cut(client), 40)


def test_pipelined_requests(site: Served) -> None:
    """Pipelined requests are answered one after the other."""
    with dial(site) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n" * 50)
        got = b""
        while got.count(b"HTTP/1.1 200") < 50:
            got += client.recv(65536)


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"GET \xff\xfe HTTP/1.1\r\nhost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(site: Served, request_: bytes) -> None:
    """Huge or broken requests are refused and harmless."""
    with dial(site) as client, contextlib.suppress(ConnectionError):
        client.sendall(request_)
        got = client.recv(100)
        assert got[:12] in {b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 200", b""}
    assert answers(site)


def all_from(client: socket.socket) -> bytes:
    """All data that the server sends until it closes."""
    client.settimeout(60)
    got = b""
    while chunk := client.recv(65536):
        got += chunk
    return got


def refusal(client: socket.socket) -> tuple[bytes, bytes]:
    """Status and body of an answer after which the server closes the connection."""
    head, _, body = all_from(client).partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head.lower()
    assert f"\r\ncontent-length: {len(body)}\r\n".encode() in head.lower() + b"\r\n"
    return head.split(b" ")[1], body


def get_of(size: int, method: bytes = b"GET") -> bytes:
    """A request whose head has this size, in a header of many kilobytes."""
    start, end = method + b" /livez HTTP/1.1\r\nhost: a\r\nx: ", b"\r\n\r\n"
    return start + b"x" * (size - len(start) - len(end)) + end


@pytest.mark.parametrize(
    "request_",
    [
        get_of(connection.MAX_HEAD_BYTES + 1),
        get_of(120_000),
        get_of(120_000, b"HEAD"),
        b"GET /livez HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: a\r\nx: " + b"x" * 20_000,
        b"x" * 1_000_000,
    ],
    ids=["one byte", "a header", "HEAD", "many headers", "address", "unfinished", "no end"],
)
def test_a_head_that_is_too_large(site: Served, request_: bytes) -> None:
    """A head above the limit is refused with 431 and a text, for any timing, complete or not."""
    with dial(site) as client:
        client.sendall(request_)
        status, body = refusal(client)
    assert status == b"431"
    assert body.endswith(b"exceed 16 KiB.\n")
    assert answers(site)


def test_a_head_that_is_just_not_too_large(site: Served) -> None:
    """Heads of exactly the limit are accepted, also many at once; a larger one is not."""
    with dial(site) as client:
        client.sendall(get_of(connection.MAX_HEAD_BYTES) * 3 + get_of(connection.MAX_HEAD_BYTES + 1))
        got = all_from(client)
    assert (got.count(b"HTTP/1.1 200"), got.count(b"HTTP/1.1 431")) == (3, 1)


def test_what_is_no_request_is_told(site: Served) -> None:
    """Invalid HTTP is refused with 400 and a text, and so is an invalid body while its request is answered."""
    with dial(site) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300))
        assert refusal(client) == (b"400", b"Malformed HTTP request.\n")
    with dial(site) as client:
        client.sendall(b"POST /livez HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
        assert refusal(client) == (b"400", b"Malformed HTTP request.\n")


def test_a_body_that_breaks_after_its_answer(site: Served, caplog: pytest.LogCaptureFixture) -> None:
    """A body that breaks after the answer ends the connection and is not logged."""
    with dial(site) as client:
        client.sendall(b"POST /livez HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 405"
        client.sendall(b"zz\r\n")
        assert b"HTTP/1.1" not in all_from(client)
    assert answers(site)
    assert caplog.records == []


def test_a_refused_client_that_goes_on(site: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused client that continues to send is disconnected soon."""
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.5)
    with dial(site) as client:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 40:
                client.sendall(b"x" * 10_000)
        assert time.monotonic() - began < 39
    assert answers(site)


def test_a_refused_client_does_not_hold_up_the_end(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server stops in time while it still reads from a refused client."""
    monkeypatch.setattr(server, "GRACE_SECONDS", 100)
    site = serve()
    with dial(site) as client:
        client.sendall(b"x" * 20_000)
        assert client.recv(12) == b"HTTP/1.1 431"
        site.stop.set()
        site.thread.join(30)
        assert not site.thread.is_alive()


@pytest.fixture
def drips(site: Served) -> Iterator[list[socket.socket]]:
    """Fifty clients that send one byte of a header every 20 ms."""
    stop = threading.Event()
    clients = [dial(site) for _ in range(50)]

    def drip() -> None:
        while not stop.wait(0.02):
            for client in clients:
                with contextlib.suppress(OSError):
                    client.send(b"a")

    for client in clients:
        client.sendall(b"GET /metrics HTTP/1.1\r\nx: ")
    thread = threading.Thread(target=drip)
    thread.start()
    yield clients
    stop.set()
    thread.join()
    for client in clients:
        client.close()


def test_while_others_drip(site: Served, drips: list[socket.socket]) -> None:
    """While many clients send slowly, all others are served."""
    for _ in range(5):
        assert answers(site)
    assert drips
