"""Named threads that are supervised: failures stop the app or restart the thread, and a watchdog detects stuck ones.

Without the pump and the committer nothing is counted, and after an error their state is unknown. So if one of them
fails, the app exits with a non-zero code, and the broker redelivers what was not committed. Other threads (web, fleet,
prober, notifiers, maintenance) are restarted after a pause, because counting and paging continue without them.

Each loop calls ``heartbeat`` once a turn. The watchdog checks once a second and counts consecutive checks without a new
heartbeat, rather than elapsed time: a process that was suspended as a whole is not stuck.
"""

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Final

import structlog

from celery_monitor.errors import LeaseLostError, MonitorError

WATCH_INTERVAL: Final = 1.0
LOG_TIMEOUT: Final = 1.0
"""Maximum seconds for a log line that is written before the process ends."""
REASON_WAIT: Final = 1.0
"""Seconds to wait for the reason why a thread has ended without an error."""

RESTART_BASE: Final = 1.0
RESTART_CAP: Final = 60.0
"""Seconds before a failed loop is restarted: RESTART_BASE, doubled at each consecutive failure up to RESTART_CAP."""
HEALTHY_AFTER: Final = 60.0
"""Seconds without a failure after which the count of consecutive failures starts again."""
MAX_CONSECUTIVE_FAILURES: Final = 3
"""Consecutive failures from which on the thread is reported as failing."""

_log = structlog.get_logger()

Loop = Callable[[threading.Event, Callable[[], None]], None]
"""Runs until the event is set; calls the function (the heartbeat) once a turn."""


def try_log(log: Callable[[], None]) -> bool:
    """Write to the log in a separate thread; whether it was written within LOG_TIMEOUT. Raises nothing.

    For log lines before the process ends: the reader of the log may have stopped (a full pipe blocks forever, and
    everyone who waits for its lock) or be gone, which must not keep the process alive.
    """
    written = threading.Event()

    def write() -> None:
        with contextlib.suppress(Exception):
            log()
            written.set()

    writer = threading.Thread(target=write, name="last-words", daemon=True)
    writer.start()
    writer.join(LOG_TIMEOUT)
    return written.is_set()


class Threads:
    """Starts loops in threads of their own and supervises them. ``stop`` is set when the app has to end.

    ``end`` is called with the name of a ``fatal`` thread that is stuck, and ends the process. ``on_check`` is called at
    each check of the watchdog, which proves that the interpreter is not blocked. ``on_lost`` is called when the store
    refused a thread because another process leads; then ``stop`` is set, and it does not count as a failure.
    """

    def __init__(
        self,
        stop: threading.Event,
        end: Callable[[str], None],
        on_check: Callable[[], None] = lambda: None,
        on_lost: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Starts no thread yet."""
        self.stop = stop
        self.died: str | None = None
        """Name of the first thread that ended because of an error."""
        self.failures: dict[str, int] = {}
        """Name of each thread that is restarted after a failure → how often it has failed."""
        self._exit = end
        self._on_check = on_check
        self._on_lost = on_lost
        self._threads: dict[str, threading.Thread] = {}
        self._limits: dict[str, float] = {}
        self._fatal: set[str] = set()
        self._beats: dict[str, int] = {}
        self._silence: dict[str, float] = {}
        self._seen: dict[str, int] = {}
        self._failing: dict[str, tuple[int, str]] = {}

    def start(self, name: str, loop: Loop, *, limit: float, fatal: bool = False, restart: bool = False) -> None:
        """Run ``loop`` in a daemon thread called ``name``.

        ``limit``: seconds without a heartbeat after which the thread counts as stuck. ``fatal``: a stuck thread ends
        the process. ``restart``: a failed loop is restarted; otherwise its failure stops the app.
        """
        self._limits[name] = limit
        self._beats[name] = 0
        self._silence[name] = 0.0
        if fatal:
            self._fatal.add(name)
        if restart:
            self.failures[name] = 0
        guard = self._restart if restart else self._once
        thread = threading.Thread(target=guard, args=(name, loop), name=name, daemon=True)
        self._threads[name] = thread
        thread.start()

    def watch(self) -> None:
        """Start the watchdog."""
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stuck(self) -> dict[str, float]:
        """Stuck or dead threads, with the seconds since their last heartbeat; empty when all is well."""
        # Copies, because the app may start threads while another thread calls this.
        stuck = {name: silence for name, silence in list(self._silence.items()) if silence > self._limits[name]}
        stuck |= {name: 0.0 for name, thread in list(self._threads.items()) if not thread.is_alive()}
        return stuck

    def failing(self) -> dict[str, str]:
        """Threads that fail repeatedly, with a description; empty when all is well."""
        return {
            name: f"failed {times} times in a row, last with {error}; see the log for the traceback"
            for name, (times, error) in list(self._failing.items())
            if times >= MAX_CONSECUTIVE_FAILURES
        }

    @property
    def names(self) -> list[str]:
        """Names of all threads that were started."""
        return list(self._threads)

    def join(self, name: str, timeout: float) -> bool:
        """Wait up to ``timeout`` s for a thread to end; whether it has ended."""
        thread = self._threads.get(name)
        if thread is None:
            return True
        thread.join(timeout)
        return not thread.is_alive()

    def _once(self, name: str, loop: Loop) -> None:
        error = None
        try:
            error = self._run(name, loop)
            if error is not None and not self._lost_lease(error):
                self.died = self.died or name
                # The text of our own errors says what is wrong and what to do; a traceback would not help.
                fields = {"error": str(error)} if isinstance(error, MonitorError) else {"exc_info": error}
                try_log(partial(_log.error, "A thread died; the monitor is exiting", thread=name, **fields))
        finally:
            # A thread that ends without an error may follow another one, whose error is known in a moment.
            if not (self.stop.wait(REASON_WAIT) if error is None else self.stop.is_set()):
                self.died = self.died or name
                self.stop.set()

    def _restart(self, name: str, loop: Loop) -> None:
        while True:
            started_at = monotonic()
            error = self._run(name, loop)
            if self._lost_lease(error) or self.stop.is_set():
                return
            self.failures[name] += 1
            earlier_failures = (
                self._failing[name][0] if name in self._failing and monotonic() - started_at < HEALTHY_AFTER else 0
            )
            self._failing[name] = earlier_failures + 1, type(error).__name__ if error else "no error"
            pause = min(RESTART_BASE * 2.0 ** min(earlier_failures, 10), RESTART_CAP)
            _log.error("A thread failed; restarting it", thread=name, seconds=pause, exc_info=error)
            if self.stop.wait(pause):
                return

    def _lost_lease(self, error: Exception | None) -> bool:
        """Whether the thread ended because another process leads; then stop all threads."""
        if not isinstance(error, LeaseLostError):
            return False
        self._on_lost(str(error))
        self.stop.set()
        return True

    def _run(self, name: str, loop: Loop) -> Exception | None:
        try:
            loop(self.stop, lambda: self._heartbeat(name))
        except Exception as exc:  # noqa: BLE001  # the one place: any failure is logged and handled
            return exc
        return None

    def _heartbeat(self, name: str) -> None:
        self._beats[name] += 1

    def beats(self, name: str) -> int:
        """Number of heartbeats of a thread."""
        return self._beats[name]

    def check(self) -> None:
        """One check of the watchdog: a thread without a new heartbeat has been silent for another WATCH_INTERVAL."""
        self._on_check()
        for name, beats in list(self._beats.items()):
            if beats != self._seen.get(name):
                self._seen[name], self._silence[name] = beats, 0.0
                continue
            self._silence[name] += WATCH_INTERVAL
            if name in self._fatal and self._silence[name] > self._limits[name]:
                try:
                    words = "A thread makes no progress; the watchdog ends the process"
                    try_log(partial(_log.critical, words, thread=name, seconds=self._silence[name]))
                finally:
                    self._exit(name)

    def _watch(self) -> None:
        self._on_check()
        while not self.stop.wait(WATCH_INTERVAL):
            self.check()
