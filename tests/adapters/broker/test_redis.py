"""The event stream on Redis."""

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection

from celery_monitor.adapters.broker import BrokerSource
from celery_monitor.errors import SourceLostError
from tests.adapters.broker.conftest import Listening, Probing, collect, poll_for, settings
from tests.adapters.broker.publisher import numbered, publish
from tests.conftest import Start
from tests.servers import Redis, Sentinel, Stopwatch, wait_until
from tests.servers.certificate import Certificate, make_certificate
from tests.servers.scripted import misbehaving


def _refusal(url: str, **fields: object) -> SourceLostError:
    source = BrokerSource(settings(url, **fields))
    with pytest.raises(SourceLostError) as caught:
        source.connect()
    return caught.value


def test_no_acknowledgements(redis_url: str, listening: Listening) -> None:
    """Redis keeps no messages: ack does nothing, and messages are not redelivered."""
    source = listening(redis_url)
    assert not source.acknowledges
    publish(redis_url, numbered(2))
    collect(source, 2, ack=False)
    source.ack(0)
    source.abandon()
    source.connect()
    assert source.poll(0.2) is None


def test_nothing_is_left_behind(redis_server: Redis, redis_url: str, listening: Listening, probing: Probing) -> None:
    """Neither source nor probe writes a key, even if they are killed."""
    source, probe = listening(redis_url), probing(redis_url)
    probe.send(b"{}", 20)
    collect(source, 1)
    source.abandon()
    with Connection(redis_url) as connection:
        assert connection.default_channel.client.keys("*") == []


@pytest.mark.parametrize("fault", ["killed", "unknown command", "replica"])
def test_what_came_before_an_error_counts(
    redis_server: Redis, redis_url: str, listening: Listening, fault: str
) -> None:
    """If the server closes the connection or sends an error, earlier messages are returned first."""
    source = listening(redis_url)
    link: Any = source._link
    with Connection(redis_url) as connection:
        client = connection.default_channel.client
        publish(redis_url, numbered(3))
        if fault == "killed":
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        elif fault == "unknown command":
            link._wire.send(b"NOSUCH\r\n")
        else:
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            link._wire.send(b"SET a b\r\n")  # answered by -READONLY
        try:
            assert [delivery.body for delivery in collect(source, 3)] == numbered(3)
            with pytest.raises(SourceLostError):
                poll_for(source)
        finally:
            client.execute_command("REPLICAOF", "NO", "ONE")
    source.abandon()
    source.connect()
    publish(redis_url, numbered(2, first=3))
    assert [delivery.body for delivery in collect(source, 2)] == numbered(2, first=3)


def test_database_is_part_of_the_channel(redis_server: Redis, listening: Listening) -> None:
    """Events of another database do not belong to this fleet."""
    mine, other = redis_server.new_database(), redis_server.new_database()
    source = listening(mine)
    publish(other, numbered(1))
    publish(mine, numbered(1, first=7))
    assert [delivery.body for delivery in collect(source, 1)] == numbered(1, first=7)


@pytest.mark.parametrize(
    "options",
    [
        {"global_keyprefix": "shop:"},
        {"fanout_prefix": False},
        {"fanout_prefix": "/shop."},
        {"fanout_patterns": False},
        {"fanout_prefix": False, "fanout_patterns": False},
        {"global_keyprefix": "shop[a]*?\\:"},
        {"global_keyprefix": "*", "fanout_prefix": "[{db}]", "fanout_patterns": False},
    ],
)
def test_options_of_the_fleet(redis_url: str, listening: Listening, probing: Probing, options: dict[str, Any]) -> None:
    """Options that change the channels' names have the same effect as in the fleet."""
    source = listening(redis_url, transport_options=options, exchange=f"events-{'-'.join(options)}")
    publish(redis_url, numbered(2), transport_options=options, exchange=f"events-{'-'.join(options)}")
    assert [delivery.body for delivery in collect(source, 2)] == numbered(2)
    probing(redis_url, transport_options=options, exchange=f"events-{'-'.join(options)}").send(b'{"p": 1}', 20)
    assert collect(source, 1)[0].body == b'{"p": 1}'


@pytest.mark.parametrize("prefix", ["shop*", "sho?1", "shop[0-9]"])
def test_names_are_no_patterns(redis_url: str, listening: Listening, prefix: str) -> None:
    """Events of another fleet with matching names do not belong to this fleet."""
    source = listening(redis_url, transport_options={"global_keyprefix": prefix})
    publish(redis_url, numbered(1), transport_options={"global_keyprefix": "shop1"})
    publish(redis_url, numbered(1, first=7), transport_options={"global_keyprefix": prefix})
    assert [delivery.body for delivery in collect(source, 1)] == numbered(1, first=7)


@pytest.mark.parametrize(
    "data",
    [
        b"no json",
        b'{"body": 1}',
        b'{"body": "@@@", "properties": {"body_encoding": "base64"}}',
        b'{"body": "e30=", "headers": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"properties": {}}',
        b"\xff\xfe",
        b"",
    ],
)
def test_what_is_no_envelope(redis_url: str, listening: Listening, data: bytes) -> None:
    """Any data on the channels is returned unchanged, without a content type, and the stream continues."""
    source = listening(redis_url)
    with Connection(redis_url) as connection:
        database = connection.virtual_host
        connection.default_channel.client.publish(f"/{database}.celeryev/x", data)
    publish(redis_url, numbered(1))
    found = collect(source, 2)
    assert (found[0].body, found[0].content_type) == (data, "")
    assert found[1].body == numbered(1)[0]


def test_plain_text_body(redis_url: str, listening: Listening) -> None:
    """A body that is not base64 is treated as text."""
    source = listening(redis_url)
    envelope = {"body": '{"ü": 1}', "content-type": "application/json", "properties": {}}
    with Connection(redis_url) as connection:
        connection.default_channel.client.publish(f"/{connection.virtual_host}.celeryev/x", json.dumps(envelope))
    assert collect(source, 1)[0].body == '{"ü": 1}'.encode()


def test_reader_that_is_too_slow(listening: Listening, start: Start, tmp_path: Path) -> None:
    """Redis disconnects a slow reader; the received messages are returned before the error is raised."""
    server = start(Redis(tmp_path / "redis", options=("--client-output-buffer-limit", "pubsub 1mb 0 0")))
    source = listening(server.url())
    bodies = [b"%06d" % number + b"x" * 2000 for number in range(10_000)]
    publish(server.url(), bodies)
    found: list[bytes] = []

    def read() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            batch = source.poll(1)
            found.extend(delivery.body for delivery in (batch.deliveries if batch else ()))

    with pytest.raises(SourceLostError):
        read()
    assert 100 < len(found) < 10_000
    assert found == bodies[: len(found)]
    source.connect()
    publish(server.url(), numbered(1))
    assert collect(source, 1)


def test_connection_closed_by_the_server(listening: Listening, start: Start, tmp_path: Path) -> None:
    """A closed connection is detected immediately, without redis-py's silent reconnection."""
    server = start(Redis(tmp_path / "redis"))
    source = listening(server.url())
    assert server.close_connections() >= 1
    with pytest.raises(SourceLostError, match="closed the connection"):
        poll_for(source)
    with pytest.raises(SourceLostError, match="not connected"):
        source.poll(5)
    source.connect()


# --- log-in, TLS, Sentinel


def test_password(listening: Listening, start: Start, tmp_path: Path) -> None:
    """The right password works; a wrong or missing one is reported with a remedy."""
    server = start(Redis(tmp_path / "redis", password="s3cret"))
    source = listening(server.url())
    publish(server.url(), numbered(1))
    assert collect(source, 1)
    for credentials in (":wrong@", ""):
        error = _refusal(server.url().replace(":s3cret@", credentials))
        assert "user and password" in (error.remedy or "")
        assert "wrong" not in str(error)


def test_user_without_permission(listening: Listening, start: Start, tmp_path: Path) -> None:
    """The error says what to allow, and that is enough."""
    server = start(Redis(tmp_path / "redis"))
    server.execute("ACL", "SETUSER", "events", "on", ">pw", "+ping", "+info")
    url = server.url().replace("redis://", "redis://events:pw@")
    error = _refusal(url)
    assert "psubscribe" in str(error)
    assert error.remedy is not None
    server.execute("ACL", "SETUSER", "events", *error.remedy.split("NAME ")[1].split())
    source = listening(url)
    publish(server.url(), numbered(1))
    assert collect(source, 1)


def test_tls(listening: Listening, start: Start, tmp_path: Path, certificate: Certificate) -> None:
    """TLS options accept the constants of YAML, the certificate is verified, and problems are reported."""
    server = start(Redis(tmp_path / "redis", password="s3cret", certificate=certificate))
    options = {"ssl_ca_certs": str(certificate.certificate), "ssl_cert_reqs": "CERT_REQUIRED"}
    source = listening(server.tls_url(), use_ssl=options)
    bodies = [*numbered(2000), b"x" * 300_000]
    sender = threading.Thread(target=publish, args=(server.url(), bodies))
    sender.start()
    assert [delivery.body for delivery in collect(source, len(bodies))] == bodies
    sender.join()
    timer = threading.Timer(0.2, source.abandon)
    timer.start()
    with pytest.raises(SourceLostError):
        poll_for(source)
    timer.join()
    stranger = make_certificate(tmp_path / "stranger")
    error = _refusal(server.tls_url(), use_ssl={**options, "ssl_ca_certs": str(stranger.certificate)})
    assert "use_ssl" in (error.remedy or "")
    trusted: dict[str, object] = {"ssl_ca_certs": str(certificate.certificate)}
    alias = server.tls_url().replace("localhost", "0.0.0.0")  # which the certificate does not name
    for url, use_ssl, connects in (
        (server.tls_url(), trusted, True),
        (f"{server.tls_url()}?ssl_ca_certs={certificate.certificate}", None, True),
        (server.tls_url().replace("rediss", "redis"), trusted, True),
        (server.tls_url(), {"ssl_cert_reqs": "none"}, True),
        (f"{server.tls_url()}?ssl_cert_reqs=none", True, True),
        (server.tls_url(), None, False),
        (server.tls_url(), True, False),
        (server.tls_url(), False, False),
        (server.tls_url(), {}, False),
        (server.tls_url(), {"ssl_cert_reqs": None}, False),
        (server.tls_url().replace("rediss", "redis"), True, False),
        (alias, trusted, False),
    ):
        if connects:
            listening(url, use_ssl=use_ssl).close()
        else:
            assert "TLS" in str(_refusal(url, use_ssl=use_ssl)), (url, use_ssl)


@pytest.mark.parametrize("use_ssl", [None, True, False, {}, {"cert_reqs": "none"}])
@pytest.mark.parametrize("scheme", ["rediss", "redis", "amqps", "amqp"])
def test_no_password_in_clear_text_where_tls_is_asked_for(scheme: str, use_ssl: object) -> None:
    """A server without TLS receives the start of a handshake, and nothing else."""
    received: list[bytes] = []

    def receive(connection: socket.socket, _: threading.Event) -> None:
        received.append(connection.recv(65_536))

    with misbehaving(receive) as port:
        url = f"{scheme}://user:s3cret@127.0.0.1:{port}/0"
        options = {f"ssl_{key}": value for key, value in use_ssl.items()} if isinstance(use_ssl, dict) else use_ssl
        _refusal(url, use_ssl=use_ssl if scheme.startswith("amqp") else options)
    encrypted = scheme in {"rediss", "amqps"} or use_ssl is True or isinstance(use_ssl, dict)
    assert {data.startswith(b"\x16\x03") for data in received} == {encrypted}


def test_sentinel(listening: Listening, probing: Probing, start: Start, tmp_path: Path) -> None:
    """The master is found through a Sentinel; an unknown master name is reported with a remedy."""
    master = start(Redis(tmp_path / "redis"))
    sentinel = start(Sentinel(tmp_path / "sentinel", master))
    options = {"master_name": sentinel.service}
    source = listening(sentinel.url(), transport_options=options)
    publish(sentinel.url(), numbered(2), transport_options=options)
    assert collect(source, 2)
    probing(sentinel.url(), transport_options=options).send(b"{}", 20)
    assert collect(source, 1)
    error = _refusal(sentinel.url(), transport_options={"master_name": "nobody"})
    assert "master_name" in (error.remedy or "")
    error = _refusal(sentinel.url())
    assert "transport_options" in (error.remedy or "")


@pytest.mark.parametrize("own", [{}, {"sentinel_kwargs": {"client_name": "monitor"}}], ids=["", "with options"])
def test_sentinels_that_do_not_answer(probing: Probing, own: dict[str, Any]) -> None:
    """Each is tried once, and all within the available time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = ";".join([f"sentinel://127.0.0.1:{silent.getsockname()[1]}"] * 3)
        probe = probing(url, transport_options={"master_name": "main", **own})
        with Stopwatch() as watch, pytest.raises(SourceLostError):
            probe.send(b"{}", 0.6)
        assert watch.seconds < 3


def test_a_sentinel_that_does_not_answer(listening: Listening, probing: Probing, start: Start, tmp_path: Path) -> None:
    """The stream and the probe try the next one in time."""
    master = start(Redis(tmp_path / "redis"))
    sentinel = start(Sentinel(tmp_path / "sentinel", master))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"sentinel://127.0.0.1:{silent.getsockname()[1]};{sentinel.url()}"
        options = {"master_name": sentinel.service}
        with Stopwatch() as watch:
            source = listening(url, transport_options=options)
        assert watch.seconds < 8
        probing(url, transport_options=options).send(b"{}", 10)
        assert collect(source, 1)


def test_old_and_new_names_of_a_sentinel_fleet(listening: Listening, start: Start, tmp_path: Path) -> None:
    """While a fleet upgrades from kombu before 5.4, each event is received once, whoever sent it."""
    master = start(Redis(tmp_path / "redis"))
    sentinel = start(Sentinel(tmp_path / "sentinel", master))
    options = {"master_name": sentinel.service, "sentinel_fanout_compat": True}
    source = listening(sentinel.url(), transport_options=options)
    publish(sentinel.url(), numbered(2), transport_options=options)
    assert [delivery.body for delivery in collect(source, 2)] == numbered(2)
    assert source.poll(0.2) is None
    master.execute("PUBLISH", "/{db}.celeryev/x", '{"body": "old", "properties": {}}')
    assert collect(source, 1)[0].body == b"old"


def test_unix_socket(listening: Listening, start: Start, tmp_path: Path) -> None:
    """A Redis is reached by a Unix socket."""
    server = start(Redis(tmp_path / "redis", options=("--unixsocket", str(tmp_path / "s"))))
    url = f"redis+socket://{tmp_path / 's'}?virtual_host=0"
    wait_until((tmp_path / "s").exists)
    source = listening(url)
    publish(server.url(), numbered(1))
    assert collect(source, 1)


def test_unknown_database(redis_server: Redis) -> None:
    """A missing database is an error within a bounded time."""
    with Stopwatch() as watch:
        _refusal(redis_server.url(99_999))
    assert watch.seconds < 10
