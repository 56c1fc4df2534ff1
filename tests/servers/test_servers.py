"""The servers of the tests behave as the tests rely on."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import kombu
import pytest
import redis

from tests.conftest import Start
from tests.servers import Prometheus, RabbitMQ, Redis, Sentinel, TcpProxy, wait_until
from tests.servers.certificate import Certificate
from tests.servers.process import ServerProcess


def publish(url: str, queue: str, body: str, **options: object) -> None:
    """Declare a durable queue and send one persistent message to it."""
    options.setdefault("transport_options", {"confirm_publish": True})
    with kombu.Connection(url, connect_timeout=30, **options) as connection:
        bound = kombu.Queue(queue, durable=True)(connection.channel())
        bound.declare()
        connection.Producer().publish(body, routing_key=queue, delivery_mode=2)


def test_rabbitmq_keeps_durable_messages_through_kill_9(breakable_rabbitmq: RabbitMQ) -> None:
    """A killed broker restarts on the same port with its durable messages."""
    broker = breakable_rabbitmq
    publish(broker.url(), "kept", "body")
    old = broker.pid
    broker.kill()
    assert not broker.running
    broker.start()
    assert broker.pid != old
    assert wait_until(broker.queues, what="the queue") == {"kept": 1}
    broker.delete_queue("kept")
    assert broker.queues() == {}


def test_rabbitmq_vhosts_are_apart(rabbitmq: RabbitMQ, rabbitmq_url: str) -> None:
    """Queues in a test's vhost are not visible in another, and names need no quoting."""
    publish(rabbitmq_url, 'a "b"\\ ü', "body")
    vhost = rabbitmq_url.rpartition("/")[2]
    wait_until(lambda: rabbitmq.queues(vhost) == {'a "b"\\ ü': 1}, what="the message")
    other = rabbitmq.new_vhost()
    assert rabbitmq.queues(other.rpartition("/")[2]) == {}
    rabbitmq.delete_vhost(other)


def test_rabbitmq_closes_connections(rabbitmq: RabbitMQ, rabbitmq_url: str) -> None:
    """Connections closed by the broker raise in the client."""
    with kombu.Connection(rabbitmq_url) as connection:
        connection.connect()
        assert rabbitmq.close_connections() >= 1
        with pytest.raises(connection.connection_errors):  # noqa: PT012 - one call may still find buffered data
            while True:
                connection.drain_events(timeout=30)


def test_rabbitmq_users_have_only_their_permissions(rabbitmq: RabbitMQ, rabbitmq_url: str) -> None:
    """A user without the permission to configure cannot declare."""
    vhost = rabbitmq_url.rpartition("/")[2]
    url = rabbitmq.add_user("reader", "pass", vhost, configure="^$", write="^$", read=".*")
    with (
        kombu.Connection(url) as connection,
        pytest.raises(connection.channel_errors, match="ACCESS_REFUSED"),
    ):
        kombu.Queue("refused")(connection.channel()).declare()


def test_rabbitmq_speaks_tls(breakable_rabbitmq: RabbitMQ, certificate: Certificate) -> None:
    """A client that trusts the certificate can connect; a paused broker does not answer until resumed."""
    broker = breakable_rabbitmq
    tls = {"ca_certs": str(certificate.certificate), "server_hostname": "localhost"}
    publish(broker.tls_url(), "q", "body", ssl=tls)
    assert_pause_freezes(broker)


def assert_pause_freezes(server: ServerProcess) -> None:
    """A paused server accepts connections but does not answer; a resumed one does."""
    server.pause()
    assert not server.ready()
    server.resume()
    wait_until(server.ready, what="an answer after resume")


def test_redis_with_password_and_tls(start: Start, tmp_path: Path, certificate: Certificate) -> None:
    """The password is needed, with and without TLS."""
    server = start(Redis(tmp_path / "redis", password="secret", certificate=certificate))
    with redis.Redis.from_url(server.url()) as client:
        assert client.ping()
    with redis.Redis.from_url(server.tls_url(), ssl_ca_certs=str(certificate.certificate)) as client:
        assert client.ping()
    with (
        redis.Redis.from_url(server.url().replace(":secret@", "")) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_redis_is_killed_paused_and_cut(start: Start, tmp_path: Path) -> None:
    """A restarted Redis is empty and on the same port; its connections can be cut from its side."""
    server = start(Redis(tmp_path / "redis"))
    with redis.Redis.from_url(server.new_database()) as client:
        client.set("key", "value")
        assert_pause_freezes(server)
        assert server.close_connections() >= 1
        server.kill()
        server.start()
        assert client.get("key") is None


def test_sentinel_names_the_master(start: Start, tmp_path: Path) -> None:
    """Kombu reaches the Redis through the Sentinel."""
    master = start(Redis(tmp_path / "redis"))
    sentinel = start(Sentinel(tmp_path / "sentinel", master, service="shop"))
    publish(sentinel.url(), "q", "body", transport_options={"master_name": "shop"})
    with redis.Redis.from_url(master.url()) as client:
        assert client.llen("q") == 1


def test_prometheus_scrapes_and_evaluates_rules(start: Start, tmp_path: Path) -> None:
    """Samples of a target can be queried, and a firing alert is listed."""
    rules = tmp_path / "rules.yml"
    rules.write_text("groups: [{name: g, rules: [{alert: Always, expr: vector(1)}]}]")
    port = Prometheus(tmp_path, {}).port
    server = start(Prometheus(tmp_path / "prometheus", {"nobody": [f"127.0.0.1:{port}"]}, [rules]))
    assert server.wait_for("up")[0][1] == 0
    assert server.query("1 + 1") == [({}, 2.0)]
    wait_until(lambda: server.firing() == {"Always"}, what="the alert")
    with pytest.raises(RuntimeError, match="parse error"):
        server.query("up{")


def test_a_server_that_fails_shows_its_log(tmp_path: Path) -> None:
    """The exception of a failed start contains the server's log."""
    server = Redis(tmp_path / "redis", options=["--no-such-option", "1"])
    with pytest.raises(RuntimeError, match="ended before") as caught:
        server.start()
    assert "no-such-option" in caught.value.__notes__[0]


def test_a_missing_tool_skips_or_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CI=true a missing program skips the test; with it, it is a failure."""
    from tests.servers.process import require

    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-tool"):
        require("no-such-tool")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-tool"):
        require("no-such-tool")


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(1024):
            self.request.sendall(data)


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    """A proxy before a server that echoes."""

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        with TcpProxy(server.server_address[1]) as proxy:
            yield proxy
        server.shutdown()
        thread.join()


def test_proxy_forwards_stalls_and_delivers_later(proxy: TcpProxy) -> None:
    """A stalled connection stays open and silent; data sent meanwhile arrives after resume."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as connection:
        connection.sendall(b"one")
        assert connection.recv(10) == b"one"
        proxy.stall()
        connection.sendall(b"two")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(10)
        proxy.resume()
        connection.settimeout(30)
        assert connection.recv(10) == b"two"
    assert proxy.accepted == 1


def test_proxy_cuts_and_refuses(proxy: TcpProxy) -> None:
    """A cut connection ends; while refusing, new ones end at once; afterwards they work."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as connection:
        connection.sendall(b"one")
        assert connection.recv(10) == b"one"
        proxy.refuse()
        assert proxy.cut() == 1
        assert_ended(connection)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as connection:
        assert_ended(connection)
    proxy.resume()
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as connection:
        connection.sendall(b"two")
        assert connection.recv(10) == b"two"


def assert_ended(connection: socket.socket) -> None:
    """The peer has closed or reset the connection."""
    with suppress(ConnectionError):
        assert connection.recv(10) == b""
