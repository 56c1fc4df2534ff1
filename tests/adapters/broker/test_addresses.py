"""The order in which several broker URLs are tried."""

import socket
from pathlib import Path

import pytest

from celery_monitor.adapters.broker import BrokerProbe, BrokerSource, KnownAddress
from celery_monitor.adapters.broker.addresses import Rotation
from celery_monitor.errors import SourceLostError, TasksRefusedError
from celery_monitor.settings import BrokerSettings
from tests.adapters.broker.conftest import collect, connects, settings
from tests.conftest import Start
from tests.servers import Redis, Stopwatch, wait_until
from tests.servers.ports import free_port

THREE = ["a", "b", "c"]


def test_each_is_tried_once_before_one_is_tried_again() -> None:
    """In turn, while none works."""
    rotation = Rotation(KnownAddress())
    assert "".join(rotation.next(THREE) for _ in range(7)) == "abcabca"


def test_one_that_worked_is_tried_first() -> None:
    """After the loss of a connection on which something arrived; then the others, in turn."""
    rotation = Rotation(KnownAddress())
    assert [rotation.next(THREE) for _ in range(2)] == ["a", "b"]
    rotation.opened()
    rotation.proven()
    assert "".join(rotation.next(THREE) for _ in range(4)) == "bcab"


def test_one_that_takes_connections_and_says_nothing_is_no_dead_end() -> None:
    """The next one is tried as if it had refused."""
    rotation = Rotation(KnownAddress())
    tried = ""
    for _ in range(4):
        tried += rotation.next(THREE)
        rotation.opened()
    assert tried == "abca"


def test_others_begin_with_the_one_that_was_opened() -> None:
    """Even those that have failed with another one meanwhile."""
    known = KnownAddress()
    first, second = Rotation(known), Rotation(known)
    assert second.next(THREE) == "a"
    assert [first.next(THREE) for _ in range(3)] == ["a", "b", "c"]
    first.opened()
    assert [second.next(THREE) for _ in range(3)] == ["c", "b", "c"]


def test_a_shorter_list_has_an_address_too() -> None:
    """The file with the URLs may have changed."""
    rotation = Rotation(KnownAddress())
    for _ in range(3):
        rotation.next(THREE)
    rotation.opened()
    assert [rotation.next(["x"]) for _ in range(3)] == ["x", "x", "x"]


@pytest.mark.parametrize("kind", ["amqp", "redis"])
def test_a_dead_address_is_waited_for_once(kind: str, request: pytest.FixtureRequest) -> None:
    """Neither the probe nor a reopened stream waits for it again after the stream has."""
    url = request.getfixturevalue("rabbitmq_url" if kind == "amqp" else "redis_url")
    known = KnownAddress()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dead = f"{kind}://127.0.0.1:{silent.getsockname()[1]}/"
        source, probe = BrokerSource(settings(f"{dead};{url}"), known), BrokerProbe(settings(f"{dead};{url}"), known)
        with pytest.raises(SourceLostError):
            source.connect()
        with Stopwatch() as watch:
            source.connect()
            probe.send(b"{}", 4)
            assert collect(source, 1)
            source.connect()
        assert watch.seconds < 4
        source.close()
        probe.close()


def test_each_address_has_its_reason(redis_url: str, tmp_path: Path) -> None:
    """Whichever was tried last; without secrets, and not for longer than it is so."""
    dead, file = f"127.0.0.1:{free_port()}", tmp_path / "url"
    refusing = redis_url.replace("redis://", "redis://nobody:hunter2@")
    file.write_text(f"redis://{dead}/0;{refusing}")
    source = BrokerSource(BrokerSettings(url_file=file))
    errors = []
    for _ in range(4):
        with pytest.raises(SourceLostError) as caught:
            source.connect()
        errors.append(caught.value)
    location = redis_url.removeprefix("redis://")
    assert str(errors[0]).startswith(f"{dead}/0: cannot connect to the broker: Connection refused")
    assert location not in str(errors[0])
    for error in errors[1:]:
        first, second = str(error).split(f"; {location}: ")
        assert "Connection refused" in first
        assert "invalid username-password pair" in second
        assert "hunter2" not in str(error)
    assert [error.remedy is not None for error in errors] == [False, True, False, True]
    other = f"127.0.0.1:{free_port()}"
    file.write_text(f"redis://{other}/0;{redis_url}")
    with pytest.raises(SourceLostError, match=f"^{other}/0: [^;]*$"):
        source.connect()
    source.connect()
    source.close()


def test_a_redis_that_has_become_a_replica(start: Start, tmp_path: Path) -> None:
    """It gives the stream what the master is sent; the probe, which it does not serve, goes to the master."""
    replica, master = start(Redis(tmp_path / "replica")), start(Redis(tmp_path / "master"))
    replica.execute("REPLICAOF", "127.0.0.1", str(master.port))
    wait_until(lambda: b"master_link_status:up" in replica.execute("INFO", "replication"), 30)
    both, known = settings(f"{replica.url()};{master.url()}"), KnownAddress()
    source, probe = BrokerSource(both, known), BrokerProbe(both, known)
    source.connect()
    with pytest.raises(TasksRefusedError):
        probe.send(b"{}", 4)
    for _ in range(2):
        probe.send(b"{}", 4)
    assert len(collect(source, 3, timeout=10)) == 3
    source.close()
    probe.close()


def test_both_go_to_the_redis_that_the_stream_reads(start: Start, tmp_path: Path) -> None:
    """Even if the first one is back: a probe sent there would not return."""
    first, second = Redis(tmp_path / "first"), start(Redis(tmp_path / "second"))
    both, known = settings(f"{first.url()};{second.url()}"), KnownAddress()
    source, probe = BrokerSource(both, known), BrokerProbe(both, known)
    wait_until(lambda: connects(source), 20, every=0.01)
    start(first)
    probe.send(b"{}", 4)
    assert collect(source, 1, timeout=10)
    source.close()
    probe.close()
