"""The listening sockets: both families, one of them, names with several addresses."""

import errno
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from celery_monitor.adapters.web.listen import listen
from tests.servers.ports import free_port
from tests.servers.process import require
from tests.servers.waiting import wait_until


def reached(host: str, port: int) -> bool:
    """Whether a server listens there."""
    try:
        socket.create_connection((host, port), timeout=30).close()
    except OSError:
        return False
    return True


@pytest.fixture
def open_sockets() -> ExitStack:
    """Sockets that are closed after the test."""
    return ExitStack()


@pytest.mark.parametrize(
    ("host", "four", "six"),
    [("::", True, True), ("0.0.0.0", True, False), ("::1", False, True), ("127.0.0.1", True, False)],
)
def test_families(host: str, open_sockets: ExitStack, *, four: bool, six: bool) -> None:
    """An address has one family, and :: means both."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with open_sockets:
        (made,) = [open_sockets.enter_context(each) for each in listen(host, 0, 5)]
        port = made.getsockname()[1]
        assert (reached("127.0.0.1", port), reached("::1", port)) == (four, six)


def test_all_addresses_of_a_name(monkeypatch: pytest.MonkeyPatch, open_sockets: ExitStack) -> None:
    """They share the port; an address that the machine does not have is omitted."""
    found: list[tuple[int, int, int, str, tuple[str | int, ...]]] = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with open_sockets:
        made = [open_sockets.enter_context(each) for each in listen("monitor.example.com", 0, 5)]
        assert [each.getsockname()[0] for each in made] == ["::1", "127.0.0.1"]
        assert len({each.getsockname()[1] for each in made}) == 1
    found[:] = found[1:2]
    with pytest.raises(OSError) as raised:
        listen("monitor.example.com", 0, 5)
    assert raised.value.errno == errno.EADDRNOTAVAIL


def test_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch, open_sockets: ExitStack) -> None:
    """:: then means all of IPv4."""
    create = socket.create_server

    def without(address: tuple[str, int], *, family: int = socket.AF_INET, **options: object) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return create(address, family=family, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "create_server", without)
    with open_sockets:
        (made,) = [open_sockets.enter_context(each) for each in listen("::", 0, 5)]
        assert made.family == socket.AF_INET
        assert reached("127.0.0.1", made.getsockname()[1])


def test_a_taken_port_is_an_error(open_sockets: ExitStack) -> None:
    """Also if only one of the families is in use."""
    with open_sockets:
        taken = open_sockets.enter_context(socket.create_server(("127.0.0.1", 0)))
        for host in ("::", "0.0.0.0", "127.0.0.1"):
            with pytest.raises(OSError) as raised:
                listen(host, taken.getsockname()[1], 5)
            assert raised.value.errno == errno.EADDRINUSE


IPV6_ONLY = "ip link set lo up && ip address del 127.0.0.1/8 dev lo"
IPV4_ONLY = "ip link set lo up && sysctl -q -w net.ipv6.conf.all.disable_ipv6=1"


@pytest.mark.parametrize("network", [pytest.param(IPV6_ONLY, id="IPv6 only"), pytest.param(IPV4_ONLY, id="IPv4 only")])
def test_the_daemon_with_one_family(network: str, tmp_path: Path) -> None:
    """With its defaults it listens and passes its health check in a network with one family."""
    inside = [require("unshare"), "--net", "sh", "-c"]
    if subprocess.run([*inside, network], capture_output=True, check=False).returncode != 0:
        pytest.skip("this process may not make networks")
    program = f"{sys.executable} -m celery_monitor"
    log = tmp_path / "log"
    script = (
        f"{network} && exec 2>{log} && {{ {program} run & }} && "
        f"until {program} healthcheck; do kill -0 $! || exit 9; done; kill $!; wait $!"
    )
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CELERY_MONITOR_")},
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "CELERY_MONITOR_BROKER__URL": "memory://",
        "CELERY_MONITOR_WEB__PORT": str(free_port()),
        "CELERY_MONITOR_STORE__URL": f"sqlite:///{tmp_path / 'store.db'}",
    }
    daemon = subprocess.Popen([*inside, script], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: daemon.poll() is not None, 120, what="the daemon's answer and end")
    finally:
        daemon.kill()
        output = daemon.communicate()[0]
    assert daemon.returncode == 0, log.read_text()
    assert "ok: threads: ok" in output


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::"])
def test_answers_are_sent_at_once(host: str) -> None:
    """The body is sent without waiting for the client's acknowledgement of the headers."""
    for each in listen(host, 0, 1):
        with each:
            assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            family = "127.0.0.1" if each.family == socket.AF_INET else "::1"
            with socket.create_connection((family, each.getsockname()[1])):
                accepted, _ = each.accept()
                with accepted:
                    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
