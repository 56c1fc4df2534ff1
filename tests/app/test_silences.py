"""Silences of the assembled daemon: what covers a failure that is read after its silence has ended."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from celery_monitor import pipeline
from celery_monitor.app import App
from celery_monitor.core.model import Delivery, Silence
from celery_monitor.runtime.lease import HeldLease
from celery_monitor.runtime.standby import Takeover
from celery_monitor.settings import load
from tests.builders import life
from tests.fakes import FakeSource
from tests.servers.ports import free_port

HOUR = 3600.0


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """A daemon without its broker, not started."""
    overrides = {
        "broker.url": f"amqp://127.0.0.1:{free_port()}//",
        "store.url": f"sqlite:///{tmp_path / 'store.db'}",
        "web.port": free_port(),
    }
    app = App(load(None, overrides, {}))
    yield app
    app.store.stop()


def leading(app: App) -> pipeline.Pipeline:
    """Its parts as the leader, after the first turn of the housekeeping."""
    restored = app.store.lead("one")
    assert restored is not None
    lease = HeldLease(app.store, app.clock, app.clock.monotonic())
    parts = pipeline.build(app._env, Takeover(restored, FakeSource(), lease), lambda _: None)
    parts.monitor.connected(acknowledges=True)
    parts.maintenance.run_once()
    return parts


def fail(parts: pipeline.Pipeline, at: float, now: float) -> dict[str, int]:
    """Read a failure of this time now. Returns the number of incidents by reason."""
    parts.monitor.receive([Delivery(one) for one in life("u1", "shop.pay", at - 3, "failed", exception="E()")], now)
    return {reason: count for reason, count in parts.monitor.snapshot().incidents.items() if count}


@pytest.mark.parametrize("failed_before_the_end", [1.0, 600.0, -1.0])
def test_a_failure_of_an_ended_silence(app: App, failed_before_the_end: float) -> None:
    """A silence that has ended covers the failures of its time, for example after a restart during a deployment."""
    now = app.clock.now()
    app.store.start()
    app.store.silences.add(Silence("a1", ("shop.*",), "deploy 4711", now - HOUR, now - 60))
    parts = leading(app)
    expected = "opened" if failed_before_the_end < 0 else "muted"
    assert fail(parts, now - 60 - failed_before_the_end, now) == {expected: 1}


def test_the_end_of_a_silence_while_the_stream_is_behind(app: App) -> None:
    """The incident waits until the stream has been read up to the end, so that a success in between is known."""
    now = app.clock.now()
    app.store.start()
    app.store.silences.add(Silence("a1", ("shop.*",), "deploy 4711", now - HOUR, now - 60))
    parts = leading(app)
    fail(parts, now - 120, now)
    counters = parts.monitor._parts.counters
    counters.probed(parts.prober.instance, now - 110)
    parts.monitor.tick(now)
    parts.monitor.receive([Delivery(one) for one in life("u2", "shop.pay", now - 90)], now)
    counters.probed(parts.prober.instance, now)
    parts.monitor.tick(now + 1)
    assert parts.monitor.snapshot().incidents_open == 0
