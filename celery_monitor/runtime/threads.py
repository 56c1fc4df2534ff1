"""Named, guarded threads: a failure is met as the thread's work demands, and silence is noticed.

Without the pump and the committer nothing is counted, and after an error nobody knows how far they came: their death
stops the app with a non-zero exit, and the broker delivers again what was not committed. What only serves them (web,
fleet, prober, notifiers, keeper) is begun anew after a pause, because the rest still counts and pages meanwhile.

Each loop calls its ``heartbeat`` once a turn. The watchdog looks once a second and counts the looks at which a thread
had not turned since the last one, not the time that went by: a process that was itself suspended is not stuck.
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
"""Seconds that a line of the log may take on the way to the end."""
REASON_WAIT: Final = 1.0
"""Seconds in which the reason becomes known why a thread has ended without an error."""

RESTART_BASE: Final = 1.0
RESTART_CAP: Final = 60.0
"""Seconds before a failed loop is begun anew; doubled at each failure in a row."""
HEALTHY_AFTER: Final = 60.0
"""Seconds without a failure after which the next one is the first of its row again."""
MAX_CONSECUTIVE_FAILURES: Final = 3
"""Failures in a row that are trouble, and not a slip."""

_log = structlog.get_logger()

Loop = Callable[[threading.Event, Callable[[], None]], None]
"""Runs until the event is set; calls the function once a turn."""


def try_log(log: Callable[[], None]) -> bool:
    """Write to the log in a thread of its own; whether it was written in time. Raises nothing of the log's.

    For what stands before the end: who reads the log may have stopped (a full pipe blocks for ever, and its lock with
    it) or be gone, and must not keep the process alive.
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
    """Starts loops in threads of their own and watches them. ``stop`` is set when the app has to end.

    ``limit`` of ``start``: seconds without progress after which the thread counts as stuck. ``fatal``: when it is
    stuck, ``end`` ends the process (with the name of the thread), because nothing else can. ``on_check`` is called at
    each look of the watchdog: as long as it is, the interpreter runs. ``on_lost``: a thread was refused by the store
    because another process leads; then ``stop`` is set, and this is no thread's failure.
    """

    def __init__(
        self,
        stop: threading.Event,
        end: Callable[[str], None],
        on_check: Callable[[], None] = lambda: None,
        on_lost: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Nothing runs yet."""
        self.stop = stop
        self.died: str | None = None
        """Name of the first thread that died of an error."""
        self.failures: dict[str, int] = {}
        """Name of each thread that is begun anew after a failure → how often it has failed."""
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

        ``restart``: it is begun anew when it fails; else its failure stops the app.
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
        """Threads that made no progress in time, or died, with the seconds since; empty when all is well."""
        # Copies: others read while the app still starts threads.
        stuck = {name: silence for name, silence in list(self._silence.items()) if silence > self._limits[name]}
        stuck |= {name: 0.0 for name, thread in list(self._threads.items()) if not thread.is_alive()}
        return stuck

    def failing(self) -> dict[str, str]:
        """Threads that fail again and again, with what of; empty when all is well."""
        return {
            name: f"failed {times} times in a row, last with {error}; see the log for the traceback"
            for name, (times, error) in list(self._failing.items())
            if times >= MAX_CONSECUTIVE_FAILURES
        }

    @property
    def names(self) -> list[str]:
        """All that were started."""
        return list(self._threads)

    def join(self, name: str, timeout: float) -> bool:
        """Wait for a thread's end; whether it has ended."""
        thread = self._threads.get(name)
        if thread is None:
            return True
        thread.join(timeout)
        return not thread.is_alive()

    def _once(self, name: str, loop: Loop) -> None:
        error = None
        try:
            error = self._run(name, loop)
            if error is not None and not self._thread_died(error):
                self.died = self.died or name
                # An error of our own says in words what is wrong and what to do.
                fields = {"error": str(error)} if isinstance(error, MonitorError) else {"exc_info": error}
                try_log(partial(_log.error, "A thread died; the monitor is exiting", thread=name, **fields))
        finally:
            # Without an error of its own it may have ended because of another one, whose reason is known in a moment.
            if not (self.stop.wait(REASON_WAIT) if error is None else self.stop.is_set()):
                self.died = self.died or name
                self.stop.set()

    def _restart(self, name: str, loop: Loop) -> None:
        while True:
            started_at = monotonic()
            error = self._run(name, loop)
            if self._thread_died(error) or self.stop.is_set():
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

    def _thread_died(self, error: Exception | None) -> bool:
        """Whether the thread ended because another process leads."""
        if not isinstance(error, LeaseLostError):
            return False
        self._on_lost(str(error))
        self.stop.set()
        return True

    def _run(self, name: str, loop: Loop) -> Exception | None:
        try:
            loop(self.stop, lambda: self._heartbeat(name))
        except Exception as exc:  # noqa: BLE001  # the one place: whatever it was, it is told and met
            return exc
        return None

    def _heartbeat(self, name: str) -> None:
        self._beats[name] += 1

    def beats(self, name: str) -> int:
        """How many heartbeats a thread has sent."""
        return self._beats[name]

    def check(self) -> None:
        """One look of the watchdog: who has not turned since the last one has been silent for an interval more."""
        self._on_check()
        for name, beats in list(self._beats.items()):
            if beats != self._seen.get(name):
                self._seen[name], self._silence[name] = beats, 0.0
                continue
            self._silence[name] += WATCH_INTERVAL
            if name in self._fatal and self._silence[name] > self._limits[name]:
                try:
                    words = "No progress; the watchdog ends the process"
                    try_log(partial(_log.critical, words, thread=name, seconds=self._silence[name]))
                finally:
                    self._exit(name)

    def _watch(self) -> None:
        self._on_check()
        while not self.stop.wait(WATCH_INTERVAL):
            self.check()
