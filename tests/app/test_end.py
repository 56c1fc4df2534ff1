"""Processes of which a part hangs, dies or ends late: each exits, whatever happens to its log."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from celery_monitor.app import App
from celery_monitor.runtime import threads
from celery_monitor.settings import Settings
from tests.fakes import ManualClock

HANGS = """
import os, threading
from celery_monitor.runtime import threads
threads.WATCH_INTERVAL = 0.05
def hang(stop, turned):
    turned()
    threading.Event().wait()
made = threads.Threads(threading.Event(), lambda name: os._exit(70))
made.start("pump", hang, limit=0.2, fatal=True)
made.watch()
made.stop.wait(100)
"""


def test_the_watchdog_ends_a_process_that_hangs() -> None:
    """With the documented exit code, although the main thread waits forever."""
    assert threads.WATCH_INTERVAL == 1.0
    # Its last words have a second: on a machine that stalls it would end without them.
    patient = HANGS.replace("WATCH_INTERVAL = 0.05", "WATCH_INTERVAL, threads.LAST_WORDS = 0.05, 60.0")
    done = subprocess.run([sys.executable, "-c", patient], timeout=120, check=False, capture_output=True)
    assert done.returncode == 70
    assert b"makes no progress" in done.stdout + done.stderr


@contextmanager
def unread_pipe(*, gone: bool) -> Iterator[int]:
    """The write end of a full pipe that nobody reads, or whose reader is gone."""
    reading, writing = os.pipe()
    if gone:
        os.close(reading)
    else:
        os.set_blocking(writing, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writing, b"x" * 65536)
        os.set_blocking(writing, True)
    try:
        yield writing
    finally:
        os.close(writing)
        if not gone:
            os.close(reading)


LOGGING = "from celery_monitor.adapters import log\nlog.configure('info', 'json')\n"
BLOCKED_IN_ITS_LOG = HANGS.replace(
    "    threading.Event().wait()", "    threads._log.info('x')\n    threading.Event().wait()"
)
DIES = """
import threading
from celery_monitor.runtime.threads import Threads
def dying(stop, turned):
    raise RuntimeError("no")
made = Threads(threading.Event(), lambda name: None)
made.start("bad", dying, limit=1)
import os
os._exit(3 if made.stop.wait(100) and made.died == "bad" else 4)
"""
ENDS_LATE = """
from celery_monitor.app import App
from celery_monitor.settings import Settings
App(Settings())._exit_late()
"""
BLOCKED = """
import ctypes
from celery_monitor.runtime.interpreter import InterpreterGuard
InterpreterGuard().extend(0.5)
ctypes.PyDLL(None).sleep(600)
"""
"""In a call that keeps the interpreter's lock."""
IS_TOLD_TO_STOP = """
import sys, threading
from celery_monitor.app import App
from celery_monitor.settings import Settings
app = App(Settings(web={"port": 0}, store={"url": sys.argv[1]}))
app.threads.died = "pump" if sys.argv[2] == "1" else None
app.stop()
raise SystemExit(app.run())
"""


@pytest.mark.parametrize(
    ("program", "code", "arguments", "gone"),
    [
        pytest.param(HANGS, 70, (), False, id="hangs"),
        pytest.param(HANGS, 70, (), True, id="hangs, reader gone"),
        pytest.param(BLOCKED_IN_ITS_LOG, 70, (), False, id="blocked in its log"),
        pytest.param(BLOCKED, 1, (), False, id="blocked in C"),
        pytest.param(BLOCKED, 1, (), True, id="blocked in C, reader gone"),
        pytest.param(DIES, 3, (), False, id="dies"),
        pytest.param(ENDS_LATE, 1, (), False, id="ends late"),
        pytest.param(ENDS_LATE, 1, (), True, id="ends late, reader gone"),
        pytest.param(IS_TOLD_TO_STOP, 0, ("0",), False, id="stops"),
        pytest.param(IS_TOLD_TO_STOP, 1, ("1",), False, id="a part died"),
        pytest.param(IS_TOLD_TO_STOP, 1, ("1",), True, id="a part died, reader gone"),
    ],
)
def test_a_log_that_nobody_reads_keeps_nothing_alive(
    program: str, code: int, arguments: tuple[str, ...], *, gone: bool, tmp_path: Path
) -> None:
    """The process exits with its exit code although standard error is not writable."""
    with unread_pipe(gone=gone) as stderr:
        done = subprocess.run(
            [sys.executable, "-c", LOGGING + program, f"sqlite:///{tmp_path}/store.db", *arguments],
            timeout=120,
            check=False,
            stderr=stderr,
        )
    assert done.returncode == code


def test_a_blocked_interpreter_has_three_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """However rarely its timer is set, a shorter suspension does not end the process, and a much longer one does."""
    app, clock, ends_at = App(Settings()), ManualClock(), list[float]()

    class Guard:
        def extend(self, seconds: float) -> None:
            ends_at.append(clock.monotonic() + seconds)

    monkeypatch.setattr(app, "clock", clock)
    monkeypatch.setattr(app, "_guard", Guard())
    for _ in range(60):
        app._live()
        assert 180 <= ends_at[-1] - clock.monotonic() <= 190
        clock.advance(1.0)
    assert len(ends_at) == 6
