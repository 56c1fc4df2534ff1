"""The broker is suspended (SIGSTOP): connections stay open, nothing answers, no error is raised."""

import time
from pathlib import Path

from bench.publish import Load, publish, publisher
from tests.conftest import Start
from tests.e2e.campaign import Publishing, Size, assert_drained, assert_exact, publishing, sizes
from tests.e2e.daemon import Daemon, differences
from tests.servers import RabbitMQ, Redis, wait_until
from tests.servers.process import ServerProcess
from tests.servers.waiting import Stopwatch

_SHORT, _LONG = Size(tasks=6_000, faults=6, rate=3_000), Size(tasks=40_000, faults=60, rate=3_000)
"""``faults`` are the seconds of standstill."""
_BACK = 20.0
"""Seconds from the broker's return to the daemon's readiness, at most."""


def probe_interval(size: Size) -> float:
    """Seconds: in the long form the default."""
    return 1.5 if size.faults < 30 else 5


def stand_still(broker: ServerProcess, daemon: Daemon, size: Size) -> float:
    """Suspend the broker.

    The daemon must detect it in time, report it, keep answering, and recover. Returns the total seconds.
    """
    process, began = daemon.pid, time.monotonic()
    broker.pause()
    try:
        thaw_at = time.monotonic() + size.faults
        with Stopwatch() as noticed:
            daemon.until_trouble()
        result = f"noticed after {noticed.seconds:.1f} s with probes every {probe_interval(size)} s"
        print(f"{broker.name}: {result}")  # noqa: T201
        assert noticed.seconds <= 3 * probe_interval(size)
        wait_until(lambda: time.monotonic() >= thaw_at, size.faults + 5, every=0.5)
        assert daemon.get("/livez")[0] == 200
        assert daemon.readyz()[0] == 503
        wait_until(lambda: daemon.metric("monitor_broker_connected") == 0, what="the metric of the stream's end")
    finally:
        broker.resume()
    with Stopwatch() as back:
        daemon.until_ready()
    assert back.seconds <= _BACK
    assert daemon.pid == process
    return time.monotonic() - began


def while_loaded(state: Publishing, broker: ServerProcess, daemon: Daemon, size: Size) -> float:
    """The same during a load."""
    state.until(state.total // 3)
    return stand_still(broker, daemon, size)


@sizes(_SHORT, _LONG)
def test_rabbitmq_stands_still(size: Size, breakable_rabbitmq: RabbitMQ, start: Start, tmp_path: Path) -> None:
    """It is detected within three probe intervals, idle and under load; afterwards the counts are exact."""
    broker = breakable_rabbitmq
    settings = {"broker": {"probe_interval": f"{probe_interval(size) * 1000:.0f}ms"}}
    daemon = start(Daemon(tmp_path / "daemon", broker.url(), settings))
    daemon.until_ready()
    load = Load(size.tasks)

    stand_still(broker, daemon, size)
    with publishing(broker.url(), load, size.rate) as state:
        while_loaded(state, broker, daemon, size)

    assert_exact(daemon, load)
    assert_drained(broker, broker.url())
    assert daemon.metric("monitor_stream_gap_seconds_total") == 0


@sizes(_SHORT, _LONG)
def test_redis_stands_still(size: Size, start: Start, tmp_path: Path) -> None:
    """It is detected in time; lost events are reported as a gap, and later ones are counted."""
    broker = start(Redis(tmp_path / "redis"))
    settings = {"broker": {"probe_interval": f"{probe_interval(size) * 1000:.0f}ms"}}
    daemon = start(Daemon(tmp_path / "daemon", broker.url(), settings))
    daemon.until_ready()

    for loaded in (False, True):
        before = gap(daemon)
        if loaded:
            with publishing(broker.url(), Load(size.tasks), size.rate) as state:
                took = while_loaded(state, broker, daemon, size)
        else:
            took = stand_still(broker, daemon, size)
        # The end of it is committed a moment after the stream is there.
        wait_until(lambda: gap(daemon) - before >= size.faults - 1, what="the gap")  # noqa: B023
        assert gap(daemon) - before <= took + 2 * probe_interval(size)

    after = Load(1_000, prefix="after")
    to = publisher(broker.url())
    publish(to, after, size.rate)
    to.close()
    expected = after.counts()
    wait_until(lambda: not differences(expected, {task: daemon.counts().get(task, {}) for task in expected}), 60)


def gap(daemon: Daemon) -> float:
    """The reported seconds without a stream."""
    return daemon.metric("monitor_stream_gap_seconds_total")
