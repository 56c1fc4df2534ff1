"""Problems between the monitor and its broker are reported with a remedy."""

import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from celery_monitor.adapters.broker import BrokerSource
from celery_monitor.adapters.broker.diagnostics import BrokerDiagnostics
from celery_monitor.adapters.broker.faults import Boundary, lost
from celery_monitor.adapters.broker.listener import Listener
from celery_monitor.errors import SourceLostError
from celery_monitor.settings.broker import BrokerSettings
from tests.conftest import Start
from tests.servers import Redis
from tests.servers.ports import free_port

PROTOCOL = "use amqp:// for RabbitMQ or redis:// for Redis in broker.url, and amqps:// or rediss:// (or"
SCHEMES = ["amqp", "redis"]


def refusal(url: str, what: type[BrokerDiagnostics | BrokerSource | Listener] = BrokerDiagnostics) -> SourceLostError:
    """The error of connecting to the broker."""
    with closing(what(BrokerSettings.model_validate({"url": url}))) as party, pytest.raises(SourceLostError) as caught:
        party.connect()
    return caught.value


@contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """A port that answers this to each client that sends something, and closes."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.mark.parametrize("what", [BrokerDiagnostics, BrokerSource, Listener])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_listens(scheme: str, what: type[BrokerDiagnostics | BrokerSource | Listener]) -> None:
    """A refused connection has a hint, and is retried at the usual rate, because it may be temporary."""
    error = refusal(f"{scheme}://127.0.0.1:{free_port()}/", what)
    assert "Connection refused: nothing is listening there, or a firewall rejects the connection" in str(error)
    assert "host and port in broker.url" in str(error)
    assert "111" not in str(error)
    assert error.remedy is None


@pytest.mark.parametrize("scheme", SCHEMES)
def test_unknown_host(scheme: str) -> None:
    """Somebody has to correct a name that cannot be resolved."""
    assert "cannot be resolved: check host and port in broker.url" in (
        refusal(f"{scheme}://nohost.invalid/").remedy or ""
    )


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 mail.example.com ESMTP\r\n"])
def test_something_else_listens(scheme: str, reply: bytes) -> None:
    """For a port that speaks another protocol or closes, the error names the protocols."""
    with answering(reply) as port:
        assert PROTOCOL in str(refusal(f"{scheme}://127.0.0.1:{port}/"))


@pytest.mark.parametrize("scheme", ["rediss", "amqp", "amqps"])
def test_another_kind_of_broker(scheme: str, start: Start, tmp_path: Path) -> None:
    """Redis without TLS, reached with TLS or AMQP, waits for more: the hint names the protocols."""
    server = start(Redis(tmp_path / "redis"))
    error = refusal(f"{scheme}://127.0.0.1:{server.port}/")
    assert "the broker does not answer: the server hangs, a firewall drops packets, or the port uses another" in str(
        error
    )
    assert PROTOCOL in str(error)


@pytest.mark.parametrize(
    "raised", [zlib.error("x"), MemoryError(), StopIteration(), RuntimeError("amqp://u:pw@host"), LookupError()]
)
def test_whatever_is_raised(raised: Exception) -> None:
    """Any exception of a library becomes the documented one, with its cause and without its text."""
    with (
        pytest.raises(SourceLostError, match=r"^reading: [A-Za-z]+$") as caught,
        Boundary(partial(lost, doing="reading")),
    ):
        raise raised
    assert caught.value.__cause__ is raised
    assert type(raised).__name__ in str(caught.value)


@pytest.mark.parametrize("raised", [SourceLostError("ours"), KeyboardInterrupt(), SystemExit()])
def test_what_passes(raised: BaseException) -> None:
    """This program's own errors pass the boundary unchanged, and so do those that end a process."""
    with pytest.raises(type(raised)) as caught, Boundary(partial(lost, doing="reading")):
        raise raised
    assert caught.value is raised
