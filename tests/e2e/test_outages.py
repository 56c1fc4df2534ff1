"""PagerDuty with every kind of problem: every page arrives once, and counting is not slower."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Start
from tests.e2e.daemon import Daemon
from tests.e2e.paging import Failing, assert_opened_once, pager, publish
from tests.servers.pagerduty import Behaviour, PagerDutyServer
from tests.servers.waiting import wait_until

ROUTES = {f"r{number}": f"{number}" * 32 for number in range(4)}
"""Rule → its routing key."""
_ROOT = Path(__file__).resolve().parents[2]

MIXED = (
    Behaviour.status(503),
    Behaviour.status(429, Retry_After="1"),
    Behaviour.drop(take=False),
    Behaviour.drop(take=True),
    Behaviour.drip(every=0.05),
    Behaviour.drip(every=0.05, take=True, code=202),
    Behaviour.redirect(302),
    Behaviour.redirect(307),
    Behaviour.garbage(),
    Behaviour.hang(take=True),
    Behaviour.drip_body(503, every=0.05),
    Behaviour.status(429),
)
LONG = (
    (600, Behaviour.status(503)),
    (300, Behaviour.status(429, Retry_After="20")),
    (60, Behaviour.drop(take=False)),
    (60, Behaviour.drop(take=True)),
    (60, Behaviour.drip(every=0.1)),
    (60, Behaviour.redirect(307)),
    (60, Behaviour.hang(take=True)),
    (60, Behaviour.garbage()),
)


@pytest.fixture
def server() -> Iterator[PagerDutyServer]:
    """A simulated PagerDuty that knows the routes' keys."""
    with PagerDutyServer(keys=set(ROUTES.values())) as running:
        yield running


@pytest.fixture
def daemon(rabbitmq_url: str, server: PagerDutyServer, start: Start, tmp_path: Path) -> Daemon:
    """A daemon with several routes; the load's own failures page nobody."""
    rules: list[dict[str, Any]] = [{"name": "load", "match": ["load.*"], "page": False}]
    rules += [{"name": name, "match": [f"{name}.*"], "routing_key": key} for name, key in ROUTES.items()]
    settings: dict[str, dict[str, Any]] = {
        "pagerduty": {"timeout": "2s"},
        "alerts": {"rules": rules, "storm": {"tasks": 1_000_000}},
    }
    running = start(pager(tmp_path, rabbitmq_url, server, settings))
    running.until_ready()
    return running


def test_short_trouble(rabbitmq_url: str, server: PagerDutyServer, daemon: Daemon) -> None:
    """Each kind of problem once, within seconds."""
    with load(rabbitmq_url, rate=1000):
        calm = lags(daemon, after(2.5))
        server.script(*MIXED)
        failures = failing_in_turn(rabbitmq_url, 24)
        trouble = lags(daemon, lambda: len(server.received) > len(MIXED))
    assert_delivered(server, failures, 120)
    assert {0, 202, 302, 307, 429, 503} <= {seen.code for seen in server.received}
    assert_same_lag(calm, trouble)


@pytest.mark.campaign
def test_long_trouble(rabbitmq_url: str, server: PagerDutyServer, daemon: Daemon) -> None:
    """503 for 10 minutes, 429 for 5, and a minute each of dropped, dripping, redirected and unread answers."""
    failures: list[Failing] = []
    with load(rabbitmq_url, rate=1000):
        calm = lags(daemon, after(60))
        trouble: list[float] = []
        for seconds, behaviour in LONG:
            server.behave(behaviour)
            for _ in range(seconds // 30):
                failures += failing_in_turn(rabbitmq_url, len(ROUTES), first=len(failures))
                trouble += lags(daemon, after(30))
        server.behave()
        assert_delivered(server, failures, 600)
    assert_same_lag(calm, trouble)


def failing_in_turn(url: str, number: int, first: int = 0) -> list[Failing]:
    """Publish failures of new tasks, alternating between the routes."""
    names = list(ROUTES)
    failures = [
        Failing(f"{names[index % len(names)]}.task{index:03}", time.time()) for index in range(first, first + number)
    ]
    publish(url, failures)
    return failures


def assert_delivered(server: PagerDutyServer, failures: Sequence[Failing], timeout: float) -> None:
    """Every incident arrives, once, with the key of its route."""
    wait_until(lambda: len(server.opened()) == len(failures), timeout, every=0.1, what="all incidents")
    assert_opened_once(server, failures)
    for name, key in ROUTES.items():
        arrived = {seen.key for seen in server.taken() if seen.event["routing_key"] == key}
        assert arrived == {one.key for one in failures if one.task.startswith(f"{name}.")}


def lags(daemon: Daemon, ended: Callable[[], bool]) -> list[float]:
    """The lag of the stream, every tenth of a second until the end."""
    found: list[float] = []

    def sample() -> bool:
        found.append(daemon.metric("monitor_event_lag_seconds"))
        return ended()

    wait_until(sample, 600, every=0.02)
    return found


def after(seconds: float) -> Callable[[], bool]:
    """True when this many seconds have passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def assert_same_lag(calm: Sequence[float], trouble: Sequence[float]) -> None:
    """The pump is as prompt as before. The margin is for a busy machine."""
    for name, found in (("calm", calm), ("trouble", trouble)):
        print(  # noqa: T201 - the measurement
            f"lag in {name}: median {statistics.median(found):.3f} s, max {max(found):.3f} s, {len(found)} samples"
        )
    assert statistics.median(trouble) < statistics.median(calm) + 0.1


@contextmanager
def load(url: str, rate: float) -> Iterator[None]:
    """Events of other tasks from a separate process, until the end of the block."""
    arguments = ["--broker", url, "--rate", str(rate), "--tasks", "10000000"]
    with subprocess.Popen([sys.executable, "-m", "bench.publish", *arguments], cwd=_ROOT) as publisher:
        try:
            yield
        finally:
            publisher.kill()
