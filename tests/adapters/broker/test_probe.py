"""The probe."""

import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from amqp.exceptions import MessageNacked
from kombu import Connection, Exchange, Queue

from celery_monitor.adapters.broker import BrokerProbe
from celery_monitor.errors import SourceLostError, TasksRefusedError
from tests.adapters.broker.conftest import Listening, Probing, collect
from tests.conftest import Start
from tests.servers import RabbitMQ, Redis, Stopwatch, TcpProxy, wait_until

WAIT_SECONDS = 20.0
"""Seconds for a broker that answers: the machine may stall."""


@pytest.mark.parametrize("kind", ["rabbitmq", "redis", "memory"])
def test_round_trip(kind: str, listening: Listening, probing: Probing, request: pytest.FixtureRequest) -> None:
    """A sent probe returns on the stream, as JSON."""
    url = "memory://" if kind == "memory" else request.getfixturevalue(f"{kind}_url")
    source, probe = listening(url), probing(url)
    for number in range(3):
        body = b'{"type": "monitor-probe", "n": %d}' % number
        probe.send(body, WAIT_SECONDS)
        [delivery] = collect(source, 1)
        assert (delivery.body, delivery.content_type) == (body, "application/json")


def test_paused_broker(breakable_broker: RabbitMQ | Redis, listening: Listening, probing: Probing) -> None:
    """With a suspended broker, a probe fails within its timeout, with and without a connection, and closes quickly."""
    server = breakable_broker
    listening(server.url()).close()
    probe = probing(server.url())
    wait_until(lambda: _sent(probe, 1), 60)  # Redis has the timeout of the probe that connected
    server.pause()
    for _ in range(2):
        with Stopwatch() as watch, pytest.raises(SourceLostError, match="does not answer"):
            probe.send(b"{}", 1)
        assert watch.seconds < 2
    server.resume()
    wait_until(lambda: _sent(probe, 2), 60)
    server.pause()
    with Stopwatch() as watch:
        probe.close()
    assert watch.seconds < 0.5
    server.resume()


def test_killed_broker(breakable_broker: RabbitMQ | Redis, listening: Listening, probing: Probing) -> None:
    """After a restart of the broker, the next probe reconnects."""
    server = breakable_broker
    listening(server.url()).close()
    probe = probing(server.url())
    probe.send(b"{}", WAIT_SECONDS)
    server.kill()
    with pytest.raises(SourceLostError):
        probe.send(b"{}", 2)
    server.start()
    probe.send(b"{}", WAIT_SECONDS)


def _sent(probe: BrokerProbe, timeout: float) -> bool:
    try:
        probe.send(b"{}", timeout)
    except SourceLostError:
        return False
    return True


def test_no_permission_to_publish(
    rabbitmq: RabbitMQ, rabbitmq_url: str, listening: Listening, probing: Probing
) -> None:
    """The error names the permission to grant."""
    listening(rabbitmq_url)
    vhost = urlsplit(rabbitmq_url).path.removeprefix("/")
    url = rabbitmq.add_user("silent", "pw", vhost, configure=".*", write="^celery-monitor$", read=".*")
    with pytest.raises(SourceLostError, match="celeryev") as caught:
        probing(url).send(b"{}", WAIT_SECONDS)
    assert caught.value.remedy is not None
    assert "set_permissions" in caught.value.remedy


def test_alarm(breakable_rabbitmq: RabbitMQ, listening: Listening, probing: Probing) -> None:
    """A broker that blocks publishing because of an alarm is reported with a remedy."""
    server = breakable_rabbitmq
    listening(server.url()).close()
    probe = probing(server.url())
    server.eval("vm_memory_monitor:set_vm_memory_high_watermark(0.000001)")
    try:
        wait_until(lambda: "memory" in server.eval("rabbit_alarm:get_alarms()"), 60)
        with pytest.raises(SourceLostError, match="alarm"):
            probe.send(b"{}", 4)
        late = threading.Timer(1.0, server.eval, ["vm_memory_monitor:set_vm_memory_high_watermark(0.4)"])
        late.start()
        probe.send(b"{}", 60)  # is blocked until the alarm ends
        late.join()
    finally:
        server.eval("vm_memory_monitor:set_vm_memory_high_watermark(0.4)")
    server.close_connections()
    with pytest.raises(SourceLostError) as caught:
        probe.send(b"{}", 20)
    assert "alarm" not in str(caught.value)
    wait_until(lambda: _sent(probe, 2), 60)


def test_a_full_queue_of_somebody_else(rabbitmq_url: str, listening: Listening, probing: Probing) -> None:
    """A queue that rejects messages makes RabbitMQ refuse the probe, which still returns."""
    source, probe = listening(rabbitmq_url), probing(rabbitmq_url)
    with Connection(rabbitmq_url, transport_options={"confirm_publish": True}) as connection:
        channel = connection.default_channel
        full = {"x-max-length": 1, "x-overflow": "reject-publish"}
        events = Exchange("celeryev", "topic", passive=True)
        Queue("archive", events, routing_key="#", queue_arguments=full)(channel).declare()
        producer = connection.Producer(channel)
        producer.publish(b"{}", "x", exchange="celeryev")
        with pytest.raises(MessageNacked):
            producer.publish(b"{}", "x", exchange="celeryev")
    collect(source, 2)
    for number in range(3):
        probe.send(b'{"n": %d}' % number, WAIT_SECONDS)
    assert [delivery.body for delivery in collect(source, 3)] == [b'{"n": %d}' % number for number in range(3)]


def test_another_redis_behind_the_same_name(probing: Probing, start: Start, tmp_path: Path) -> None:
    """After a failover, the connection to the new replica is closed, because the name resolves to another server."""
    former, master = start(Redis(tmp_path / "former")), start(Redis(tmp_path / "master"))
    with TcpProxy(former.port) as name:
        probe = probing(former.url().replace(str(former.port), str(name.port)))
        probe.send(b"{}", 5)
        former.execute("REPLICAOF", "127.0.0.1", str(master.port))
        name.target_port = master.port
        with pytest.raises(TasksRefusedError, match="replica"):
            probe.send(b"{}", 5)
        probe.send(b"{}", 5)


def test_a_redis_that_takes_no_tasks(probing: Probing, start: Start, tmp_path: Path) -> None:
    """A full Redis and a replica still publish events; that the fleet cannot send tasks is reported."""
    server = start(Redis(tmp_path / "redis"))
    probe = probing(server.url())
    probe.send(b"{}", 5)
    for cause, cure, word in (
        ([("CONFIG", "SET", "maxmemory", "1")], [("CONFIG", "SET", "maxmemory", "0")], "maxmemory"),
        ([("REPLICAOF", "127.0.0.1", "1")], [("REPLICAOF", "NO", "ONE")], "replica"),
        (
            [("CONFIG", "SET", "min-replicas-to-write", "1")],
            [("CONFIG", "SET", "min-replicas-to-write", "0")],
            "NOREPL",
        ),
    ):
        for command in cause:
            server.execute(*command)
        with pytest.raises(TasksRefusedError, match=word) as caught:
            probe.send(b"{}", 5)
        assert "the fleet cannot send tasks" in str(caught.value)
        assert caught.value.remedy is None  # the probe was sent: silence still means something
        for command in cure:
            server.execute(*command)
        probe.send(b"{}", 5)
    assert b"never-exists" not in server.execute("KEYS", "*")
