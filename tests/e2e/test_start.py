"""A start under bad conditions: the daemon keeps running, gives a remedy, and continues once it is repaired."""

from collections.abc import Callable
from pathlib import Path

import amqp

from bench.publish import Load, publish, publisher
from tests.conftest import Start
from tests.e2e.campaign import QUEUE, assert_exact, vhost
from tests.e2e.daemon import Daemon
from tests.e2e.disk import fill, small_disk
from tests.servers import RabbitMQ, Redis

_SECRET = "correct-horse"


def repaired(daemon: Daemon, url: str, trouble: tuple[str, ...], repair: Callable[[], object]) -> None:
    """The daemon reports the problem, serves what it has, and counts after the repair."""
    daemon.until_trouble(*trouble)
    assert daemon.get("/livez")[0] == 200
    assert daemon.metric("monitor_broker_connected") == 0
    assert daemon.counts() == {}

    repair()

    daemon.until_ready()
    load = Load(500, lag=20)
    to = publisher(url)
    publish(to, load, 5_000)
    to.close()
    assert_exact(daemon, load)
    assert _SECRET not in daemon.log.read_text()


def test_rabbitmq_is_down(start: Start, tmp_path: Path) -> None:
    """RabbitMQ starts after the daemon."""
    broker = RabbitMQ(tmp_path / "rabbitmq")
    daemon = start(Daemon(tmp_path / "daemon", broker.url()))
    repaired(daemon, broker.url(), ("refused",), lambda: start(broker))


def test_redis_is_down(start: Start, tmp_path: Path) -> None:
    """Redis starts after the daemon."""
    broker = Redis(tmp_path / "redis")
    daemon = start(Daemon(tmp_path / "daemon", broker.url()))
    repaired(daemon, broker.url(), ("refused",), lambda: start(broker))


def test_rabbitmq_refuses_the_credentials(rabbitmq: RabbitMQ, rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """The user of broker.url is unknown until it is created."""
    name = vhost(rabbitmq_url)
    user = f"late-{name}"
    url = rabbitmq_url.replace("guest:guest", f"{user}:{_SECRET}")
    daemon = start(Daemon(tmp_path / "daemon", url))

    def repair() -> None:
        rabbitmq.add_user(user, _SECRET, name, configure=".*", write=".*", read=".*")

    repaired(daemon, rabbitmq_url, ("check the user and password in broker.url",), repair)


def test_redis_refuses_the_password(start: Start, tmp_path: Path) -> None:
    """The server's password differs from that of broker.url."""
    broker = start(Redis(tmp_path / "redis", password="another"))
    url = broker.url().replace("another", _SECRET)
    daemon = start(Daemon(tmp_path / "daemon", url))
    repaired(
        daemon,
        url,
        ("check the user and password in broker.url",),
        lambda: broker.execute("CONFIG", "SET", "requirepass", _SECRET),
    )


def test_the_queue_was_declared_differently(
    rabbitmq: RabbitMQ, rabbitmq_url: str, start: Start, tmp_path: Path
) -> None:
    """An earlier version left a queue with other arguments; the error says how to delete it."""
    name = vhost(rabbitmq_url)
    with amqp.Connection(f"127.0.0.1:{rabbitmq.port}", virtual_host=name) as connection:
        connection.channel().queue_declare(QUEUE, durable=True, auto_delete=False, arguments={"x-max-length": 10})
    daemon = start(Daemon(tmp_path / "daemon", rabbitmq_url))
    remedy = ("already exists with different arguments", f"rabbitmqctl delete_queue -p {name} {QUEUE}")
    repaired(daemon, rabbitmq_url, remedy, lambda: rabbitmq.delete_queue(QUEUE, name))


def test_the_disk_is_full(rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """There is no space for a store: the daemon waits, and serves its metrics."""
    with small_disk(tmp_path / "disk") as disk:
        ballast = fill(disk)
        daemon = start(Daemon(tmp_path / "daemon", rabbitmq_url, store_directory=disk))
        daemon.until_trouble("full")
        assert daemon.get("/livez")[0] == 200
        assert daemon.get("/metrics")[0] == 200

        ballast.unlink()

        daemon.until_ready()
        daemon.stop()
