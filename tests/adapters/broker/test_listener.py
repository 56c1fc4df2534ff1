"""A look at the stream beside the monitor."""

from pathlib import Path

from celery_monitor.adapters.broker.listener import Listener
from tests.adapters.broker.conftest import Listening, settings
from tests.conftest import Start
from tests.servers import RabbitMQ, Stopwatch


def test_the_end_beside_a_frozen_broker(listening: Listening, start: Start, tmp_path: Path) -> None:
    """A connection that could not be closed is cut; none is opened for that."""
    server = start(RabbitMQ(tmp_path / "rabbitmq"))
    listening(server.url())  # declares the exchange
    listener = Listener(settings(server.url()))
    listener.connect()
    server.pause()
    with Stopwatch() as watch:
        listener.close()
    assert watch.seconds < 4
    server.resume()
