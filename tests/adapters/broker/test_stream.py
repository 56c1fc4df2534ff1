"""The common behaviour of all transports of the event stream."""

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery

from celery_monitor.adapters.broker import BrokerFleet, BrokerProbe, BrokerSource, redis, wire
from celery_monitor.core.model import Delivery
from celery_monitor.errors import SourceLostError
from celery_monitor.settings.broker import BrokerSettings
from tests.adapters.broker.conftest import Listening, collect, connects, poll_for, settings
from tests.adapters.broker.publisher import numbered, publish
from tests.conftest import Start
from tests.servers import CeleryWorker, RabbitMQ, Redis, Stopwatch, TcpProxy, wait_until


def _in_file(file: Path, url: str) -> BrokerSettings:
    file.write_text(url)
    return BrokerSettings(url_file=file)


both = pytest.mark.parametrize("kind", ["rabbitmq", "redis"])


def test_real_worker(broker_url: str, listening: Listening, start: Start, tmp_path: Path) -> None:
    """Single events and lists of events of a real worker are received as sent."""
    source = listening(broker_url)
    start(CeleryWorker(tmp_path / "worker", broker_url))
    app = Celery(broker=broker_url)
    app.conf.update(task_default_queue="fleet", task_send_sent_event=True)
    with app:
        ids = {app.send_task("fleet.succeed").id for _ in range(5)}
    seen: dict[str, set[str]] = {}
    shapes: set[type] = set()

    def finished() -> bool:
        for delivery in collect(source, 1):
            assert delivery.content_type == "application/json"
            body = json.loads(delivery.body)
            shapes.add(type(body))
            for event in body if isinstance(body, list) else [body]:
                seen.setdefault(event["type"], set()).add(event.get("uuid"))
        return all(seen.get(f"task-{kind}") == ids for kind in ("sent", "received", "started", "succeeded"))

    wait_until(finished, 120)
    assert "worker-online" in seen
    assert shapes == {dict, list}


def test_order_and_completeness(broker_url: str, listening: Listening) -> None:
    """Ten thousand messages are received once each, in order."""
    source = listening(broker_url, prefetch=1000)
    bodies = numbered(10_000)
    sender = threading.Thread(target=publish, args=(broker_url, bodies))
    sender.start()
    found = collect(source, len(bodies))
    sender.join()
    assert [delivery.body for delivery in found] == bodies
    assert source.poll(0.1) is None


def test_half_of_the_prefetch(broker_url: str, listening: Listening) -> None:
    """One poll returns at most half of the prefetch."""
    source = listening(broker_url, prefetch=100)
    publish(broker_url, numbered(220))
    sizes: list[int] = []
    while sum(sizes) < 220:
        batch = wait_until(lambda: source.poll(5))
        assert batch is not None
        source.ack(batch.tag)
        sizes.append(len(batch.deliveries))
    assert max(sizes) <= 50


def test_poll_waits_no_longer_than_told(broker_url: str, listening: Listening) -> None:
    """A poll of a silent stream ends at its timeout, and immediately if there is a message."""
    source = listening(broker_url)
    began = time.monotonic()
    with Stopwatch() as watch:
        assert source.poll(0.2) is None
    assert time.monotonic() - began > 0.15
    assert watch.seconds < 2
    publish(broker_url, numbered(1))
    with Stopwatch() as watch:
        assert collect(source, 1)
    assert watch.seconds < 2


@pytest.mark.parametrize(
    ("sent", "seen"), [(None, ""), ("application/x-python-serialize", "application/x-python-serialize")]
)
def test_content_types(broker_url: str, listening: Listening, sent: str | None, seen: str) -> None:
    """The content type is returned unchanged, and "" if there is none."""
    source = listening(broker_url)
    if sent is None and broker_url.startswith("amqp"):
        _publish_bare_amqp(broker_url, b"bare")
    else:
        publish(broker_url, [b"bare"], content_type=sent)
    assert [Delivery(d.body, d.content_type) for d in collect(source, 1)] in (
        [Delivery(b"bare", seen)],
        [Delivery(b"bare", "application/data")],  # what kombu makes of nothing on Redis
    )


def _publish_bare_amqp(url: str, body: bytes) -> None:
    import amqp
    from kombu import Connection

    with Connection(url) as connection:
        channel = connection.default_channel
        channel.basic_publish(amqp.Message(body), "celeryev", "x")


def test_large_and_empty_bodies(broker_url: str, listening: Listening) -> None:
    """Bodies of no bytes, of exactly one frame, and of many frames are complete."""
    source = listening(broker_url)
    bodies = [b"", b"x" * (131_072 - 8), b"y" * (131_072 - 7), b"z" * 3_000_001, b"end"]
    sender = threading.Thread(target=publish, args=(broker_url, bodies))
    sender.start()
    found = collect(source, len(bodies))
    sender.join()
    assert [len(delivery.body) for delivery in found] == [len(body) for body in bodies]
    assert [delivery.body for delivery in found] == bodies


def test_abandon_from_another_thread(broker_url: str, listening: Listening) -> None:
    """Abandoning wakes up a thread in poll immediately."""
    source = listening(broker_url, heartbeat="10m")
    results: list[BaseException | None] = []

    def wait() -> None:
        try:
            source.poll(60)
        except SourceLostError as exc:
            results.append(exc)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    with Stopwatch() as watch:
        source.abandon()
        thread.join(60)
    assert watch.seconds < 1
    assert len(results) == 1
    with pytest.raises(SourceLostError, match="not connected"):
        source.poll(0.1)
    source.connect()
    publish(broker_url, numbered(1))
    assert collect(source, 1)


def test_close_and_connect_again(broker_url: str, listening: Listening) -> None:
    """A closed source can be connected again, and closing twice has no effect."""
    source = listening(broker_url)
    source.close()
    source.close()
    source.connect()
    publish(broker_url, numbered(3))
    assert [d.body for d in collect(source, 3)] == numbered(3)


def test_paused_broker(breakable_broker: RabbitMQ | Redis, listening: Listening) -> None:
    """With a suspended broker every call is bounded, the loss is detected, and connecting works afterwards."""
    server = breakable_broker
    source = listening(server.url(), heartbeat="2s")
    server.pause()
    with Stopwatch() as watch, pytest.raises(SourceLostError):
        poll_for(source)
    assert watch.seconds < 8
    with Stopwatch() as watch, pytest.raises(SourceLostError, match="does not answer"):
        source.connect()
    assert watch.seconds < 10
    source.abandon()
    server.resume()
    wait_until(lambda: connects(source), 60)
    publish(server.url(), numbered(1))
    assert collect(source, 1)
    server.pause()
    with Stopwatch() as watch:
        source.abandon()
    assert watch.seconds < 0.5
    server.resume()
    wait_until(lambda: connects(source), 60)
    server.pause()
    with Stopwatch() as watch:
        source.close()
    assert watch.seconds < 2.5
    server.resume()


def test_killed_broker(breakable_broker: RabbitMQ | Redis, listening: Listening) -> None:
    """A killed broker is detected immediately, and the stream continues when it is back."""
    server = breakable_broker
    source = listening(server.url())
    server.kill()
    with pytest.raises(SourceLostError):
        poll_for(source)
    with pytest.raises(SourceLostError, match=r"[Cc]onnection refused"):
        source.connect()
    server.start()
    wait_until(lambda: connects(source), 60)
    publish(server.url(), numbered(10))
    assert [d.body for d in collect(source, 10)] == numbered(10)


@both
def test_half_open_connection(kind: str, listening: Listening, request: pytest.FixtureRequest) -> None:
    """A network that drops everything is detected by the heartbeat."""
    server: RabbitMQ | Redis = request.getfixturevalue("rabbitmq" if kind == "rabbitmq" else "redis_server")
    with TcpProxy(server.port) as proxy:
        url = server.url().replace(f":{server.port}/", f":{proxy.port}/")
        source = listening(url, heartbeat="2s")
        poll_for(source, 5)  # more than two heartbeats of nothing but heartbeats
        proxy.stall()
        with Stopwatch() as watch, pytest.raises(SourceLostError):
            poll_for(source)
        assert watch.seconds < 8


@both
def test_a_stalled_reader_is_not_cut_by_itself(kind: str, listening: Listening, request: pytest.FixtureRequest) -> None:
    """After a long time without a poll, waiting messages are read before the connection counts as dead."""
    url: str = request.getfixturevalue(f"{kind}_url")
    source = listening(url, heartbeat="1s" if kind == "redis" else "5s")
    for _ in range(3):
        publish(url, numbered(1))
        time.sleep(2.2)
        assert collect(source, 1)


def test_a_machine_that_stood_still_loses_nothing(
    redis_server: Redis, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis does not resend: silence while the machine was suspended does not close the connection."""
    skipped = 0.0
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + skipped)
    monkeypatch.setattr(redis, "time", clock)
    monkeypatch.setattr(wire, "time", clock)
    with TcpProxy(redis_server.port) as proxy:
        source = listening(redis_server.url().replace(f":{redis_server.port}/", f":{proxy.port}/"), heartbeat="10s")
        proxy.stall()
        publish(redis_server.url(), numbered(3))
        for _ in range(4):
            skipped += 3600.0
            assert source.poll(0.05) is None
        proxy.resume()
        assert [delivery.body for delivery in collect(source, 3)] == numbered(3)


def test_a_machine_that_stands_still_at_a_take_over_loses_nothing(
    redis_server: Redis, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent messages have not arrived when the standby, which waits a second for them, continues."""
    skipped = 0.0
    with TcpProxy(redis_server.port) as proxy:

        def monotonic() -> float:
            nonlocal skipped
            if skipped < 3 * 3600.0:
                skipped += 3600.0
            else:
                proxy.resume()
            return time.monotonic() + skipped

        source = listening(redis_server.url().replace(f":{redis_server.port}/", f":{proxy.port}/"), heartbeat="10s")
        proxy.stall()
        publish(redis_server.url(), numbered(3))
        monkeypatch.setattr(redis, "time", SimpleNamespace(monotonic=monotonic))
        assert [delivery.body for delivery in source.drain(1.0)] == numbered(3)
        proxy.stall()
        monkeypatch.undo()
        with pytest.raises(SourceLostError):
            source.drain(0.2)


def test_errors_never_tell_the_password(rabbitmq: RabbitMQ, redis_server: Redis) -> None:
    """No error contains the password, whatever the problem."""
    for url in (
        f"amqp://guest:S3cret!@127.0.0.1:{rabbitmq.port}//",
        f"amqp://guest:S3cret!@127.0.0.1:{redis_server.port}//",
        f"amqps://guest:S3cret!@127.0.0.1:{rabbitmq.port}//",
        "amqp://guest:S3cret!@127.0.0.1:1//",
        "amqp://guest:S3cret!@no-such-host.invalid//",
        f"redis://:S3cret!@127.0.0.1:{redis_server.port}/99999999",
        f"rediss://:S3cret!@127.0.0.1:{redis_server.port}/0",
        f"redis://:S3cret!@127.0.0.1:{rabbitmq.port}/0",
        "redis://:S3cret!@127.0.0.1:1/0",
        "sentinel://:S3cret!@127.0.0.1:1/0",
    ):
        source = BrokerSource(settings(url, transport_options={"master_name": "m"}))
        with pytest.raises(SourceLostError) as caught:
            source.connect()
        assert "S3cret" not in str(caught.value), url
        assert "S3cret" not in str(caught.value.remedy), url


# --- the URL in a file, which changes while the monitor runs


def test_another_transport(rabbitmq_url: str, redis_url: str, tmp_path: Path) -> None:
    """Each connection acknowledges like its own transport, whichever the first one was."""
    file = tmp_path / "url"
    source = BrokerSource(_in_file(file, redis_url))
    for url, acknowledges in ((redis_url, False), (rabbitmq_url, True), (redis_url, False), (rabbitmq_url, True)):
        file.write_text(url)
        source.connect()
        assert source.acknowledges is acknowledges
        publish(url, numbered(3))
        assert len(collect(source, 3)) == 3
    source.connect()
    assert source.poll(0.3) is None
    source.close()


def test_probe_and_remote_control_follow(rabbitmq_url: str, redis_url: str, tmp_path: Path) -> None:
    """Once the file has the URL of another broker, probes and queries use it, even if the old one still works."""
    file = tmp_path / "url"
    fields = _in_file(file, redis_url)
    source, probe, fleet = BrokerSource(fields), BrokerProbe(fields), BrokerFleet(fields, ["missing"])
    for url in (redis_url, rabbitmq_url, redis_url):
        file.write_text(url)
        source.connect()
        probe.send(b"{}", 20)
        assert len(collect(source, 1)) == 1
        [queue] = fleet.queues(0.05, 0.0)
        assert (queue.length is None) == (url == rabbitmq_url)
    for each in (source, probe, fleet):
        each.close()


@pytest.mark.parametrize("url", ["sqs://", "confluentkafka://h", "zookeeper://h", "foo://h", "no url", "amqp://h:p//"])
def test_a_url_that_cannot_be_used(url: str, tmp_path: Path) -> None:
    """It is reported with the valid form at each connection attempt; the next valid one is used."""
    file = tmp_path / "url"
    fields = _in_file(file, "redis://127.0.0.1:1/0")
    source, probe, fleet = BrokerSource(fields), BrokerProbe(fields), BrokerFleet(fields)
    file.write_text(url)
    for call in (source.connect, lambda: probe.send(b"{}", 1), lambda: fleet.enable_events(0.1)):
        with pytest.raises(SourceLostError, match=r"invalid broker URL: broker\.url") as caught:
            call()
        assert caught.value.remedy
    file.write_text("redis://127.0.0.1:1/1")
    with pytest.raises(SourceLostError, match="refused"):
        source.connect()
