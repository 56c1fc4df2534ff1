"""A leader after whom another process leads: nothing of it goes on beside its own next term."""

import threading
from pathlib import Path

import pytest

from celery_monitor import leader as leading
from celery_monitor.app import App
from celery_monitor.settings import load
from tests.servers.ports import free_port
from tests.servers.waiting import wait_until


@pytest.mark.parametrize("hangs", [False, True], ids=["all end", "one hangs"])
def test_no_thread_of_a_former_leader_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, hangs: bool) -> None:
    """The next term begins when all have ended; one that does not end is named, and ends the process."""
    monkeypatch.setattr(leading, "STEP_DOWN", 0.2 if hangs else 60.0)
    overrides = {
        "broker.url": f"amqp://127.0.0.1:{free_port()}//",
        "store.url": f"sqlite:///{tmp_path / 'store.db'}",
        "web.host": "127.0.0.1",
        "web.port": 0,
    }
    app, ended, released = App(load(None, overrides, {})), list[str](), threading.Event()
    monkeypatch.setattr(app, "_exit_stuck", ended.append)

    def end_late() -> None:
        released.wait()

    thread = threading.Thread(target=app.run)
    thread.start()
    try:
        first = wait_until(lambda: app._leader if app._leader and "pump" in app._leader.threads.names else None)
        assert first is not None
        first.threads.start("late", lambda _stop, _turned: end_late(), limit=600.0)
        of_first = list(first.threads._threads.values())
        if not hangs:
            threading.Timer(0.5, released.set).start()
        first._lose("another replica leads")
        first.stopping.set()
        wait_until(lambda: app._leader not in {None, first})
        assert ("late" in ended) is hangs
        assert hangs or not any(one.is_alive() for one in of_first)
    finally:
        released.set()
        app.stop()
        thread.join(60)
    assert not thread.is_alive()
