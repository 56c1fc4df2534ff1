"""/readyz of the assembled daemon."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celery_monitor import pipeline
from celery_monitor.app import App
from celery_monitor.runtime.standby import Takeover
from celery_monitor.settings import load
from tests.servers.ports import free_port
from tests.servers.waiting import wait_until


@pytest.fixture
def app(tmp_path: Path) -> App:
    """A daemon without its broker, not started."""
    overrides = {
        "broker.url": f"amqp://127.0.0.1:{free_port()}//",
        "store.url": f"sqlite:///{tmp_path / 'store.db'}",
        "web.host": "127.0.0.1",
        "web.port": free_port(),
    }
    return App(load(None, overrides, {}))


@pytest.fixture
def running(app: App) -> Iterator[App]:
    """The same daemon, started."""
    thread = threading.Thread(target=app.run)
    thread.start()
    yield app
    app.stop()
    thread.join(60)
    assert not thread.is_alive()


def test_nothing_is_well_before_the_start(app: App) -> None:
    """Before the store is opened, no check succeeds."""
    assert None not in app.web.ready().checks.values()


def test_no_probe_returns_without_a_stream(running: App) -> None:
    """While the stream cannot be opened, the probe fails."""
    checks = wait_until(lambda: found if "refused" in ((found := running.web.ready().checks)["broker"] or "") else None)
    assert checks is not None
    assert checks["probe"] == "waiting for the event stream"
    assert checks["store"] is None


def test_a_leader_in_the_making(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """While its parts are built it is alive and not ready: the threads of the standby have ended, as they have to."""
    stand_by, build, answers = app._stand_by, pipeline.build, list[tuple[bool, bool]]()

    def with_a_listener() -> Takeover | None:
        takeover = stand_by()
        if takeover is not None and app._standby is not None:
            app._standby.threads.start("listener", lambda _stop, _beat: None, limit=60.0)
            app._standby.threads.join("listener", 60.0)
        return takeover

    def observed(*args: Any) -> pipeline.Pipeline:
        answers.append((app.web.alive().ok, app.web.ready().ok))
        return build(*args)

    monkeypatch.setattr(app, "_stand_by", with_a_listener)
    monkeypatch.setattr(pipeline, "build", observed)
    thread = threading.Thread(target=app.run)
    thread.start()
    wait_until(lambda: answers)
    app.stop()
    thread.join(60)
    assert not thread.is_alive()
    assert answers == [(True, False)]
