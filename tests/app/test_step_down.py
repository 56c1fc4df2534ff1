"""A leader that was replaced: nothing of its term continues in its next term."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from celery_monitor import leader as leading
from celery_monitor.app import App
from celery_monitor.leader import Leader
from celery_monitor.runtime.standby import Takeover
from celery_monitor.settings import load
from tests.servers import PostgreSQL
from tests.servers.ports import free_port
from tests.servers.waiting import wait_until


@contextmanager
def running(
    store_url: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[App, Leader, list[str]]]:
    """A leading app without a broker. The list receives the name of the thread for which it would end the process."""
    overrides = {
        "broker.url": f"amqp://127.0.0.1:{free_port()}//",
        "store.url": store_url,
        "store.directory": str(directory),
        "web.host": "127.0.0.1",
        "web.port": 0,
    }
    app, ended = App(load(None, overrides, {})), list[str]()
    monkeypatch.setattr(app, "_exit_stuck", ended.append)
    thread = threading.Thread(target=app.run)
    thread.start()
    try:
        leader = wait_until(lambda: app._leader if app._leader and "pump" in app._leader.threads.names else None)
        assert leader is not None
        yield app, leader, ended
    finally:
        app.stop()
        thread.join(60)
    assert not thread.is_alive()


def lose(leader: Leader) -> None:
    """Simulate a thread whose write the store has refused."""
    leader._lose("another replica leads")
    leader.stopping.set()


@pytest.mark.parametrize("hangs", [False, True], ids=["all end", "one hangs"])
def test_no_thread_of_a_former_leader_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, hangs: bool) -> None:
    """The next term starts when all have ended; a thread that does not end is named, and ends the process."""
    monkeypatch.setattr(leading, "STEP_DOWN", 0.2 if hangs else 60.0)
    released = threading.Event()

    def end_late() -> None:
        released.wait()

    with running(f"sqlite:///{tmp_path / 'store.db'}", tmp_path, monkeypatch) as (app, first, ended):
        first.threads.start("late", lambda _stop, _turned: end_late(), limit=600.0)
        of_first, join = list(first.threads._threads.values()), first.threads.join

        def ends_when_waited_for(name: str, timeout: float) -> bool:
            if name == "late" and not hangs:
                released.set()
            return join(name, timeout)

        monkeypatch.setattr(first.threads, "join", ends_when_waited_for)
        try:
            lose(first)
            wait_until(lambda: app._leader not in {None, first})
            assert ("late" in ended) is hangs
            assert hangs or not any(one.is_alive() for one in of_first)
        finally:
            released.set()


def test_a_former_leader_is_not_ready_to_take_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither while it steps down nor before it stands by: it lacks its successor's uncommitted messages."""
    with running(f"sqlite:///{tmp_path / 'store.db'}", tmp_path, monkeypatch) as (app, first, _):
        checks, stand_by = list[str | None](), app._stand_by

        def checked_first() -> Takeover | None:
            checks.append(app.web.ready().checks["store"])
            return stand_by()

        monkeypatch.setattr(app, "_stand_by", checked_first)
        assert wait_until(lambda: app.web.ready().checks["store"] is None)
        first._lose("another replica leads")
        checks.append(app.web.ready().checks["store"])
        first.stopping.set()
        wait_until(lambda: app._leader not in {None, first})
        assert len(checks) == 2
        assert None not in checks


def test_a_silent_database_does_not_end_a_former_leader(
    postgresql: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its threads do not wait for answers longer than stepping down may take."""
    with running(postgresql.new_database(), tmp_path, monkeypatch) as (app, leader, ended):
        asking = threading.Event()

        def ask() -> None:
            asking.set()
            app.store.outbox.pending()

        postgresql.pause()
        try:
            leader.threads.start("asks", lambda _stop, _turned: ask(), limit=600.0, restart=True)
            asking.wait(60)
            lose(leader)
            wait_until(lambda: app._leader is None, 60)
            assert ended == []
        finally:
            postgresql.resume()
