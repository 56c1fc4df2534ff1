"""Refusals by Redis and Sentinel are reported with a remedy."""

import socket
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from celery_monitor.adapters.broker import BrokerSource
from celery_monitor.adapters.broker.control import RemoteControl
from celery_monitor.errors import SourceLostError
from tests.adapters.broker.conftest import Listening, settings
from tests.conftest import Start
from tests.servers import Redis, Sentinel
from tests.servers.certificate import Certificate, make_certificate

MAIN = {"master_name": "main"}


def refusal(url: str, **fields: Any) -> SourceLostError:
    """The error of opening the stream."""
    with closing(BrokerSource(settings(url, **fields))) as source, pytest.raises(SourceLostError) as caught:
        source.connect()
    assert "s3cret" not in str(caught.value)
    return caught.value


def question(url: str) -> SourceLostError:
    """The error of querying the workers."""
    with closing(RemoteControl(settings(url))) as control, pytest.raises(SourceLostError) as caught:
        control.ask(("ping",), 0.1, lambda *_: None)
    return caught.value


def test_password_of_the_sentinels(listening: Listening, start: Start, tmp_path: Path) -> None:
    """They have their own password in sentinel_kwargs: it is missing or wrong."""
    master = start(Redis(tmp_path / "redis", password="s3cret"))
    sentinel = start(Sentinel(tmp_path / "sentinel", master, config=["requirepass s3cret-too"]))
    for own in ({}, {"password": "wrong"}):
        error = refusal(sentinel.url(), transport_options={**MAIN, "sentinel_kwargs": own})
        assert "a sentinel refuses the password" in str(error)
        assert "sentinel_kwargs" in (error.remedy or "")
    own = {"password": "s3cret-too"}
    error = refusal(sentinel.url().replace("s3cret", "wrong"), transport_options={**MAIN, "sentinel_kwargs": own})
    assert "user and password in broker.url" in (error.remedy or "")
    listening(sentinel.url(), transport_options={**MAIN, "sentinel_kwargs": own})


def test_user_of_the_sentinels(listening: Listening, start: Start, tmp_path: Path) -> None:
    """Missing permissions of the user in sentinel_kwargs are reported for the Sentinels."""
    master = start(Redis(tmp_path / "redis"))
    sentinel = start(Sentinel(tmp_path / "sentinel", master, config=["user monitor on >pw allchannels -@all +ping"]))
    options = {**MAIN, "sentinel_kwargs": {"username": "monitor", "password": "pw"}}
    remedy = refusal(sentinel.url(), transport_options=options).remedy or ""
    assert "on each sentinel" in remedy
    rules = remedy.split("NAME ")[1].split()
    with socket.create_connection(("127.0.0.1", sentinel.port)) as connection:
        connection.sendall(f"ACL SETUSER monitor {' '.join(rules)}\r\n".encode())
        assert connection.recv(100).startswith(b"+OK")
    listening(sentinel.url(), transport_options=options)


def test_sentinels_with_tls(listening: Listening, start: Start, tmp_path: Path, certificate: Certificate) -> None:
    """broker.use_ssl applies to the master: the error names the options of the Sentinels."""
    master = start(Redis(tmp_path / "redis"))
    sentinel = start(Sentinel(tmp_path / "sentinel", master, certificate=certificate))
    trusted = {"ssl": True, "ssl_ca_certs": str(certificate.certificate)}
    for own in ({}, {"ssl": True}):
        error = refusal(sentinel.url(), transport_options={**MAIN, "sentinel_kwargs": own})
        assert "ssl: true and ssl_ca_certs in broker.transport_options.sentinel_kwargs" in (error.remedy or "")
    listening(sentinel.url(), transport_options={**MAIN, "sentinel_kwargs": trusted})
    error = refusal(sentinel.url(), transport_options={"master_name": "nobody", "sentinel_kwargs": trusted})
    assert "no sentinel knows the master" in str(error)
    assert "ssl" not in str(error)


def test_client_certificate(listening: Listening, start: Start, tmp_path: Path, certificate: Certificate) -> None:
    """Redis requires one by default: the error says how to set it, and what is wrong with its files."""
    server = start(Redis(tmp_path / "redis", certificate=certificate, options=("--tls-auth-clients", "yes")))
    trusted = {"ssl_ca_certs": str(certificate.certificate)}
    assert "requires a client certificate" in str(refusal(server.tls_url(), use_ssl=trusted))
    own = {"ssl_certfile": str(certificate.certificate), "ssl_keyfile": str(certificate.key)}
    listening(server.tls_url(), use_ssl=trusted | own)
    stranger = make_certificate(tmp_path / "stranger")
    error = refusal(server.tls_url(), use_ssl=trusted | own | {"ssl_keyfile": str(stranger.key)})
    assert "KEY_VALUES_MISMATCH: check broker.use_ssl" in str(error)
    other = {"ssl_certfile": str(stranger.certificate), "ssl_keyfile": str(stranger.key)}
    assert "client certificate" in str(refusal(server.tls_url(), use_ssl=trusted | other))


def test_an_old_version_of_tls(start: Start, tmp_path: Path, certificate: Certificate) -> None:
    """The port does use TLS: the advice does not say otherwise."""
    old = ("--tls-protocols", "TLSv1.1", "--tls-ciphers", "ALL:@SECLEVEL=0")
    server = start(Redis(tmp_path / "redis", certificate=certificate, options=old))
    error = refusal(server.tls_url(), use_ssl={"ssl_ca_certs": str(certificate.certificate)})
    assert "TLS 1.2 or later" in (error.remedy or "")
    assert "if and only if" not in str(error)


def test_cluster_mode(start: Start, tmp_path: Path) -> None:
    """Celery cannot use a node of a Redis Cluster, whatever it refuses first."""
    server = start(Redis(tmp_path / "redis", options=("--cluster-enabled", "yes")))
    assert "Redis Cluster" in (refusal(server.url(1)).remedy or "")
    assert "Redis Cluster" in (question(server.url()).remedy or "")


def test_too_many_clients(start: Start, tmp_path: Path) -> None:
    """It may be temporary: a hint, and no remedy."""
    server = start(Redis(tmp_path / "redis"))
    server.execute("CONFIG", "SET", "maxclients", "2")
    with ExitStack() as clients:
        for _ in range(2):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            client.sendall(b"PING\r\n")
            assert client.recv(100)
        error = refusal(server.url())
    assert "maxclients" in str(error)
    assert "protocol" not in str(error)
    assert error.remedy is None


@pytest.mark.parametrize("command", ["PSUBSCRIBE", "EVAL"])
def test_a_command_that_is_disabled(start: Start, tmp_path: Path, command: str) -> None:
    """The error names the command without its arguments."""
    server = start(Redis(tmp_path / "redis", options=("--rename-command", command, "")))
    error = refusal(server.url()) if command == "PSUBSCRIBE" else question(server.url())
    assert f"unknown command '{command}'" in str(error)
    assert "with args" not in str(error)
    assert "enable this command" in (error.remedy or "")


def test_a_user_whose_scripts_may_not_write(start: Start, tmp_path: Path) -> None:
    """A refusal in a script is reported like any other, and the remedy is enough."""
    server = start(Redis(tmp_path / "redis"))
    server.execute("ACL", "SETUSER", "u", "on", ">pw", *["~*", "&*", "+@all", "-@write"])
    url = server.url().replace("redis://", "redis://u:pw@")
    error = question(url)
    assert "ACL SETUSER" in (error.remedy or "")
    server.execute("ACL", "SETUSER", "u", *(error.remedy or "").split("NAME ")[1].split())
    with closing(RemoteControl(settings(url))) as control:
        control.ask(("ping",), 0.1, lambda *_: None)
