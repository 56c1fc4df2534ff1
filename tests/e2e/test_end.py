"""SIGTERM: an orderly exit within ten seconds, whatever the broker does; and the exit of a daemon that hangs."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.publish import Load
from tests.conftest import Start
from tests.e2e.campaign import Size, assert_drained, assert_exact, publishing, seeded, sizes
from tests.e2e.daemon import Daemon
from tests.e2e.disk import full, small_disk
from tests.servers import RabbitMQ, wait_until
from tests.servers.waiting import Stopwatch

_IN_TIME = 10.0
"""Seconds that an orchestrator gives."""


def end(daemon: Daemon) -> int:
    """Send SIGTERM; returns the exit code, which must arrive in time."""
    with Stopwatch() as took:
        daemon.signal(signal.SIGTERM)
        wait_until(lambda: not daemon.running, 60, what="the end of the daemon")
    print(f"ended after {took.seconds:.1f} s")  # noqa: T201
    assert took.seconds < _IN_TIME
    code = daemon.stop()
    assert code is not None
    return code


@sizes(Size(tasks=5_000, faults=2, rate=3_000), Size(tasks=83_000, faults=20, rate=5_000))
def test_end_under_load(size: Size, rabbitmq: RabbitMQ, rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """Exit code 0; all committed messages are acknowledged, so none is redelivered; nothing is lost or doubled."""
    randomly, load = seeded(), Load(size.tasks)
    daemon = start(Daemon(tmp_path / "daemon", rabbitmq_url))
    daemon.until_ready()  # from now on there is a queue

    with publishing(rabbitmq_url, load, size.rate) as state:
        for _ in state.moments(randomly, size.faults):
            daemon.until_ready()
            assert end(daemon) == 0
            daemon.start()
    daemon.until_ready()

    assert_exact(daemon, load)
    assert daemon.metric("monitor_events_discarded_total", reason="redelivered") == 0
    assert_drained(rabbitmq, rabbitmq_url)


def test_end_without_the_broker(start: Start, tmp_path: Path) -> None:
    """While the broker is suspended, and while there is none: exit code 0 in time."""
    broker = start(RabbitMQ(tmp_path / "rabbitmq"))
    daemon = start(Daemon(tmp_path / "daemon", broker.url(), {"broker": {"probe_interval": "1s"}}))

    daemon.until_ready()
    broker.pause()
    assert end(daemon) == 0  # nobody has noticed yet

    daemon.start()
    daemon.until_trouble()
    assert end(daemon) == 0  # in the middle of an attempt to connect

    broker.kill()
    daemon.start()
    daemon.until_trouble("refused")
    assert end(daemon) == 0


def test_end_with_a_full_disk(rabbitmq_url: str, start: Start, tmp_path: Path) -> None:
    """Uncommitted messages stay in the broker: exit code 0 in time, and the next start counts them."""
    load = Load(2_000)
    with small_disk(tmp_path / "disk") as disk:
        daemon = start(Daemon(tmp_path / "daemon", rabbitmq_url, store_directory=disk))
        daemon.until_ready()
        with publishing(rabbitmq_url, load, rate=3_000) as state:
            state.until(state.total // 3)
            with full(disk, daemon.store):
                daemon.until_trouble("full")
                assert end(daemon) == 0
        daemon.start()
        daemon.until_ready()

        assert_exact(daemon, load)
        daemon.stop()


class StuckDaemon(Daemon):
    """A daemon whose pump hangs in a library, a while after its start (see ``tests/e2e/stuck.py``)."""

    what: str = ""

    def command(self) -> Sequence[str]:
        return [sys.executable, "-m", "tests.e2e.stuck", str(self.config), self.what]

    def wait_ready(self) -> None:
        """It may be over before anybody has asked it."""


def test_a_pump_that_hangs_ends_the_process(redis_url: str, start: Start, tmp_path: Path) -> None:
    """The watchdog ends the process with a specific exit code, so that the orchestrator restarts it."""
    daemon = start(StuckDaemon(tmp_path / "daemon", redis_url))
    wait_until(lambda: not daemon.running, 90, what="the end by the watchdog")

    assert daemon.stop() == 70
    assert '"thread": "pump"' in daemon.log.read_text()


class BlockedDaemon(StuckDaemon):
    """The library holds the interpreter lock while it hangs."""

    what = "interpreter"


def test_a_blocked_interpreter_ends_the_process(redis_url: str, start: Start, tmp_path: Path) -> None:
    """No Python thread or SIGTERM handler can run: it still exits, and reports where it hung."""
    daemon = start(BlockedDaemon(tmp_path / "daemon", redis_url))
    wait_until(lambda: "in the call" in daemon.log.read_text(), 90, what="the call that blocks")
    daemon.signal(signal.SIGTERM)
    wait_until(lambda: not daemon.running, 90, what="the end of the daemon")

    assert daemon.stop() == 1
    assert "in block" in daemon.log.read_text()
