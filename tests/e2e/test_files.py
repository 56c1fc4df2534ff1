"""Few open files, and clients that use them: some are reserved for the broker, the store and pages."""

import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.conftest import Start
from tests.e2e.daemon import Daemon
from tests.e2e.paging import KEY, Failing, publish, wait_until_reported
from tests.servers.pagerduty import PagerDutyServer
from tests.servers.process import require

CLIENTS = 150
FILES = 64


class ShortOfFiles(Daemon):
    """A daemon with a low limit of open files."""

    def command(self) -> Sequence[str]:
        return [require("prlimit"), f"--nofile={FILES}", *super().command()]


def test_clients_that_never_ask(rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """With more half-open clients than open files, a failure pages immediately, and the log stays short."""
    with PagerDutyServer(keys={KEY}) as server, ExitStack() as clients:
        settings = {"pagerduty": {"url": server.url, "routing_key": KEY}}
        daemon = start(ShortOfFiles(tmp_path, rabbitmq_url, settings))
        daemon.until_ready()

        def crowd() -> None:
            for _ in range(CLIENTS):
                clients.enter_context(socket.create_connection(("127.0.0.1", daemon.port), timeout=60))

        crowd()
        first = Failing("shop.charge", time.time())
        publish(rabbitmq_url, [first])
        wait_until_reported(server, [first])
        crowd()
        second = Failing("shop.refund", time.time())
        publish(rabbitmq_url, [second])
        wait_until_reported(server, [first, second])

        for taken in server.taken():
            assert taken.wall - next(each for each in (first, second) if each.key == taken.key).at < 10
        assert daemon.get("/livez")[0] == 200
        assert daemon.is_ready()
        assert len(daemon.log.read_text().splitlines()) < 100
