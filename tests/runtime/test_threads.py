"""Guarded threads: a death ends the app, silence is noticed, a suspended process is not stuck."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from celery_monitor.runtime import threads as module
from celery_monitor.runtime.threads import Threads
from tests.servers import wait_until


def run(loops: dict[str, Callable[[threading.Event, Callable[[], None]], None]]) -> Threads:
    """Started, without a watchdog."""
    made = Threads(threading.Event(), lambda name: None)
    for name, loop in loops.items():
        made.start(name, loop, limit=3.0)
    return made


def patient(stop: threading.Event, turned: Callable[[], None]) -> None:
    """A loop that is well."""
    while not stop.wait(0.01):
        turned()


def test_the_first_death_stops_all() -> None:
    """And is told by its name."""

    def dying(stop: threading.Event, turned: Callable[[], None]) -> None:
        raise RuntimeError("no")

    made = run({"well": patient, "bad": dying})
    assert made.stop.wait(5)
    assert made.died == "bad"
    assert made.join("well", 5)


def test_an_end_without_a_reason_is_a_death() -> None:
    """A loop that returns while nobody asked it to has left its work."""
    made = run({"leaver": lambda stop, turned: None})
    assert made.stop.wait(5)
    assert made.died == "leaver"


def test_an_orderly_end_is_none() -> None:
    """Nobody died."""
    made = run({"well": patient})
    made.stop.set()
    assert made.join("well", 5)
    assert made.died is None


def _has_turned(made: Threads, turned: int) -> bool:
    return made.turns("well") > turned


def test_silence_is_noticed() -> None:
    """A thread that does not turn is stuck after its limit, in looks of the watchdog; the others are not."""
    hold = threading.Event()

    def holding(stop: threading.Event, turned: Callable[[], None]) -> None:
        hold.wait()

    made = run({"well": patient, "stuck": holding})
    try:
        found = []
        for _ in range(6):
            turned = made.turns("well")
            wait_until(partial(_has_turned, made, turned), 5)
            made.look()
            found.append(list(made.stuck()))
        assert found == [[], [], [], [], ["stuck"], ["stuck"]]
    finally:
        made.stop.set()
        hold.set()


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
made.stop.wait(30)
"""


def test_the_watchdog_ends_a_process_that_hangs() -> None:
    """With the exit code that says so, though the main thread waits for ever."""
    assert module.WATCH_INTERVAL == 1.0
    done = subprocess.run([sys.executable, "-c", HANGS], timeout=60, check=False, capture_output=True)
    assert done.returncode == 70
    assert b"Stuck" in done.stdout + done.stderr


@contextmanager
def unread_pipe(*, gone: bool) -> Iterator[int]:
    """The end to write to of a pipe that is full and that nobody reads, or whose reader is gone."""
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
os._exit(3 if made.stop.wait(30) and made.died == "bad" else 4)
"""
ENDS_LATE = """
from celery_monitor.app import App
from celery_monitor.settings import Settings
App(Settings())._end_late()
"""
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
    """The process ends with its exit code though nothing can be written to standard error."""
    with unread_pipe(gone=gone) as stderr:
        done = subprocess.run(
            [sys.executable, "-c", LOGGING + program, f"sqlite:///{tmp_path}/store.db", *arguments],
            timeout=30,
            check=False,
            stderr=stderr,
        )
    assert done.returncode == code
