"""The event stream on RabbitMQ."""

import shlex
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from kombu import Connection

from celery_monitor.adapters.broker import BrokerSource
from celery_monitor.errors import SourceLostError
from tests.adapters.broker.conftest import Listening, collect, connects, poll_for, settings
from tests.adapters.broker.publisher import numbered, publish
from tests.servers import RabbitMQ, Stopwatch, wait_until
from tests.servers.certificate import Certificate, make_certificate

QUEUE = "celery-monitor"


def _vhost(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


def _refusal(url: str, **fields: object) -> SourceLostError:
    source = BrokerSource(settings(url, **fields))
    with pytest.raises(SourceLostError) as caught:
        source.connect()
    return caught.value


def test_unacknowledged_come_again(rabbitmq_url: str, listening: Listening) -> None:
    """Unacknowledged messages are redelivered with the flag after a lost connection; acknowledged ones are not."""
    source = listening(rabbitmq_url)
    assert source.acknowledges
    publish(rabbitmq_url, numbered(10))
    first = collect(source, 10, ack=False)
    assert not any(delivery.redelivered for delivery in first)
    source.ack(6)
    source.abandon()
    source.connect()
    again = collect(source, 4)
    assert [delivery.body for delivery in again] == numbered(4, first=6)
    assert all(delivery.redelivered for delivery in again)


def test_closing_gives_back(rabbitmq_url: str, listening: Listening) -> None:
    """An orderly close returns unacknowledged messages, and keeps acknowledgements from just before."""
    source = listening(rabbitmq_url)
    publish(rabbitmq_url, numbered(5))
    collect(source, 5, ack=False)
    source.ack(3)
    source.close()
    source.connect()
    assert [delivery.body for delivery in collect(source, 2)] == numbered(2, first=3)


def test_prefetch_bounds_what_is_unacknowledged(rabbitmq_url: str, listening: Listening) -> None:
    """Without acknowledgements, no more than the prefetch is delivered."""
    source = listening(rabbitmq_url, prefetch=100)
    publish(rabbitmq_url, numbered(300))
    assert len(collect(source, 100, ack=False)) == 100
    assert source.poll(0.3) is None
    source.ack(50)
    assert len(collect(source, 50, ack=False)) == 50


def test_absence_loses_nothing(rabbitmq_url: str, listening: Listening) -> None:
    """Events sent while the monitor is down wait in its queue."""
    source = listening(rabbitmq_url)
    source.close()
    publish(rabbitmq_url, numbered(100))
    source.connect()
    assert [delivery.body for delivery in collect(source, 100)] == numbered(100)


def test_the_queue_is_bounded(rabbitmq: RabbitMQ, rabbitmq_url: str, listening: Listening) -> None:
    """While nobody reads, new events replace the oldest."""
    source = listening(rabbitmq_url, queue={"max_bytes": "100KiB"})
    source.close()
    publish(rabbitmq_url, [b"%05d" % number + b"x" * 995 for number in range(300)])
    assert rabbitmq.queues(_vhost(rabbitmq_url))[QUEUE] <= 102
    source.connect()
    found = collect(source, 95)
    while not found[-1].body.startswith(b"00299"):  # they come in several batches
        found += collect(source, 1)
    assert len(found) <= 102


def test_a_policy_for_all_queues(rabbitmq: RabbitMQ, rabbitmq_url: str, listening: Listening) -> None:
    """It never makes the monitor's queue refuse the fleet's events: the oldest are dropped, as without the policy."""
    rabbitmq.set_policy(rabbitmq_url, ".*", {"max-length": 50, "overflow": "reject-publish", "expires": 600_000})
    rabbitmq.set_policy(rabbitmq_url, ".*", {"max-length": 20, "message-ttl": 600_000}, operator=True)
    source = listening(rabbitmq_url)
    source.close()
    # With confirm_publish, kombu raises an error if the broker rejects a message.
    publish(rabbitmq_url, numbered(100), transport_options={"confirm_publish": True})
    source.connect()
    assert [delivery.body for delivery in collect(source, 20)] == numbered(20, first=80)


def test_the_queue_expires(rabbitmq: RabbitMQ, rabbitmq_url: str, listening: Listening) -> None:
    """A monitor that was removed leaves no queue behind."""
    listening(rabbitmq_url, queue={"expires": "3s"}).close()
    wait_until(lambda: QUEUE not in rabbitmq.queues(_vhost(rabbitmq_url)), 60)


def test_heartbeats_on_a_busy_stream(rabbitmq_url: str, listening: Listening) -> None:
    """On a busy stream heartbeats are still sent: the broker does not close the connection."""
    source = listening(rabbitmq_url, heartbeat="2s")
    until = time.monotonic() + 10

    def send() -> None:
        with Connection(rabbitmq_url) as connection:
            producer = connection.Producer(connection.default_channel)
            while time.monotonic() < until:
                producer.publish(
                    b"{}", "x", exchange="celeryev", content_type="application/json", content_encoding="utf-8"
                )
                time.sleep(0.002)

    sender = threading.Thread(target=send)
    sender.start()
    received = 0
    while time.monotonic() < until:
        batch = source.poll(0.5)  # and no ack: nothing but heartbeats is written
        received += len(batch.deliveries) if batch else 0
    sender.join()
    assert received > 1000


def test_quorum_queue_survives_the_broker(breakable_rabbitmq: RabbitMQ, listening: Listening) -> None:
    """In a quorum queue, events survive a kill -9 of the broker, including delivered ones."""
    server = breakable_rabbitmq
    source = listening(server.url(), queue={"type": "quorum"})
    # Confirmed: what a broker has not written yet need not outlive it.
    publish(server.url(), numbered(50), transport_options={"confirm_publish": True})
    collect(source, 20, ack=False)
    # RabbitMQ writes its list of quorum queues to disk some seconds late: a queue younger than that does not come back.
    server.eval("[dets:sync(Table) || Table <- dets:all()]")
    server.kill()
    source.abandon()
    server.start()
    wait_until(lambda: connects(source), 60)
    found = collect(source, 50)
    assert sorted({delivery.body for delivery in found}) == sorted(numbered(50))


def test_quorum_queue_delivers_again_without_limit(rabbitmq_url: str, listening: Listening) -> None:
    """A message that was returned many times is still delivered."""
    source = listening(rabbitmq_url, queue={"type": "quorum"})
    publish(rabbitmq_url, numbered(1))
    for _ in range(25):
        assert collect(source, 1, ack=False)
        source.abandon()
        source.connect()
    assert collect(source, 1)[0].redelivered


def test_durable_queue_survives_a_restart(breakable_rabbitmq: RabbitMQ, listening: Listening) -> None:
    """The classic queue and its binding exist after a restart of the broker."""
    server = breakable_rabbitmq
    listening(server.url()).close()
    server.restart()
    assert QUEUE in server.queues()
    publish(server.url(), numbered(1))
    wait_until(lambda: server.queues()[QUEUE] == 1)


def test_deleted_queue(rabbitmq: RabbitMQ, rabbitmq_url: str, listening: Listening) -> None:
    """Deleting a queue in use ends the stream; connecting creates it again."""
    source = listening(rabbitmq_url)
    rabbitmq.delete_queue(QUEUE, _vhost(rabbitmq_url))
    with pytest.raises(SourceLostError, match="queue deleted"):
        poll_for(source)
    source.connect()
    publish(rabbitmq_url, numbered(1))
    assert collect(source, 1)


def test_a_new_queue_is_reported(rabbitmq: RabbitMQ, rabbitmq_url: str, listening: Listening) -> None:
    """At the first connection, and after the queue was deleted or has expired; not if the queue existed."""
    source = listening(rabbitmq_url)
    created = [source.queue_created]
    source.connect()
    created.append(source.queue_created)
    rabbitmq.delete_queue(QUEUE, _vhost(rabbitmq_url))
    with pytest.raises(SourceLostError):
        poll_for(source)
    source.connect()
    created.append(source.queue_created)
    assert created == [True, False, True]


def test_a_new_queue_is_reported_if_the_attempt_that_created_it_failed(rabbitmq: RabbitMQ, rabbitmq_url: str) -> None:
    """It is reported by the next connection, and only by that one."""
    vhost = _vhost(rabbitmq_url)
    publish(rabbitmq_url, numbered(1))  # declares the exchange
    url = rabbitmq.add_user("forgotten", "pw", vhost, configure=".*", write=".*", read="^celery-monitor$")
    source = BrokerSource(settings(url))
    with pytest.raises(SourceLostError, match="bind the queue"):
        source.connect()
    assert QUEUE in rabbitmq.queues(vhost)
    rabbitmq.add_user("forgotten", "pw", vhost, configure=".*", write=".*", read=".*")
    created = []
    for _ in range(2):
        source.connect()
        created.append(source.queue_created)
    source.close()
    assert created == [True, False]


def test_connecting_is_bounded_in_all(rabbitmq: RabbitMQ, rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that sends heartbeats but no answer does not block connect."""
    monkeypatch.setattr("amqp.Channel.basic_consume", lambda channel, *_, **__: channel.wait((60, 21)))
    source = BrokerSource(settings(rabbitmq_url, heartbeat="4s"))
    with Stopwatch() as watch, pytest.raises(SourceLostError, match="does not answer"):
        source.connect()
    assert watch.seconds < 7


def test_connection_closed_by_the_broker(breakable_rabbitmq: RabbitMQ, listening: Listening) -> None:
    """The broker's reason is reported."""
    server = breakable_rabbitmq
    source = listening(server.url())
    wait_until(server.close_connections)
    with pytest.raises(SourceLostError, match="closed by the test"):
        poll_for(source)
    source.connect()


# --- every refusal says what to do


def test_wrong_password(rabbitmq: RabbitMQ) -> None:
    """For a refused login, the error names user and password."""
    error = _refusal(rabbitmq.url().replace("guest:guest", "guest:wrong"))
    assert "ACCESS_REFUSED" in str(error)
    assert "user and password" in (error.remedy or "")


def test_unknown_vhost(rabbitmq: RabbitMQ) -> None:
    """A missing virtual host is reported, with how to create it."""
    error = _refusal(rabbitmq.url("nowhere"))
    assert "nowhere" in str(error)
    assert "add_vhost" in (error.remedy or "")


def test_forbidden_vhost(rabbitmq: RabbitMQ, rabbitmq_url: str) -> None:
    """A virtual host without access is reported, with how to grant it."""
    stranger = rabbitmq.add_user("stranger", "pw", "/", configure=".*", write=".*", read=".*")
    error = _refusal(f"{stranger.rstrip('/')}/{_vhost(rabbitmq_url)}")
    assert "set_permissions" in (error.remedy or "")


@pytest.mark.parametrize("limit", ["max-connections", "max-queues"])
def test_limit_of_the_vhost(rabbitmq: RabbitMQ, rabbitmq_url: str, limit: str) -> None:
    """A reached limit may be temporary: the hint names limits, and not another queue or permissions."""
    rabbitmq.limit(rabbitmq_url, limit, 0)
    error = _refusal(rabbitmq_url)
    assert "is reached" in str(error)
    assert "set_vhost_limits" in str(error)
    assert not any(word in str(error) for word in ("set_permissions", "delete_queue", "add_vhost"))
    assert error.remedy is None
    rabbitmq.limit(rabbitmq_url, limit, 20)
    source = BrokerSource(settings(rabbitmq_url))
    source.connect()
    source.close()


def test_remedies_can_be_pasted(rabbitmq: RabbitMQ, listening: Listening) -> None:
    """Shell characters in a virtual host are quoted in the commands."""
    url = rabbitmq.new_vhost("it's a/vhost")
    listening(url).close()
    reader = rabbitmq.add_user("reader", "pw", "it's a/vhost", configure="^$", write="^$", read=".*")
    for error in (_refusal(reader), _refusal(url, queue={"max_bytes": "1MiB"})):
        command = (error.remedy or "").partition("rabbitmqctl ")[2].partition("),")[0]
        assert shlex.split(command)[1:3] == ["-p", "it's a/vhost"]
    rabbitmq.delete_vhost(url)


def test_no_permission_to_declare(rabbitmq: RabbitMQ, rabbitmq_url: str) -> None:
    """Without permission to declare the queue, the remedy names the patterns, which work."""
    vhost = _vhost(rabbitmq_url)
    publish(rabbitmq_url, numbered(1))
    url = rabbitmq.add_user("reader", "pw", vhost, configure="^$", write="^$", read=".*")
    error = _refusal(url)
    assert "declare the queue" in str(error)
    assert error.remedy is not None
    assert f"rabbitmqctl set_permissions -p {vhost} reader '^(celery-monitor|celeryev|" in error.remedy
    configure, write, read = error.remedy.split(" reader ")[1].replace("'", "").split()
    rabbitmq.add_user("granted", "pw", vhost, configure=configure, write=write, read=read)
    source = BrokerSource(settings(url.replace("reader", "granted")))
    source.connect()
    source.close()


def test_exchange_cannot_be_declared(rabbitmq: RabbitMQ, rabbitmq_url: str) -> None:
    """The error says that the fleet has not declared its exchange, and that the monitor may not."""
    url = rabbitmq.add_user(
        "noexchange", "pw", _vhost(rabbitmq_url), configure="^celery-monitor$", write=".*", read=".*"
    )
    assert "declare the exchange" in str(_refusal(url))


def test_queue_made_by_an_administrator(rabbitmq: RabbitMQ, rabbitmq_url: str, listening: Listening) -> None:
    """An existing queue requires no permission to declare."""
    listening(rabbitmq_url).close()
    vhost = _vhost(rabbitmq_url)
    url = rabbitmq.add_user("bound", "pw", vhost, configure="^$", write="^celery-monitor$", read=".*")
    source = listening(url)
    publish(rabbitmq_url, numbered(1))
    assert collect(source, 1)
    source.close()
    reader = rabbitmq.add_user("unbound", "pw", vhost, configure="^$", write="^$", read=".*")
    assert "bind the queue" in str(_refusal(reader))


def test_queue_cannot_be_read(rabbitmq: RabbitMQ, rabbitmq_url: str) -> None:
    """The error names the missing permission to read."""
    publish(rabbitmq_url, numbered(1))
    url = rabbitmq.add_user("writer", "pw", _vhost(rabbitmq_url), configure=".*", write=".*", read="^celeryev$")
    assert "cannot consume" in str(_refusal(url))


@pytest.mark.parametrize("change", [{"max_bytes": "1MiB"}, {"type": "quorum"}, {"expires": "1h"}])
def test_queue_declared_differently(rabbitmq_url: str, listening: Listening, change: dict[str, str]) -> None:
    """A queue with other arguments is unchanged; the remedy is to delete it or to use another name."""
    listening(rabbitmq_url).close()
    error = _refusal(rabbitmq_url, queue=change)
    assert "already exists with different arguments" in str(error)
    assert f"rabbitmqctl delete_queue -p {_vhost(rabbitmq_url)} celery-monitor" in (error.remedy or "")
    assert "broker.queue.name" in (error.remedy or "")


def test_second_monitor_on_one_queue(rabbitmq_url: str, listening: Listening) -> None:
    """A second monitor is refused, because it would take half of the events."""
    first = listening(rabbitmq_url)
    error = _refusal(rabbitmq_url)
    assert "another monitor" in (error.remedy or "")
    assert "broker.queue.name" in (error.remedy or "")
    second = listening(rabbitmq_url, queue={"name": "second"})
    publish(rabbitmq_url, numbered(3))
    assert collect(first, 3)
    assert collect(second, 3)


def test_second_monitor_on_a_quorum_queue(rabbitmq: RabbitMQ, rabbitmq_url: str, listening: Listening) -> None:
    """It receives nothing, gives the reason, and takes over with unacknowledged messages when the first one ends."""
    first = listening(rabbitmq_url, queue={"type": "quorum"})
    second = listening(rabbitmq_url, queue={"type": "quorum"})
    assert (first.standby, "another monitor" in str(second.standby)) == (None, True)
    publish(rabbitmq_url, numbered(50))
    assert [delivery.body for delivery in collect(first, 50, ack=False)] == numbered(50)
    assert second.poll(0.2) is None
    first.abandon()
    assert [delivery.body for delivery in collect(second, 50)] == numbered(50)
    first.connect()
    assert ("another monitor" in str(first.standby), second.standby) == (True, None)
    second.close()
    first.close()
    # Who was cut off a moment ago is not in the way of the next one.
    first.connect()
    first.abandon()
    second.connect()
    assert (first.standby, second.standby) == (None, None)
    second.close()
    vhost = _vhost(rabbitmq_url)
    rabbitmq.delete_queue(QUEUE, vhost)
    with Connection(rabbitmq_url) as connection:
        connection.default_channel.queue_declare(
            QUEUE, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"}
        )
    assert "delete_queue" in (_refusal(rabbitmq_url, queue={"type": "quorum"}).remedy or "")
    url = rabbitmq.add_user("shared", "pw", vhost, configure="^$", write="^celery-monitor$", read=".*")
    listening(url, queue={"type": "quorum"})
    assert "another monitor" in (_refusal(url, queue={"type": "quorum"}).remedy or "")


def test_exchange_of_the_fleet_is_taken_as_it_is(rabbitmq_url: str, listening: Listening) -> None:
    """An exchange with other properties than Celery's is used unchanged."""
    with Connection(rabbitmq_url) as connection:
        connection.default_channel.exchange_declare("events", "fanout", durable=False, auto_delete=False)
        source = listening(rabbitmq_url, exchange="events")
        producer = connection.Producer(connection.default_channel)
        producer.publish(b"{}", "x", exchange="events", content_type="application/json", content_encoding="utf-8")
    assert collect(source, 1)


def test_not_amqp(redis_server: object, listening: Listening, request: pytest.FixtureRequest) -> None:
    """A port with another protocol is an error within a bounded time."""
    port = request.getfixturevalue("redis_server").port
    with Stopwatch() as watch:
        _refusal(f"amqp://guest:guest@127.0.0.1:{port}//")
    assert watch.seconds < 10


# --- TLS and failover


def test_tls(breakable_rabbitmq: RabbitMQ, listening: Listening, tmp_path: Path, certificate: Certificate) -> None:
    """TLS options accept the constants of YAML, the certificate is verified, and problems are reported."""
    server = breakable_rabbitmq
    options = {"ca_certs": str(certificate.certificate), "cert_reqs": "CERT_REQUIRED", "server_hostname": "localhost"}
    source = listening(server.tls_url(), use_ssl=options)
    bodies = [*numbered(2000), b"x" * 300_000]
    sender = threading.Thread(target=publish, args=(server.url(), bodies))
    sender.start()
    assert [delivery.body for delivery in collect(source, len(bodies))] == bodies
    sender.join()
    thread = threading.Timer(0.2, source.abandon)
    thread.start()
    with pytest.raises(SourceLostError):
        poll_for(source)
    thread.join()
    stranger = make_certificate(tmp_path / "stranger")
    error = _refusal(server.tls_url(), use_ssl={**options, "ca_certs": str(stranger.certificate)})
    assert "TLS" in str(error)
    assert "use_ssl" in (error.remedy or "")
    trusted = {"ca_certs": str(certificate.certificate)}
    for url in (server.tls_url(), server.tls_url().replace("amqps:", "amqp:")):
        listening(url, use_ssl=trusted).close()
    assert "TLS" in str(_refusal(server.tls_url().replace("localhost", "0.0.0.0"), use_ssl=trusted))
    assert "TLS" in str(_refusal(server.tls_url(), use_ssl=True))
    listening(server.tls_url(), use_ssl={"cert_reqs": "none"}).close()
    error = _refusal(server.tls_url(), use_ssl={"cert_reqs": "sometimes"})
    assert "use_ssl" in (error.remedy or "")
    assert "use_ssl" in (_refusal(server.url().replace("amqp:", "amqps:")).remedy or "")


def test_failover(rabbitmq: RabbitMQ, rabbitmq_url: str) -> None:
    """Of several URLs the next one is tried after each failure."""
    source = BrokerSource(settings(f"amqp://guest:guest@127.0.0.1:1//;{rabbitmq_url}"))
    with pytest.raises(SourceLostError, match="refused"):
        source.connect()
    source.connect()
    source.close()
